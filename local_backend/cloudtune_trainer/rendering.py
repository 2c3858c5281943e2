"""Rendering of chat records as text, with the spans to train on.

The tokenizer's chat template determines the text. The spans are found in one of three ways, in this order: the
template's own ``{% generation %}`` marks; the difference between the dialogue with and without an assistant's turn;
and, for templates that render an earlier turn differently from the last (some drop its reasoning), one sample for each
turn, rendered as at inference.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from cloudtune_trainer.content_loss import LEARNED, losses
from cloudtune_trainer.problems import TrainingProblem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ 'Assistant: ' + message['content'] + (eos_token or '') + '\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\n' }}"
    "{% else %}{{ message['content'] + '\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""For tokenizers without a template: ``User: ...``, ``Assistant: ...`` and the end-of-text token, one line each.
It is saved with the tuned model, so that inference uses the same format. `set_plain_template` prepends the tokens with
which the tokenizer starts a text."""


class Dialogue(NamedTuple):
    """The input of a template."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None

    def first(self, turns: int) -> Dialogue:
        """The start of the span."""
        return self._replace(messages=self.messages[:turns])


@dataclass(frozen=True)
class Rendered:
    """One sample as text. ``spans`` are half-open character ranges to train on; None means the whole text."""

    text: str
    spans: tuple[tuple[int, int], ...] | None
    turns: tuple[int, ...] = ()
    """The message of each span."""
    unasked: str = ""
    """The generation prompt's part that is missing before the answer of this sample."""


