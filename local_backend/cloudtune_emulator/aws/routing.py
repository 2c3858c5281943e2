"""The API of a signed request. One port serves every service, so that setting ``AWS_ENDPOINT_URL`` is enough.

The signing name selects the API. Bedrock's control plane and its runtime share one name, and the path selects between
them. Requests with a Bedrock API key have no signature (botocore 1.44.5, ``AWS_BEARER_TOKEN_BEDROCK``): their path
selects the API. moto handles some of the other services, see `moto_proxy.SERVICES`. Signatures are verified here,
before they are used for routing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from cloudtune_emulator.aws import authentication, moto_proxy
from cloudtune_emulator.aws.errors import AwsError
from cloudtune_emulator.aws.signing import raw_path, signature

if TYPE_CHECKING:
    from collections.abc import Callable

    from werkzeug.wrappers import Request

    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.http import Api
    from cloudtune_emulator.route import Route

_BEDROCK = ("/model/", "/model-", "/custom-models", "/foundation-models", "/imported-models", "/provisioned-model",
            "/listTagsForResource", "/tagResource", "/untagResource")  # fmt: skip


class RequestInfo(NamedTuple):
    """The parts of a request that routing uses."""

    method: str
    path: str
    """The path as it was sent: ARNs in it are still escaped."""
    target: str
    """``X-Amz-Target``, where the protocol has it."""
    region: str


def find(context: EmulatorContext, request: Request) -> Route | None:
    """The route of an AWS request; None for others. Raises AwsError, also for a wrong signature."""
    signed = signature(request)
    if signed is None:
        return _by_key(context, request)
    authentication.verify(context, request, signed)
    info = RequestInfo(request.method, raw_path(request), request.headers.get("X-Amz-Target", ""), signed.region)
    api = _apis().get(signed.service)
    if api is None:
        return moto_proxy.route(signed, request)
    found = api(info)
    if found is None:
        message = f"{signed.service} has no operation {info.target or f'{info.method} {info.path}'} here."
        raise AwsError(404, "UnknownOperationException", message)
    return found


def named(name: str, api: Api) -> Route:
    """The route of a call that is already read."""
    if api == "aws":
        return moto_proxy.named(name)
    if api == "sagemaker":
        from cloudtune_emulator.sagemaker import routes

        return routes.named(name)
    from cloudtune_emulator.bedrock import routes as bedrock

    return bedrock.named(name)


def segment(escaped: str) -> str:
    """A path's segment, unescaped."""
    return unquote(escaped)


def _apis() -> dict[str, Callable[[RequestInfo], Route | None]]:
    from cloudtune_emulator.bedrock import routes as bedrock
    from cloudtune_emulator.sagemaker import routes as sagemaker

    return {
        "bedrock": bedrock.find, "sagemaker": sagemaker.api, "sagemaker-mlflow": sagemaker.api,
        "application-autoscaling": sagemaker.scaling,
    }  # fmt: skip


def _by_key(context: EmulatorContext, request: Request) -> Route | None:
    """The route of a Bedrock request with an API key. No other API uses its paths. Raises AwsError."""
    path = raw_path(request)
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if not path.startswith(_BEDROCK):
        if "X-Amz-Target" in request.headers:
            raise authentication.refusal("missing", "json")
        return None
    if scheme.lower() != "bearer":
        raise authentication.refusal("missing", "rest-json")
    if not context.opens(key, context.settings.bedrock_api_key):
        raise AwsError(403, "AccessDeniedException", "Authentication failed: please make sure your API Key is valid.")
    from cloudtune_emulator.bedrock import routes

    return routes.find(RequestInfo(request.method, path, "", context.settings.aws_region))
