"""Finds content that a chat template drops, by comparing rendered samples with the row. Standard library only.

Published templates drop reasoning, ignore system messages or tools, and strip white space. These are not errors of the
template, but the model cannot learn the dropped content.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloudtune_trainer.rendering import Rendered

LEARNED = "the chat template leaves out text to learn"
CONTEXT = "the chat template leaves out parts of the prompt"
SPACES = "the chat template removes white space at the ends of text to learn"
UNASKED = "the chat template starts its prompt for an answer with text that the rendered answers do not have"

_THOUGHTS = re.compile(r"</?think(?:ing)?>|\[/?THINK\]|</?seed:think>")
_SHOWN = 60
"""Characters of a lost text that are quoted."""


class Loss(NamedTuple):
    """A text of a row that is missing in its rendered samples."""

    kind: str
    """The kind: one of the constants above."""
    message: int
    """Which message, counted from 1; 0 for the row's tools."""
    text: str

    @property
    def quoted(self) -> str:
        """The start of the text, in quotes."""
        more = "..." if len(self.text) > _SHOWN else ""
        return f"{json.dumps(self.text[:_SHOWN] + more, ensure_ascii=False)} (message {self.message})"


def losses(messages: Sequence[dict[str, Any]], tools: Sequence[Any] | None, samples: Sequence[Rendered]) -> list[Loss]:
    """The content that is missing in the samples of one row, at most one loss per message."""
    if not samples:
        return []
    whole = "\n".join(sample.text for sample in samples)
    learned: dict[int, str] = {}
    for sample in samples:
        for turn, (begin, end) in zip(sample.turns, sample.spans or (), strict=True):
            learned[turn] = sample.text[begin:end]
    everything = any(sample.spans is None for sample in samples)
    found = []
    for index, message in enumerate(messages):
        text = whole if everything and message["role"] == "assistant" else learned.get(index)
        loss = _of_answer(message, text) if text is not None else _of_prompt(message, whole)
        if loss is not None:
            found.append(Loss(loss[0], index + 1, loss[1]))
    names = [tool["function"]["name"] for tool in tools or () if isinstance(tool.get("function"), dict)]
    found += [Loss(CONTEXT, 0, name) for name in names if name not in whole]
    found += [Loss(UNASKED, sample.turns[-1] + 1, sample.unasked) for sample in samples if sample.unasked.strip()]
    return found


def _of_answer(message: dict[str, Any], learned: str) -> tuple[str, str] | None:
    content = message.get("content") or ""
    for part in (
        *_THOUGHTS.split(content),
        *_THOUGHTS.split(message.get("reasoning_content") or ""),
        *_called(message),
    ):
        if not _is_in(part, learned):
            return LEARNED, part.strip()
    if content.strip() and content not in learned and not _THOUGHTS.search(content):
        return SPACES, content
    return None


def _of_prompt(message: dict[str, Any], whole: str) -> tuple[str, str] | None:
    """Missing reasoning in an earlier answer is no loss: templates drop it on purpose, and it is not trained on."""
    content = message.get("content") or ""
    parts = _THOUGHTS.split(content)[-1:] if message["role"] == "assistant" else [content]
    for part in (*parts, *_called(message)):
        if not _is_in(part, whole):
            return CONTEXT, part.strip()
    return None


def _is_in(part: str, text: str) -> bool:
    """Whether the text contains the words: unchanged, as JSON, or with different white space."""
    part = part.strip()
    if part in text or json.dumps(part, ensure_ascii=False)[1:-1] in text or json.dumps(part)[1:-1] in text:
        return True
    return "".join(part.split()) in "".join(text.split())


def _called(message: dict[str, Any]) -> Iterator[str]:
    """The names and the arguments of the calls in a message."""
    for call in message.get("tool_calls") or ():
        yield call["function"]["name"]
        arguments = call["function"].get("arguments")
        if isinstance(arguments, str):
            with contextlib.suppress(ValueError, RecursionError):  # a malformed call of the model is shown unchanged
                arguments = json.loads(arguments)
        yield from _leaves(arguments)


def _leaves(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += [part for name, item in reversed(one.items()) for part in (item, str(name))]
        elif isinstance(one, list):
            waiting += reversed(one)
        elif isinstance(one, str):
            yield one
        elif isinstance(one, int | float) and not isinstance(one, bool):
            yield json.dumps(one)