class Renderer:
    """Renders the records of one run, with one tokenizer and one choice of the turns to train on."""

    def __init__(self, tokenizer: Any, *, loss_on: str) -> None:
        self._tokenizer = tokenizer
        self._loss_on = loss_on
        self._marked = "{% generation" in _template(tokenizer) or "{%- generation" in _template(tokenizer)
        ends = (token for token in _special_tokens(tokenizer) if token)
        self._ends = tuple(sorted(ends, key=lambda token: (-len(token), token)))  # sets differ between processes
        self._stops = tuple(token for token in (tokenizer.eos_token, turn_end(tokenizer)) if token)

    def render(self, messages: Sequence[dict[str, Any]], tools: list[dict[str, Any]] | None = None) -> list[Rendered]:
        """The samples of one dialogue; usually one. Empty if there is nothing to train on.

        ``tools`` are the assistant's tools, as JSON Schema: templates that support tools render them.
        """
        plain = Dialogue([templated(message) for message in messages], tools or None)
        if self._loss_on == "all":
            return [Rendered(self._closed(self._text(plain)), None)]
        turns = self._learnt_turns(messages)
        if not turns:
            return []
        if self._marked and (marked := self._by_marks(plain, turns)) is not None:
            found = [marked]
            if not any(loss.kind == LEARNED for loss in losses(messages, None, found)):
                return found
        sample = self._by_difference(plain, turns)
        return [sample] if sample is not None else [self._alone(plain, turn) for turn in turns]

    def prompt(self, messages: Sequence[dict[str, Any]], tools: list[dict[str, Any]] | None = None) -> str:
        """The text after which the assistant's answer begins. For ``tools`` see `render`."""
        return self._text(Dialogue([templated(message) for message in messages], tools or None), prompt=True)

    def _learnt_turns(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        assistant = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        if self._loss_on == "last_assistant":
            assistant = assistant[-1:]
        return [i for i in assistant if messages[i].get("weight", 1) == 1]

    def _by_marks(self, dialogue: Dialogue, turns: list[int]) -> Rendered | None:
        from transformers.utils.chat_template_utils import render_jinja_template

        with _refusals(dialogue):
            texts, marks = render_jinja_template(
                conversations=[dialogue.messages],
                tools=dialogue.tools,
                chat_template=_template(self._tokenizer),
                return_assistant_tokens_mask=True,
                **self._tokenizer.special_tokens_map,
            )
        assistant = [i for i, message in enumerate(dialogue.messages) if message["role"] == "assistant"]
        if len(marks[0]) != len(assistant):  # a template may mark fewer turns, or parts of them
            return None
        text = self._closed(texts[0])
        learnt = [span for i, span in zip(assistant, marks[0], strict=True) if i in turns]
        spans = [(begin, self._with_end(text, begin, end)) for begin, end in learnt]
        if turns[-1] == len(dialogue.messages) - 1 and len(text) > len(texts[0]):  # the end was appended
            spans[-1] = (spans[-1][0], len(text))
        return Rendered(text, tuple(spans), tuple(turns))

    def _by_difference(self, dialogue: Dialogue, turns: list[int]) -> Rendered | None:
        whole = self._text(dialogue)
        spans = []
        for turn in turns:
            prompt = self._before(dialogue, turn)
            until = whole if turn == len(dialogue.messages) - 1 else self._text(dialogue.first(turn + 1))
            if not (whole.startswith(until) and until.startswith(prompt)) or len(until) == len(prompt):
                return None
            end = len(self._trimmed(until))
            spans.append((len(prompt), end if end > len(prompt) else len(until)))
        text = self._closed(whole)
        if spans[-1][1] >= len(whole):
            spans[-1] = (spans[-1][0], len(text))
        return Rendered(text, tuple(spans), tuple(turns))

    def _alone(self, dialogue: Dialogue, turn: int) -> Rendered:
        requested = prompt = self._before(dialogue, turn)
        text = self._trimmed(self._text(dialogue.first(turn + 1)))
        if not text.startswith(prompt):  # the template opens the turn differently from its generation prompt
            prompt = self._opened(self._text(dialogue.first(turn)), requested, text, dialogue.messages[turn])
        if not text.startswith(prompt) or len(text) <= len(prompt):
            raise TrainingProblem(
                "bad_data",
                "the chat template rewrites earlier turns, so the assistant's tokens cannot be identified",
                "Use loss_on: all, or a template with {% generation %} marks.",
            )
        text = self._closed(text)
        unasked = requested[len(prompt) :] if requested.startswith(prompt) else ""
        return Rendered(text, ((len(prompt), len(text)),), (turn,), unasked)

    def _opened(self, before: str, requested: str, text: str, message: dict[str, Any]) -> str:
        """The start of the text that is also in the generation prompt, and therefore not part of the answer."""
        if not (text.startswith(before) and requested.startswith(before)):
            return before
        shared = next(
            (i for i, (a, b) in enumerate(zip(requested, text, strict=False)) if a != b), min(len(requested), len(text))
        )
        words = message["content"].strip()
        answer = text.find(words, len(before)) if words else -1
        return text[: shared if answer < 0 else min(shared, answer)]

    def _before(self, dialogue: Dialogue, turn: int) -> str:
        """The text before the content of that turn."""
        if turn:
            return self._text(dialogue.first(turn), prompt=True)
        # Most templates cannot render an empty dialogue, and some open every dialogue with their own system prompt.
        words, body = str(dialogue.messages[0]["content"]).strip(), self._text(dialogue.first(1)).rstrip()
        for end in self._ends:
            body = body.removesuffix(end)
        return body[: body.rindex(words)] if words and words in body else ""

    def _text(self, dialogue: Dialogue, *, prompt: bool = False) -> str:
        if not dialogue.messages:
            return ""
        with _refusals(dialogue):
            return self._tokenizer.apply_chat_template(  # type: ignore[no-any-return]
                dialogue.messages, tools=dialogue.tools, tokenize=False, add_generation_prompt=prompt
            )

    def _trimmed(self, text: str) -> str:
        """Remove the line end that many templates put after the token that ends a turn: answers do not need it."""
        bare = text.rstrip()
        return bare if bare.endswith(self._ends) else text

    def _closed(self, text: str) -> str:
        """Add an end token: without one, a model never learns to stop."""
        trimmed = self._trimmed(text)
        end = self._tokenizer.eos_token
        return trimmed if end is None or trimmed.endswith(self._ends) else trimmed + end

    def _with_end(self, text: str, begin: int, end: int) -> int:
        """Marks often end before the token that ends the turn, or after it. Train on that token, and no further."""
        marked = text[begin:end].rstrip()
        if marked.endswith(self._ends):
            return begin + len(marked)
        rest = text[end:]
        for token in self._ends:
            if rest.startswith(token):
                return end + len(token)
        for token in self._stops:
            if rest.lstrip().startswith(token):
                return text.index(token, end) + len(token)
        return end


@contextlib.contextmanager
def _refusals(dialogue: Dialogue) -> Iterator[None]:
    """Convert the exceptions of a template, which can be of any type, to `TrainingProblem`."""
    try:
        yield
    except TrainingProblem:
        raise
    except Exception as error:
        raise _rejected(dialogue, error) from error


def set_plain_template(tokenizer: Any) -> bool:
    """Set the plain chat template if a tokenizer has none. Returns whether it was set."""
    if _template(tokenizer):
        return False
    start = text_start(tokenizer)
    opening = "{{ bos_token }}" if start and start == tokenizer.bos_token else f"{{{{ {json.dumps(start)} }}}}"
    tokenizer.chat_template = opening + PLAIN_TEMPLATE if start else PLAIN_TEMPLATE
    return True


def text_start(tokenizer: Any) -> str:
    """The special tokens that the tokenizer puts before every text, such as ``<s>``. Many have none."""
    ids, bare = (tokenizer("a", add_special_tokens=added)["input_ids"] for added in (True, False))
    count = next((n for n in range(len(ids)) if ids[n : n + len(bare)] == bare), 0)
    return "".join(tokenizer.convert_ids_to_tokens(ids[:count]))


def turn_end(tokenizer: Any) -> str | None:
    """The token that the template puts right after an assistant's text, e.g. ``<|im_end|>``."""
    words = "answer"
    try:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": "question"}, {"role": "assistant", "content": words}], tokenize=False
        )
    except Exception:  # noqa: BLE001 - templates raise any exception, e.g. for a role: use the model's own end token
        return None
    rest = text[text.rindex(words) + len(words) :].lstrip() if words in text else ""
    return next(
        (token for token in sorted(_special_tokens(tokenizer), key=len, reverse=True) if rest.startswith(token)), None
    )


def _rejected(dialogue: Dialogue, error: Exception) -> TrainingProblem:
    roles = " ".join(message["role"] for message in dialogue.messages)
    return TrainingProblem("bad_data", f"the chat template rejects the roles {roles}: {error}")


def _template(tokenizer: Any) -> str:
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default", "")
    return template or ""


def _special_tokens(tokenizer: Any) -> set[str]:
    added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return added | set(tokenizer.all_special_tokens)


def templated(message: dict[str, Any]) -> dict[str, Any]:
    """The message in the templates' format: no weight, empty text for missing content, arguments as an object."""
    plain = {**{k: v for k, v in message.items() if k != "weight"}, "content": message.get("content") or ""}
    if message.get("tool_calls"):
        plain["tool_calls"] = [_called(call) for call in message["tool_calls"]]
    return plain


def _called(call: dict[str, Any]) -> dict[str, Any]:
    function = dict(call["function"])
    try:
        function["arguments"] = json.loads(function["arguments"])
    except (TypeError, ValueError, RecursionError):  # an object, or malformed text: rendered unchanged
        return call
    return {**call, "function": function}
