"""Inference through bedrock-runtime: Converse, ConverseStream, or InvokeModel."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from cloudtune.errors import BackendError, InvalidRequest
from cloudtune.prompts import messages_of
from cloudtune.state import Generation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cloudtune.optional import GenerateOptions, Prompt
    from cloudtune.state import TunedModel
    from cloudtune_providers.aws.clients import Clients
    from cloudtune_providers.bedrock.deployments import Deployments
    from cloudtune_providers.bedrock.options import BedrockOptions

Messages = list[dict[str, Any]]
_CONTEXT = re.compile(r":\d+k$")


class Answering:
    """Finds a model's id for inference, and calls it."""

    def __init__(self, clients: Clients, options: BedrockOptions, hosted: Deployments) -> None:
        self._clients = clients
        self._options = options
        self._hosted = hosted

    def generate(self, model: TunedModel, prompts: Sequence[Prompt], options: GenerateOptions) -> Iterator[Generation]:
        """One answer for each prompt, in order; with Converse first in chunks, if requested."""
        name = self._base(model) if options.base else self._tuned(model)
        ask = self._invoke if self._options.answers == "invoke" else self._stream if options.stream else self._converse
        for prompt in prompts:
            messages = messages_of(prompt)
            with self._clients.asking(f"model {name}", missing=InvalidRequest):
                yield from ask(name, messages, options)

    def _tuned(self, model: TunedModel) -> str:
        return self._hosted.serving(model.id) if model.needs_deploy else model.id

    def _base(self, model: TunedModel) -> str:
        if self._options.base_answers_as:
            return self._options.base_answers_as
        if not model.needs_deploy:
            raise InvalidRequest(
                f"{model.id} was imported, so its base model is not available", hint="set base_answers_as to compare"
            )
        if ":custom-model/" in model.base:
            return self._hosted.serving(model.base)
        return _CONTEXT.sub("", model.base)  # the context length is part of the id for tuning only

    @property
    def _runtime(self) -> Any:
        return self._clients.client("bedrock-runtime")

    def _converse(self, name: str, messages: Messages, options: GenerateOptions) -> Iterator[Generation]:
        said = self._runtime.converse(**request_of(name, messages, options))
        blocks = said["output"]["message"]["content"]
        text = "".join(block["text"] for block in blocks if "text" in block)
        yield _generation(text, said.get("stopReason"), said.get("usage"), name)

    def _stream(self, name: str, messages: Messages, options: GenerateOptions) -> Iterator[Generation]:
        parts: list[str] = []
        stop, usage = "", None
        for event in self._runtime.converse_stream(**request_of(name, messages, options))["stream"]:
            if "contentBlockDelta" in event:
                parts.append(event["contentBlockDelta"]["delta"].get("text") or "")
                yield Generation(text=parts[-1], partial=True, model=name)
            elif "messageStop" in event:
                stop = event["messageStop"].get("stopReason") or ""
            elif "metadata" in event:
                usage = event["metadata"].get("usage")
        yield _generation("".join(parts), stop, usage, name)

    def _invoke(self, name: str, messages: Messages, options: GenerateOptions) -> Iterator[Generation]:
        """Chat messages in the format of imported models; Nova has its own body."""
        body: dict[str, Any] = {
            "messages": messages, "max_tokens": options.max_tokens, "temperature": options.temperature,
            "top_p": options.top_p,
        }  # fmt: skip
        if ":imported-model/" not in name:
            body = {key: value for key, value in request_of(name, messages, options).items() if key != "modelId"}
        said = self._runtime.invoke_model(modelId=name, body=json.dumps(body), contentType="application/json")
        yield _invoked(json.loads(said["body"].read()), name)


def request_of(name: str, messages: Messages, options: GenerateOptions) -> dict[str, Any]:
    """The parameters of Converse."""
    system = [{"text": str(m["content"])} for m in messages if m["role"] in ("system", "developer")]
    turns = [
        {"role": m["role"], "content": m["content"] if isinstance(m["content"], list) else [{"text": m["content"]}]}
        for m in messages
        if m["role"] not in ("system", "developer")
    ]
    inference = {"maxTokens": options.max_tokens, "temperature": options.temperature, "topP": options.top_p}
    request = {"modelId": name, "messages": turns, "inferenceConfig": inference}
    return request | {"system": system} if system else request


def _invoked(said: Mapping[str, Any], name: str) -> Generation:
    if choices := said.get("choices"):
        usage = said.get("usage") or {}
        tokens = {"inputTokens": usage.get("prompt_tokens"), "outputTokens": usage.get("completion_tokens")}
        return _generation(choices[0]["message"]["content"] or "", choices[0].get("finish_reason"), tokens, name)
    if "output" in said:
        text = "".join(block.get("text", "") for block in said["output"]["message"]["content"])
        return _generation(text, said.get("stopReason"), said.get("usage"), name)
    if "generation" in said:
        return _generation(str(said["generation"]), said.get("stop_reason"), None, name)
    raise BackendError(f"the response of {name} has an unknown format: it has {', '.join(said) or 'no fields'}")


def _generation(text: str, stop: Any, usage: Mapping[str, Any] | None, name: str) -> Generation:
    usage = usage or {}
    reason = {"end_turn": "stop", "max_tokens": "length"}.get(str(stop), str(stop or ""))
    return Generation(text=text, finish_reason=reason, model=name, prompt_tokens=usage.get("inputTokens"),
                      completion_tokens=usage.get("outputTokens"))  # fmt: skip
