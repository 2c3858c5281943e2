"""The body formats of InvokeModel for each family; and Converse's messages as plain conversations.

Nova: https://docs.aws.amazon.com/nova/latest/userguide/complete-request-schema.html; Llama:
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-meta.html; imported models take Llama's or the
chat-completion form: https://docs.aws.amazon.com/bedrock/latest/userguide/invoke-imported-model.html (seen 2026-11-21).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune_emulator.aws.errors import invalid
from cloudtune_emulator.engines import Sampling, Spoken

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEFAULT_TOKENS = 512


def conversation(messages: Any, system: Any) -> list[dict[str, Any]]:
    """Converse's messages. Raises AwsError."""
    if not isinstance(messages, list) or not messages:
        raise invalid("messages must not be empty.")
    said: list[dict[str, Any]] = []
    if system:
        said.append({"role": "system", "content": _text(system, "system")})
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ("user", "assistant"):
            raise invalid(f"messages.{index}.role must be user or assistant.")
        content = message.get("content")
        text = content if isinstance(content, str) else _text(content, f"messages.{index}.content")
        said.append({"role": message["role"], "content": text})
    return said


def _text(parts: Any, where: str) -> str:
    are_texts = isinstance(parts, list) and all(isinstance(part, dict) and "text" in part for part in parts)
    if not are_texts or any(not isinstance(part["text"], str) for part in parts):
        raise invalid(f"{where}: only text is emulated.")
    return "".join(part["text"] for part in parts)


def sampling(most: Any, temperature: Any, top_p: Any) -> Sampling:
    """The sampling parameters. Raises AwsError."""
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
        raise invalid("The maximum of tokens must be a whole number of at least 1.")
    for name, value in (("temperature", temperature), ("topP", top_p)):
        if value is not None and (not isinstance(value, int | float) or not 0 <= value <= 1):
            raise invalid(f"{name} must be between 0 and 1.")
    return Sampling(
        max_tokens=most or _DEFAULT_TOKENS, temperature=0.7 if temperature is None else float(temperature),
        top_p=0.9 if top_p is None else float(top_p),
    )  # fmt: skip


def read(family: str, body: dict[str, Any]) -> tuple[list[dict[str, Any]], Sampling, list[str]]:
    """Messages, sampling and stop sequences of a body of that family. Raises AwsError."""
    if family == "nova":
        config = body.get("inferenceConfig") or {}
        if not isinstance(config, dict):
            raise invalid("inferenceConfig must be an object.")
        how = sampling(config.get("maxTokens") or config.get("max_new_tokens"), config.get("temperature"),
                       config.get("topP") or config.get("top_p"))  # fmt: skip
        return conversation(body.get("messages"), body.get("system")), how, _listed(config.get("stopSequences"))
    how = sampling(body.get("max_gen_len") or body.get("max_tokens"), body.get("temperature"), body.get("top_p"))
    if family == "imported" and "messages" in body:
        given = _listed_of(body["messages"], dict, "messages")
        system = [{"text": one.get("content")} for one in given if one.get("role") == "system"]
        said = conversation([one for one in given if one.get("role") != "system"], system)
        return said, how, _listed(body.get("stop"))
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise invalid("Malformed input request: required key [prompt] not found.")
    return [{"role": "user", "content": prompt}], how, _listed(body.get("stop"))


def _listed(stop: Any) -> list[str]:
    return [stop] if isinstance(stop, str) else _listed_of(stop or [], str, "stop sequences")


def _listed_of(value: Any, kind: type, where: str) -> list[Any]:
    if not isinstance(value, list) or any(not isinstance(one, kind) for one in value):
        raise invalid(f"{where} must be a list of {'texts' if kind is str else 'objects'}.")
    return value


def whole(family: str, spoken: Spoken, reason: str, usage: dict[str, int]) -> dict[str, Any]:
    """The answer in the family's shape."""
    if family == "nova":
        message = {"role": "assistant", "content": [{"text": spoken.text}]}
        return {"output": {"message": message}, "stopReason": reason, "usage": usage}
    short = "length" if reason == "max_tokens" else "stop"
    if family == "imported":
        choice = {"index": 0, "message": {"role": "assistant", "content": spoken.text}, "finish_reason": short}
        return {"object": "chat.completion", "choices": [choice], "usage": _counted(usage)}
    return {
        "generation": spoken.text, "prompt_token_count": usage["inputTokens"],
        "generation_token_count": usage["outputTokens"], "stop_reason": short,
    }  # fmt: skip


def chunks(family: str, spoken: Spoken, reason: str, usage: dict[str, int]) -> Iterator[dict[str, Any]]:
    """The chunks of the answer in the family's shape."""
    short = "length" if reason == "max_tokens" else "stop"
    if family == "nova":
        yield {"messageStart": {"role": "assistant"}}
        for piece in spoken.pieces:
            yield {"contentBlockDelta": {"delta": {"text": piece}, "contentBlockIndex": 0}}
        yield {"contentBlockStop": {"contentBlockIndex": 0}}
        yield {"messageStop": {"stopReason": reason}}
        yield {"metadata": {"usage": usage}}
    elif family == "imported":
        for piece in spoken.pieces:
            yield {"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]}
        yield {"choices": [{"index": 0, "delta": {}, "finish_reason": short}], "usage": _counted(usage)}
    else:
        for piece in spoken.pieces:
            yield {"generation": piece, "prompt_token_count": None, "generation_token_count": None, "stop_reason": None}
        yield {"generation": "", "prompt_token_count": usage["inputTokens"],
               "generation_token_count": usage["outputTokens"], "stop_reason": short}  # fmt: skip


def _counted(usage: dict[str, int]) -> dict[str, int]:
    return {"prompt_tokens": usage["inputTokens"], "completion_tokens": usage["outputTokens"],
            "total_tokens": usage["totalTokens"]}  # fmt: skip
