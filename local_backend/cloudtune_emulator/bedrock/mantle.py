"""Bedrock's OpenAI-compatible API for reinforcement on open-weight models: OpenAI's handlers, Bedrock's rules.

``https://bedrock-mantle.us-west-2.api.aws/v1`` with a Bedrock API key as bearer token, or signed; Lambda functions as
graders, no suffix (https://docs.aws.amazon.com/bedrock/latest/userguide/fine-tuning-openai-apis.html, seen
2026-11-21). In the emulator it is also at ``/v1``: the key selects the API.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cloudtune_emulator.aws import authentication
from cloudtune_emulator.aws.signing import signature
from cloudtune_emulator.http import ApiError

if TYPE_CHECKING:
    from werkzeug.wrappers import Request

    from cloudtune_emulator.context import EmulatorContext

TUNABLE = {name: frozenset({"reinforcement"}) for name in ("openai.gpt-oss-20b", "qwen.qwen3-32b")}
_PATHS = ("/openai/v1", "/v1")
_KNOWN = frozenset({"n_epochs", "batch_size", "learning_rate_multiplier"})
_FUNCTION = re.compile(r"arn:aws[a-z-]*:lambda:[a-z0-9-]+:\d{12}:function:[A-Za-z0-9_-]+(:[A-Za-z0-9$_-]+)?")


def path(context: EmulatorContext, request: Request) -> str | None:
    """The path below ``/v1`` of a request that is for this API, else None."""
    prefix = next((one for one in _PATHS if request.path.startswith(f"{one}/")), None)
    if prefix is None:
        return None
    signed = signature(request)
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    is_ours = scheme == "Bearer" and context.opens(key, context.settings.bedrock_api_key)
    if is_ours or (signed is not None and signed.service.startswith("bedrock")):
        return request.path.removeprefix(prefix)
    return None


def check_key(context: EmulatorContext, request: Request) -> None:
    """The signature of a request that `path` accepted; `path` has checked the key of one without a signature."""
    if (signed := signature(request)) is not None:
        authentication.verify(context, request, signed)


def refuse(body: dict[str, Any]) -> None:
    """Refuse what OpenAI's API accepts and this API does not. Raises ApiError."""
    if body.get("suffix") is not None:
        raise ApiError(400, "'suffix' is not supported.", param="suffix", code="unsupported_parameter")
    config = ((body.get("method") or {}).get("reinforcement")) or {}
    if unknown := sorted(set(config.get("hyperparameters") or {}) - _KNOWN):
        raise ApiError(400, f"Unknown hyperparameter '{unknown[0]}'.", param=f"hyperparameters.{unknown[0]}")
    grader = config.get("grader") or {}
    function = (grader.get("lambda") or {}).get("function") if isinstance(grader.get("lambda"), dict) else None
    if grader.get("type") != "lambda" or not _FUNCTION.fullmatch(str(function)):
        message = "'grader' must be of the type 'lambda', with the ARN of a function in lambda.function."
        raise ApiError(400, message, param="method.reinforcement.grader")
