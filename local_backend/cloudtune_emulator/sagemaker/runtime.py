"""InvokeEndpoint, whole and streamed: the request and response formats of the usual serving images.

A body with ``inputs`` is the text-generation form of TGI and DJL: ``{"inputs": ..., "parameters": {...}}`` returns
``{"generated_text": ...}``; one with ``messages`` is OpenAI's chat form, which both serve too
(docs.djl.ai, LMI input and output schema; huggingface.co/docs/text-generation-inference, seen 2026-11-21). A stream is
Amazon's event stream of PayloadPart with the same bytes in pieces (botocore 1.44.5, sagemaker-runtime).
"""

from __future__ import annotations

import binascii
import struct
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune_emulator.aws.errors import AwsError
from cloudtune_emulator.engines import Sampling, Spoken
from cloudtune_emulator.http import ApiError, Call, Reply, fit
from cloudtune_emulator.sagemaker import capacity, components, packages, resources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune_emulator.context import EmulatorContext


class ModelError(AwsError):
    """The container returned an error: 424, with its status and message (botocore 1.44.5, ModelError)."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(424, "ModelError", f'Received client error ({status}) from primary with message "{message}".')


def invoke(context: EmulatorContext, call: Call) -> Reply:
    """InvokeEndpoint."""
    model = _model(context, call)
    parts = context.sagemaker.serve(context, model, call.body)
    if parts is None:
        content = msgspec.json.encode(_whole(call.body, model, _said(context, call, model), call.now))
    else:
        content = b"".join(parts)
    return Reply(body=content, headers={"x-Amzn-Invoked-Production-Variant": model["variant"]})


def stream(context: EmulatorContext, call: Call) -> Reply:
    """InvokeEndpointWithResponseStream: every part that the container sends is an event."""
    model = _model(context, call)
    parts = context.sagemaker.serve(context, model, call.body)
    if parts is None:
        parts = _pieces(call.body, model, _said(context, call, model), call.now)
    headers = {
        "x-Amzn-Invoked-Production-Variant": model["variant"], "X-Amzn-SageMaker-Content-Type": "text/event-stream",
    }  # fmt: skip
    return Reply(body=_events(parts), headers=headers, content_type="application/vnd.amazon.eventstream")


def _events(parts: Iterator[bytes]) -> Iterator[bytes]:
    """A stream that fails in the container ends with an error event."""
    try:
        for part in parts:
            yield event("PayloadPart", part)
    except ModelError as error:
        payload = {"Message": str(error), "ErrorCode": "ModelInvocationTimeExceeded"}
        yield event("ModelStreamError", msgspec.json.encode(payload), kind="exception")


class _Message(msgspec.Struct):
    role: str | None = None
    content: str | list[dict[str, Any]] | None = None


class _Asked(msgspec.Struct):
    max_tokens: int | None = None
    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    do_sample: bool | None = None


class _Body(_Asked):
    """The types of the fields that the container reads."""

    messages: list[_Message] | None = None
    inputs: str | None = None
    parameters: _Asked | None = None


def _said(context: EmulatorContext, call: Call, model: dict[str, Any]) -> Spoken:
    body = call.body
    try:
        fit(body, _Body)
    except ApiError as error:
        raise ModelError(str(error), 422) from error
    if isinstance(body.get("messages"), list):
        messages, given = body["messages"], body
    elif isinstance(body.get("inputs"), str):
        messages, given = [{"role": "user", "content": body["inputs"]}], body.get("parameters") or {}
    else:
        raise ModelError("the body needs `inputs` or `messages`", 422)
    heat = given.get("temperature")
    temperature = (1.0 if heat is None else heat) if given.get("do_sample") is not False else 0.0
    sampling = Sampling(
        max_tokens=int(given.get("max_tokens") or given.get("max_new_tokens") or 256),
        temperature=float(temperature), top_p=float(given.get("top_p") or 1.0), seed=given.get("seed"),
    )  # fmt: skip
    return context.sagemaker.answer(context, model | {"base": bool(body.get("base"))}, messages, sampling)


def _model(context: EmulatorContext, call: Call) -> dict[str, Any]:
    """The model of the endpoint, or of the component that the request names."""
    name = call.ids["endpoint"]
    endpoint = resources.found(context, call, resources.ENDPOINT, name)
    if endpoint is None or resources.status(context, endpoint, call.now) not in ("InService", "Updating"):
        raise AwsError(400, "ValidationError", f"Endpoint {name} of account {context.settings.aws_account} not found.")
    component = call.headers.get("x-amzn-sagemaker-inference-component")
    config = resources.found(context, call, resources.CONFIG, endpoint["config"])
    variant = ((config or {}).get("request", {}).get("ProductionVariants") or [{}])[0]
    if component:
        part = resources.found(context, call, resources.COMPONENT, component)
        if part is None or part["request"]["EndpointName"] != name:
            raise AwsError(400, "ValidationError", f"Inference Component Name {component} not found.")
        _need_copy(context, call, part)
        found = _of_component(context, call, part)
    else:
        thing = resources.found(context, call, resources.MODEL, str(variant.get("ModelName")))
        if thing is None:
            raise AwsError(400, "ValidationError", "Inference Component Name header is required for endpoints to which "
                           "you plan to deploy inference components.")  # fmt: skip
        found = _container(context, call, thing)
    return found | {"name": name, "variant": str(variant.get("VariantName", "AllTraffic"))}


def _need_copy(context: EmulatorContext, call: Call, part: dict[str, Any]) -> None:
    """Check that an instance or a copy is available. Counts the failure if none is.

    Message: scale down to zero in SageMaker inference, aws.amazon.com/blogs/machine-learning, seen 2026-11-21.
    """
    base = components.base_of(part)
    held = part if base is None else resources.need(context, call, resources.COMPONENT, base)
    if not capacity.ask(context, call, held):
        raise AwsError(
            400, "ValidationError", "Inference Component has no capacity to process this request. "
            "ApplicationAutoScaling may be in-progress (if configured) or try to increase the capacity by invoking "
            "UpdateInferenceComponentRuntimeConfig API.",
        )  # fmt: skip


def _of_component(context: EmulatorContext, call: Call, part: dict[str, Any]) -> dict[str, Any]:
    given = part["request"].get("Specification") or {}
    if base := given.get("BaseInferenceComponentName"):
        under = _of_component(context, call, resources.need(context, call, resources.COMPONENT, base))
        on_it = [
            one for one in resources.standing(context, call, resources.COMPONENT) if components.base_of(one) == base
        ]
        return under | {"adapter": _artefact(part), "adapters": [_artefact(one) for one in on_it]}
    if given.get("ModelName"):
        return _container(context, call, resources.need(context, call, resources.MODEL, given["ModelName"]))
    container = given.get("Container") or {}
    return {"uri": container.get("ArtifactUrl"), "environment": container.get("Environment") or {}}


def _artefact(part: dict[str, Any]) -> str:
    return str((part["request"]["Specification"].get("Container") or {}).get("ArtifactUrl"))


def _container(context: EmulatorContext, call: Call, thing: dict[str, Any]) -> dict[str, Any]:
    request = thing["request"]
    container = request.get("PrimaryContainer") or request["Containers"][0]
    if container.get("ModelPackageName"):
        package = packages.find(context, call, container["ModelPackageName"])
        container = package["request"]["InferenceSpecification"]["Containers"][0] | container
    source = (container.get("ModelDataSource") or {}).get("S3DataSource") or {}
    beside = {
        entry["ChannelName"]: entry["S3DataSource"]["S3Uri"]
        for entry in container.get("AdditionalModelDataSources") or ()
    }
    return {
        "uri": container.get("ModelDataUrl") or source.get("S3Uri"), "image": container.get("Image"), "beside": beside,
        "environment": container.get("Environment") or {},
    }  # fmt: skip


# -- shapes ------------------------------------------------------------------------------------------------------------


def _whole(body: dict[str, Any], model: dict[str, Any], said: Spoken, now: float) -> Any:
    if "messages" not in body:
        given = body.get("parameters") or {}
        answer: dict[str, Any] = {"generated_text": said.text}
        if given.get("return_full_text"):
            answer["generated_text"] = body["inputs"] + said.text
        if given.get("details"):
            answer["details"] = {"finish_reason": _reason(said), "generated_tokens": said.completion_tokens}
        return answer
    usage = {
        "prompt_tokens": said.prompt_tokens, "completion_tokens": said.completion_tokens,
        "total_tokens": said.prompt_tokens + said.completion_tokens,
    }  # fmt: skip
    choice = {"index": 0, "message": {"role": "assistant", "content": said.text}, "finish_reason": said.finish_reason}
    return _head(body, model, now, "chat.completion") | {"choices": [choice], "usage": usage}


def _head(body: dict[str, Any], model: dict[str, Any], now: float, kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-emulated", "object": kind, "created": int(now), "model": body.get("model") or model["name"]}


def _reason(said: Spoken) -> str:
    return "length" if said.finish_reason == "length" else "eos_token"


def _pieces(body: dict[str, Any], model: dict[str, Any], said: Spoken, now: float) -> Iterator[bytes]:
    if "messages" not in body:
        for number, piece in enumerate(said.pieces, 1):
            is_last = number == len(said.pieces)
            token = {"token": {"id": number, "text": piece}, "generated_text": said.text if is_last else None}
            yield b"data:" + msgspec.json.encode(token) + b"\n\n"
        return
    head = _head(body, model, now, "chat.completion.chunk")
    for piece in said.pieces:
        delta = {"index": 0, "delta": {"role": "assistant", "content": piece}, "finish_reason": None}
        yield b"data: " + msgspec.json.encode(head | {"choices": [delta]}) + b"\n\n"
    last = {"index": 0, "delta": {}, "finish_reason": said.finish_reason}
    yield b"data: " + msgspec.json.encode(head | {"choices": [last]}) + b"\n\ndata: [DONE]\n\n"


def event(name: str, payload: bytes, kind: str = "event") -> bytes:
    """One message of Amazon's event stream: lengths, headers, payload, each guarded by a CRC32.

    https://docs.aws.amazon.com/transcribe/latest/dg/event-stream.html, seen 2026-11-21.
    """
    fields = {":message-type": kind, f":{kind}-type": name, ":content-type": "application/octet-stream"}
    headers = b"".join(
        struct.pack("!B", len(name)) + name.encode() + b"\x07" + struct.pack("!H", len(value)) + value.encode()
        for name, value in fields.items()
    )
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    message = prelude + struct.pack("!I", binascii.crc32(prelude)) + headers + payload
    return message + struct.pack("!I", binascii.crc32(message))
