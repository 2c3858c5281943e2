"""bedrock-runtime: Converse and InvokeModel, whole and as streams, answered by the engine.

Shapes: botocore 1.44.5; InvokeModel's bodies are each family's own
(https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html, seen 2026-11-21). Options that would change
the answer and are not emulated (tools, guardrails) are refused.
"""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cloudtune_emulator.aws import eventstream
from cloudtune_emulator.aws.errors import invalid
from cloudtune_emulator.bedrock import bodies, serving
from cloudtune_emulator.http import Call, Reply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.engines import Sampling, Spoken

_REASONS = {"stop": "end_turn", "length": "max_tokens", "stop_sequence": "stop_sequence"}


class Answer(NamedTuple):
    """An answer and its latency."""

    spoken: Spoken
    latency_ms: int

    @property
    def reason(self) -> str:
        """The service's stop reason."""
        return _REASONS.get(self.spoken.finish_reason, "end_turn")

    @property
    def usage(self) -> dict[str, int]:
        """The numbers of input and output tokens."""
        prompt_tokens, said = self.spoken.prompt_tokens, self.spoken.completion_tokens
        return {"inputTokens": prompt_tokens, "outputTokens": said, "totalTokens": prompt_tokens + said}


def converse(context: EmulatorContext, call: Call) -> Reply:
    """Converse."""
    answer = _conversed(context, call)
    message = {"role": "assistant", "content": [{"text": answer.spoken.text}]}
    body = {
        "output": {"message": message}, "stopReason": answer.reason, "usage": answer.usage,
        "metrics": {"latencyMs": answer.latency_ms},
    }  # fmt: skip
    return Reply(body=body)


def converse_stream(context: EmulatorContext, call: Call) -> Reply:
    """ConverseStream."""
    events = _events(_conversed(context, call))
    return Reply(body=eventstream.encoded(events), content_type=eventstream.CONTENT_TYPE)


def _events(answer: Answer) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "messageStart", {"role": "assistant"}
    for piece in answer.spoken.pieces:
        yield "contentBlockDelta", {"delta": {"text": piece}, "contentBlockIndex": 0}
    yield "contentBlockStop", {"contentBlockIndex": 0}
    yield "messageStop", {"stopReason": answer.reason}
    yield "metadata", {"usage": answer.usage, "metrics": {"latencyMs": answer.latency_ms}}


def _conversed(context: EmulatorContext, call: Call) -> Answer:
    body = call.body
    for name in ("toolConfig", "guardrailConfig", "promptVariables"):
        if body.get(name):
            raise invalid(f"{name} is not emulated.")
    messages = bodies.conversation(body.get("messages"), body.get("system"))
    config = body.get("inferenceConfig") or {}
    sampling = bodies.sampling(config.get("maxTokens"), config.get("temperature"), config.get("topP"))
    return _answer(context, call, messages, sampling, config.get("stopSequences") or [])


def _answer(
    context: EmulatorContext, call: Call, messages: list[dict[str, Any]], how: Sampling, stops: list[str]
) -> Answer:
    began = time.monotonic()
    spoken = serving.answer(context, call, messages, how)
    found = [place for end in stops if end and (place := spoken.text.find(end)) >= 0]
    if found:
        spoken = msgspec.structs.replace(spoken, pieces=(spoken.text[: min(found)],), finish_reason="stop_sequence")
    return Answer(spoken, int((time.monotonic() - began) * 1000))


def invoke(context: EmulatorContext, call: Call) -> Reply:
    """InvokeModel."""
    family = serving.family(context, call)
    answer = _invoked(context, call, family)
    return Reply(body=bodies.whole(family, answer.spoken, answer.reason, answer.usage))


def invoke_stream(context: EmulatorContext, call: Call) -> Reply:
    """InvokeModelWithResponseStream: each chunk is JSON of the family's own, base64 encoded."""
    family = serving.family(context, call)
    answer = _invoked(context, call, family)
    chunks = bodies.chunks(family, answer.spoken, answer.reason, answer.usage)
    events = (("chunk", {"bytes": base64.b64encode(msgspec.json.encode(chunk)).decode()}) for chunk in chunks)
    headers = {"X-Amzn-Bedrock-Content-Type": "application/json"}
    return Reply(body=eventstream.encoded(events), content_type=eventstream.CONTENT_TYPE, headers=headers)


def _invoked(context: EmulatorContext, call: Call, family: str) -> Answer:
    messages, sampling, stops = bodies.read(family, call.body)
    return _answer(context, call, messages, sampling, stops)
