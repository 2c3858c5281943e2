"""``/v1/chat/completions``, whole or as server-sent events.

Shapes: openai 3.52.0, ``types/chat/chat_completion.py`` and ``chat_completion_chunk.py``. Only the features for trying
a tuned model are supported; ``chat_params`` checks the request's parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune_emulator.http import ApiError, Call, Reply, sse
from cloudtune_emulator.openai import chat_params, models
from cloudtune_emulator.store import new_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.engines import Sampling, Served, Spoken

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})


def create(context: EmulatorContext, call: Call) -> Reply:
    """Create a chat completion."""
    body = call.body
    model = asked_model(context, call)
    chat_params.refuse_chat(body)
    messages = _messages(body.get("messages"))
    sampling = chat_params.sampled(body, "max_completion_tokens", "max_tokens")
    ends = chat_params.stops(body)
    spoken = [
        _cut(context.engine.answer(model, messages, _drawn(sampling, number)), ends)
        for number in range(chat_params.choices(body))
    ]
    head = {"id": new_id("chatcmpl-"), "created": context.stamp(call.now), "model": model.name}
    if body.get("stream"):
        with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        chunks = _chunks(head, spoken, with_usage=with_usage)
        return Reply(body=sse(((None, chunk) for chunk in chunks), done=True), content_type="text/event-stream")
    found = [_choice(number, one) for number, one in enumerate(spoken)]
    return Reply(body=head | {"object": "chat.completion", "choices": found, "usage": _usage(spoken)})


def asked_model(context: EmulatorContext, call: Call) -> Served:
    """The model that a request names: a model here, a deployment on Azure."""
    name = call.ids.get("deployment") or call.body.get("model")
    if not isinstance(name, str) or not name:
        raise ApiError(400, "you must provide a model parameter", param="model")
    if call.api == "azure":
        from cloudtune_emulator.azure import deployments  # it imports the models of this API

        return deployments.served(context, call, name)
    return models.find(context, call, name)


def _messages(given: Any) -> list[dict[str, Any]]:
    if not isinstance(given, list) or not given:
        raise ApiError(400, "'messages' must be a list of at least one message.", param="messages")
    for index, message in enumerate(given):
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise ApiError(400, f"Invalid 'messages[{index}].role'.", param=f"messages[{index}].role")
    return given


def _drawn(sampling: Sampling, number: int) -> Sampling:
    """Each of several choices is sampled with its own seed."""
    if number == 0 or sampling.seed is None:
        return sampling
    return msgspec.structs.replace(sampling, seed=sampling.seed + number)


def _cut(spoken: Spoken, ends: Sequence[str]) -> Spoken:
    """The answer up to the first stop sequence, which is excluded."""
    found = [place for end in ends if (place := spoken.text.find(end)) >= 0]
    if not found:
        return spoken
    return msgspec.structs.replace(spoken, pieces=(spoken.text[: min(found)],), finish_reason="stop")


def _choice(number: int, spoken: Spoken) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": spoken.text, "refusal": None, "annotations": []}
    if spoken.tool_calls:
        message |= {"content": spoken.text or None, "tool_calls": list(spoken.tool_calls)}
    return {"index": number, "finish_reason": spoken.finish_reason, "logprobs": None, "message": message}


def _usage(spoken: Sequence[Spoken]) -> dict[str, int]:
    prompt, completion = spoken[0].prompt_tokens, sum(one.completion_tokens for one in spoken)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _chunks(head: dict[str, Any], spoken: Sequence[Spoken], *, with_usage: bool) -> Iterator[dict[str, Any]]:
    head = head | {"object": "chat.completion.chunk"}
    last = {"usage": None} if with_usage else {}

    def chunk(number: int, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": number, "delta": delta, "finish_reason": reason, "logprobs": None}
        return head | {"choices": [choice]} | last

    for number, one in enumerate(spoken):
        yield chunk(number, {"role": "assistant", "content": "", "refusal": None})
        for piece in one.pieces:
            yield chunk(number, {"content": piece})
        for index, made in enumerate(one.tool_calls):
            yield chunk(number, {"tool_calls": [{"index": index} | made]})
        yield chunk(number, {}, one.finish_reason)
    if with_usage:
        yield head | {"choices": [], "usage": _usage(spoken)}
