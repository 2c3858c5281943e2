"""``/v1/chat/completions``, whole or as server-sent events.

Shapes: openai 3.52.0, ``types/chat/chat_completion.py`` and ``chat_completion_chunk.py``. Only what a tuned model needs
to be tried is answered; sampling parameters are checked, the rest is accepted and ignored, as tools are not emulated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune_local.emulator.engine import Sampling, Served, Spoken
from cloudtune_local.emulator.openai import models
from cloudtune_local.emulator.store import new_id
from cloudtune_local.emulator.wire import ApiError, Call, Reply, sse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloudtune_local.emulator.site import Site

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})


def create(site: Site, call: Call) -> Reply:
    """Answer a conversation."""
    body = call.body
    model = asked_model(site, call)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "'messages' must be a list of at least one message.", param="messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise ApiError(400, f"Invalid 'messages[{index}].role'.", param=f"messages[{index}].role")
    refuse_unknown(body, {"n": 1, "logprobs": False, "tools": [], "functions": [], "audio": None, "logit_bias": {}})
    sampling = sampled(body, "max_completion_tokens", "max_tokens")
    head = {"id": new_id("chatcmpl-"), "created": site.stamp(call.now), "model": model.name}
    spoken = _cut(site.engine.answer(model, messages, sampling), body.get("stop"))
    if body.get("stream"):
        with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        chunks = _chunks(head, spoken, with_usage=with_usage)
        return Reply(body=sse(((None, chunk) for chunk in chunks), done=True), content_type="text/event-stream")
    choice = {
        "index": 0, "finish_reason": spoken.finish_reason, "logprobs": None,
        "message": {"role": "assistant", "content": spoken.text, "refusal": None, "annotations": []},
    }  # fmt: skip
    return Reply(body=head | {"object": "chat.completion", "choices": [choice], "usage": _usage(spoken)})


def asked_model(site: Site, call: Call) -> Served:
    """The model that a request names: a model here, a deployment on Azure."""
    name = call.ids.get("deployment") or call.body.get("model")
    if not isinstance(name, str) or not name:
        raise ApiError(400, "you must provide a model parameter", param="model")
    if call.face == "azure":
        from cloudtune_local.emulator.azure import deployments  # which needs the models of this face

        return deployments.served(site, call, name)
    return models.find(site, call, name)


def refuse_unknown(body: Mapping[str, Any], plain: Mapping[str, Any]) -> None:
    """Refuse what would change the answer and is not emulated: ignoring it would make a rehearsal lie."""
    for name, usual in plain.items():
        if body.get(name) not in (None, usual):
            raise ApiError(400, f"'{name}' is not emulated.", param=name, code="not_emulated")
    kind = (body.get("response_format") or {}).get("type", "text")
    if kind != "text":
        raise ApiError(400, f"'{kind}' is not emulated.", param="response_format", code="not_emulated")


def _cut(spoken: Spoken, stop: str | list[str] | None) -> Spoken:
    """The answer up to the first of the stop sequences, which is not part of it."""
    ends = [stop] if isinstance(stop, str) else stop or []
    found = [place for end in ends if end and (place := spoken.text.find(end)) >= 0]
    if not found:
        return spoken
    return msgspec.structs.replace(spoken, pieces=(spoken.text[: min(found)],), finish_reason="stop")


def sampled(body: Mapping[str, Any], *limits: str) -> Sampling:
    """How to draw, checked. The first of ``limits`` that is given says how many tokens."""
    limit = next((name for name in limits if body.get(name) is not None), None)
    most = Sampling().max_tokens if limit is None else body[limit]
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        raise ApiError(400, f"Invalid '{limit}': a whole number of at least 1 is needed.", param=limit)
    figures: dict[str, float] = {}
    for name, highest in (("temperature", 2.0), ("top_p", 1.0)):
        value = 1.0 if body.get(name) is None else body[name]
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= highest:
            raise ApiError(400, f"Invalid '{name}': {value!r} is not between 0 and {highest:g}.", param=name)
        figures[name] = float(value)
    return Sampling(max_tokens=most, seed=body.get("seed"), **figures)


def _usage(spoken: Spoken) -> dict[str, int]:
    prompt, completion = spoken.prompt_tokens, spoken.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _chunks(head: dict[str, Any], spoken: Spoken, *, with_usage: bool) -> Iterator[dict[str, Any]]:
    head = head | {"object": "chat.completion.chunk"}
    last = {"usage": None} if with_usage else {}

    def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return head | {"choices": [choice]} | last

    yield chunk({"role": "assistant", "content": "", "refusal": None})
    for piece in spoken.pieces:
        yield chunk({"content": piece})
    yield chunk({}, spoken.finish_reason)
    if with_usage:
        yield head | {"choices": [], "usage": _usage(spoken)}
