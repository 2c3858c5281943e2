"""Checks rows against a model's chat template: which content it refuses, or drops. Does not import torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.data.checks.chat_template import compiled
from cloudtune.data.checks.tokens import TokenCounter
from cloudtune.data.records import Chat, Preference
from cloudtune.errors import Problem
from cloudtune_trainer.content_loss import losses
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.rendering import PLAIN_TEMPLATE, Renderer
from cloudtune_trainer.submit import hub

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cloudtune.data.records import Record

_FIX = "use a template that writes it, or change the row"


class TemplateCheck:
    """Returns the problems of a record with the chat template of a model: a folder, or an id in the hub's cache.

    There are none if the model's tokenizer is not available.
    """

    def __init__(self, model: str) -> None:
        folder = Path(model).expanduser() if Path(model).expanduser().is_dir() else hub.cached_snapshot(model, None)
        found = folder is not None and (folder / "tokenizer.json").is_file()
        tokenizer: Any = _Templates(TokenCounter(str(folder))) if found else None
        self._renderer = Renderer(tokenizer, loss_on="assistant") if tokenizer is not None else None

    def __call__(self, record: Record) -> list[Problem]:
        """The problems of one record, without its line number."""
        if self._renderer is None:
            return []
        row = msgspec.to_builtins(record)
        if isinstance(record, Chat):
            return list(self._problems(self._renderer, row["messages"], row.get("tools")))
        if not isinstance(record, Preference):
            return []
        requested = [message | {"weight": 0} for message in row["messages"]]
        found = [
            problem
            for side in (row["chosen"], row["rejected"])
            for problem in self._problems(self._renderer, [*requested, *side], row.get("tools"))
        ]
        return list(dict.fromkeys(found))

    def _problems(
        self, renderer: Renderer, messages: Sequence[dict[str, Any]], tools: list[dict[str, Any]] | None
    ) -> Iterator[Problem]:
        if any(isinstance(message.get("content"), list) for message in messages):
            message = "a message has images or other parts; the trainer supports text only"
            yield Problem(code="not_text", field="messages", message=message, fix="convert the message to text")
            return
        try:
            samples = renderer.render(messages, tools)
        except TrainingProblem as error:
            yield Problem(code="template", field="messages", message=error.message, fix=error.hint or _FIX)
            return
        for loss in losses(messages, tools, samples):
            message = f"{loss.kind}: {loss.quoted}"
            yield Problem(code="template", field="messages", severity="warning", message=message, fix=_FIX)


class _Templates:
    """A tokenizer for the renderer that runs untrusted templates in the sandbox."""

    def __init__(self, counter: TokenCounter) -> None:
        self._special: Mapping[str, str] = counter.special
        self._template = counter.template or compiled(PLAIN_TEMPLATE)
        self.all_special_tokens = counter.special_texts
        self.added_tokens_decoder: dict[int, Any] = {}
        self.chat_template = ""
        """Empty: the assistant mask needs transformers, and does not change the text."""
        self.eos_token = counter.special.get("eos_token")

    def apply_chat_template(
        self, messages: list[dict[str, Any]], *, tools: Any = None, tokenize: bool, add_generation_prompt: bool = False
    ) -> str:
        """See transformers; ``tokenize`` is false."""
        return self._template.render(  # type: ignore[no-any-return]
            messages=messages, tools=tools, add_generation_prompt=add_generation_prompt, **self._special
        )
