"""``POST /v1/responses``, whole or as server-sent events. Nothing is stored: there is no retrieve call.

Shapes and the order of the events: openai 3.52.0, ``types/responses``.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from cloudtune_emulator.http import ApiError, Call, Reply, sse
from cloudtune_emulator.openai import chat, chat_params
from cloudtune_emulator.store import new_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.engines import Spoken


def create(context: EmulatorContext, call: Call) -> Reply:
    """Create a response to a string, or to a list of messages."""
    model = chat.asked_model(context, call)
    chat_params.refuse_response(call.body)
    messages = _messages(call.body)
    sampling = chat_params.sampled(call.body, "max_output_tokens")
    head = _head(call, model.name, context.stamp(call.now))
    spoken = context.engine.answer(model, messages, sampling)
    if call.body.get("stream"):
        events = ((event["type"], event) for event in _events(head, spoken))
        return Reply(body=sse(events, done=False), content_type="text/event-stream")
    return Reply(body=_finished(head, new_id("msg_"), spoken))


def _messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    given = body.get("input")
    if isinstance(given, str) and given:
        messages = [{"role": "user", "content": given}]
    elif isinstance(given, list) and given:
        messages = [item for item in given if isinstance(item, dict) and "role" in item]
    else:
        raise ApiError(400, "Missing required parameter: 'input'.", param="input", code="missing_required_parameter")
    if body.get("instructions"):
        messages.insert(0, {"role": "system", "content": body["instructions"]})
    return messages


def _head(call: Call, model: str, created: int) -> dict[str, Any]:
    body = call.body
    return {
        "id": new_id("resp_"), "object": "response", "created_at": created, "model": model, "error": None,
        "incomplete_details": None, "instructions": body.get("instructions"), "metadata": body.get("metadata") or {},
        "output": [], "parallel_tool_calls": True, "temperature": body.get("temperature", 1.0), "tool_choice": "auto",
        "tools": [], "top_p": body.get("top_p", 1.0), "max_output_tokens": body.get("max_output_tokens"),
        "previous_response_id": None, "status": "in_progress", "text": {"format": {"type": "text"}},
        "truncation": "disabled", "usage": None, "background": False,
    }  # fmt: skip


def _item(name: str, text: str, status: str) -> dict[str, Any]:
    content = [] if status == "in_progress" else [_part(text)]
    return {"id": name, "type": "message", "role": "assistant", "status": status, "content": content}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _finished(head: dict[str, Any], item: str, spoken: Spoken) -> dict[str, Any]:
    is_cut = spoken.finish_reason == "length"
    prompt, completion = spoken.prompt_tokens, spoken.completion_tokens
    status = "incomplete" if is_cut else "completed"
    usage = {
        "input_tokens": prompt, "output_tokens": completion, "total_tokens": prompt + completion,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip
    details = {"reason": "max_output_tokens"} if is_cut else None
    output = [_item(item, spoken.text, status)]
    return head | {"status": status, "output": output, "usage": usage, "incomplete_details": details}


def _events(head: dict[str, Any], spoken: Spoken) -> Iterator[dict[str, Any]]:
    number = count()
    item, place = new_id("msg_"), {"output_index": 0}
    part = {"item_id": "", "content_index": 0} | place
    part["item_id"] = item

    def event(kind: str, **fields: Any) -> dict[str, Any]:
        return {"type": f"response.{kind}", "sequence_number": next(number)} | fields

    yield event("created", response=head)
    yield event("in_progress", response=head)
    yield event("output_item.added", item=_item(item, "", "in_progress"), **place)
    yield event("content_part.added", part=_part(""), **part)
    for piece in spoken.pieces:
        yield event("output_text.delta", delta=piece, logprobs=[], **part)
    yield event("output_text.done", text=spoken.text, logprobs=[], **part)
    yield event("content_part.done", part=_part(spoken.text), **part)
    final = _finished(head, item, spoken)
    yield event("output_item.done", item=final["output"][0], **place)
    yield event("completed" if final["status"] == "completed" else "incomplete", response=final)
