"""Inference with chat completions or responses: a whole answer, or its chunks and then the whole."""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.errors import InvalidRequest, Unavailable
from cloudtune.optional import GenerateOptions
from cloudtune.prompts import ToolPrompt, messages_of, with_calls
from cloudtune.state import Generation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloudtune.optional import Prompt
    from cloudtune_providers.openai_dialect.sdk_client import Wire

_REASONING = re.compile(r"(ft:)?(o[1-9]|gpt-5(-mini|-nano)?(-\d|:|$))")
"""Models that accept only the default temperature: "Unsupported value: 'temperature' does not support 0.0 with this
model", as reported in github.com/OpenHands/OpenHands/issues/4131, github.com/NVlabs/cvdp_benchmark/issues/29 (o4-mini)
and github.com/QwenLM/qwen-code/issues/921 (gpt-5-mini), read 2026-11-30.
"""


def why_no_tools(by: str) -> str:
    """See `ToolCaller`. ``by`` is the API that answers."""
    return "" if by == "chat" else "cloudtune sends tools only with answers = chat"


class Answering:
    """The models of one account."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def generate(
        self, model: str, prompts: Sequence[Prompt], options: GenerateOptions | None, *, by: str = "chat",
        base: str = "",
    ) -> Iterator[Generation]:  # fmt: skip
        """One answer for each prompt. ``base`` is the model of a deployment, whose name is ``model``."""
        options = options or GenerateOptions()
        sampling = _sampling(base or model, options)
        for prompt in prompts:
            if by != "chat":
                request = _response(model, messages_of(prompt), options) | sampling
            elif isinstance(prompt, ToolPrompt):
                request = _chat(model, list(prompt.messages), options) | sampling | {"tools": list(prompt.tools)}
            else:
                request = _chat(model, messages_of(prompt), options) | sampling
            if options.stream and not isinstance(prompt, ToolPrompt):
                yield from self._streamed(model, request, by)
            else:
                with self._asking(model):
                    said = self._call(by)(**request)
                    answer = _of_chat(said, model) if by == "chat" else _of_response(said, model)
                yield answer

    def _streamed(self, model: str, request: dict[str, Any], by: str) -> Iterator[Generation]:
        """Chunks, then the whole answer. Raises Unavailable if the stream has no end."""
        more = {"stream": True} | ({"stream_options": {"include_usage": True}} if by == "chat" else {})
        with self._asking(model):
            stream = self._call(by)(**request, **more)
        pieces: list[str] = []
        end: Generation | None = None
        with closing(stream):
            parts = _chat_parts(stream, model) if by == "chat" else _response_parts(stream, model)
            while True:
                with self._asking(model):
                    part = next(parts, None)
                if part is None:
                    break
                if part.partial:
                    pieces.append(part.text)
                    yield part
                else:
                    end = part
        if end is None:
            size = sum(map(len, pieces))
            raise Unavailable(f"model {model}: the response was interrupted after {size} characters", hint="try again")
        yield msgspec.structs.replace(end, text="".join(pieces))

    def _call(self, by: str) -> Any:
        client: Any = self._wire.client
        return client.chat.completions.create if by == "chat" else client.responses.create

    def _asking(self, model: str) -> Any:
        return self._wire.asking(f"model {model}", missing=InvalidRequest)


def _sampling(model: str, options: GenerateOptions) -> dict[str, Any]:
    """The temperature and top_p. Their defaults are not sent to models that reject them."""
    given = {"temperature": options.temperature, "top_p": options.top_p}
    if _REASONING.match(model) is None:
        return given
    usual = GenerateOptions()
    return {name: value for name, value in given.items() if value != getattr(usual, name)}


def _chat(model: str, messages: list[dict[str, Any]], options: GenerateOptions) -> dict[str, Any]:
    seed = {"seed": options.seed} if options.seed is not None else {}
    return seed | {
        "model": model, "messages": messages, "max_completion_tokens": options.max_tokens,
    }  # fmt: skip


def _response(model: str, messages: list[dict[str, Any]], options: GenerateOptions) -> dict[str, Any]:
    return {
        "model": model, "input": messages, "max_output_tokens": options.max_tokens,
        "store": False,
    }  # fmt: skip


def _of_chat(said: Any, model: str) -> Generation:
    choice = said.choices[0]
    calls = [(call.function.name, call.function.arguments) for call in choice.message.tool_calls or ()
             if call.type == "function"]  # fmt: skip
    text = with_calls(choice.message.content or "", calls)
    return _counted(said.usage, text, choice.finish_reason or "", said.model or model)


def _of_response(said: Any, model: str) -> Generation:
    cut = said.incomplete_details.reason if said.incomplete_details else None
    usage = said.usage
    return Generation(
        text=said.output_text, finish_reason=cut or "stop", model=said.model or model,
        prompt_tokens=usage.input_tokens if usage else None,
        completion_tokens=usage.output_tokens if usage else None,
    )  # fmt: skip


def _counted(usage: Any, text: str, reason: str, model: str) -> Generation:
    return Generation(
        text=text, finish_reason=reason, model=model, prompt_tokens=usage.prompt_tokens if usage else None,
        completion_tokens=usage.completion_tokens if usage else None,
    )  # fmt: skip


def _chat_parts(stream: Any, model: str) -> Iterator[Generation]:
    """Return whether the answer is complete: its finish reason has arrived. The usage may follow in another chunk."""
    reason, usage, name = "", None, model
    for chunk in stream:
        name = chunk.model or name
        usage = chunk.usage or usage
        for choice in chunk.choices[:1]:  # Azure's first chunk has none: it contains the content filter results
            reason = choice.finish_reason or reason
            if choice.delta.content:
                yield Generation(text=choice.delta.content, partial=True, model=name)
    if reason:
        yield _counted(usage, "", reason, name)


def _response_parts(stream: Any, model: str) -> Iterator[Generation]:
    for event in stream:
        if event.type == "response.output_text.delta":
            yield Generation(text=event.delta, partial=True, model=model)
        elif event.type in ("response.completed", "response.incomplete"):
            yield _of_response(event.response, model)
        elif event.type in ("response.failed", "error"):
            raise Unavailable(f"model {model}: {_failure(event)}")


def _failure(event: Any) -> str:
    error = getattr(getattr(event, "response", None), "error", None) or event
    return str(getattr(error, "message", None) or "the service did not give a reason")
