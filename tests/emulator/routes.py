"""One request for every route of the emulator, read from its own route tables, and ways to authenticate it."""

from __future__ import annotations

import re
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.emulator.signing import signed_headers
from werkzeug.test import EnvironBuilder, run_wsgi_app
from werkzeug.wrappers import Response

from cloudtune_emulator.admin_api import _HANDLERS as ADMIN
from cloudtune_emulator.aws import moto_proxy, shapes
from cloudtune_emulator.azure.routes import ROUTES as AZURE
from cloudtune_emulator.bedrock import routes as bedrock
from cloudtune_emulator.openai.routes import ROUTES as OPENAI
from cloudtune_emulator.sagemaker import autoscaling, mlflow
from cloudtune_emulator.sagemaker import routes as sagemaker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cloudtune_emulator import Emulator, Settings

_NAME = re.compile(r"<(\w+)>")
_S3 = (
    ("GET", "/"), ("PUT", "/new-bucket"), ("GET", "/{bucket}"), ("HEAD", "/{bucket}"), ("DELETE", "/new-bucket"),
    ("POST", "/{bucket}?delete"), ("PUT", "/{bucket}?policy"), ("GET", "/{bucket}?list-type=2"),
    ("PUT", "/{bucket}/page.html"), ("GET", "/{bucket}/kept"), ("HEAD", "/{bucket}/kept"), ("DELETE", "/{bucket}/kept"),
    ("POST", "/{bucket}/k?uploads"), ("PUT", "/{bucket}/k?partNumber=1&uploadId=x"), ("GET", "/{bucket}/k?uploadId=x"),
)  # fmt: skip
_MOTO = {
    "sts": "Action=GetCallerIdentity&Version=2011-06-15", "iam": "Action=CreateUser&UserName=u&Version=2010-05-08",
    "kms": "TrentService.CreateKey", "logs": "Logs_20140328.CreateLogGroup",
    "pricing": "AWSPriceListService.GetProducts", "secretsmanager": "secretsmanager.CreateSecret",
    "servicequotas": "ServiceQuotasV20190624.ListServiceQuotas",
    "monitoring": "GraniteServiceVersion20100801.PutMetricData",
}  # fmt: skip


_BODIES = {
    "logs": b'{"logGroupName": "g"}', "secretsmanager": b'{"Name": "s", "SecretString": "x"}',
    "servicequotas": b'{"ServiceCode": "sagemaker"}', "pricing": b'{"ServiceCode": "AmazonSageMaker"}',
    "monitoring": b'{"Namespace": "n", "MetricData": []}',
}  # fmt: skip
_DELETE = b"<Delete><Object><Key>kept</Key></Object></Delete>"


class Route(NamedTuple):
    """A request of one kind, without credentials."""

    api: str
    """``openai``, ``azure``, ``arm``, ``blob``, ``admin``, or the signing name of a service of AWS."""
    name: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


def every_route(settings: Settings, ids: Mapping[str, Mapping[str, str]] | None = None) -> Iterator[Route]:
    """All of them. ``ids`` are what paths name, by API or by call; ``a1`` is in the place of others."""
    known = {"subscription": settings.subscription, "group": settings.resource_group, "account": settings.account}

    def filled(template: str, api: str, name: str) -> str:
        given = known | dict((ids or {}).get(api, {})) | dict((ids or {}).get(name, {}))
        return _NAME.sub(lambda found: given.get(found[1], "a1"), template)

    for method, template, name, _ in OPENAI:
        path = filled(template, "openai", name)
        form = {"Content-Type": "application/json"}
        if not path.startswith("/deployments/"):  # Azure's only
            yield Route("openai", name, method, f"/v1{path}", form, b"{}")
        path = filled(template, "azure", name)
        yield Route("azure", name, method, f"/openai/v1{path}", form, b"{}")
        yield Route("azure", name, method, f"/openai{path}?api-version=2025-04-01-preview", form, b"{}")
    for method, template, name, _ in AZURE:
        yield Route("arm", name, method, filled(template, "arm", name) + "?api-version=2025-01-01", {}, b"{}")
    yield Route("arm", "workspace.discovery", "GET", "/discovery", {})
    blob = f"/blobs/{settings.account}/workspaceblobs/a.txt"
    for method, query in (("PUT", ""), ("PUT", "?comp=block&blockid=MQ=="), ("PUT", "?comp=blocklist"), ("HEAD", ""),
                          ("GET", ""), ("DELETE", "")):  # fmt: skip
        yield Route("blob", f"blobs.{method}{query}", method, blob + query, {}, b"<BlockList/>")
    for method, name in ADMIN:
        yield Route("admin", f"{method} {name}", method, f"/_emulator/{name}", {}, b"{}")
    yield from _aws(settings, filled)


def _aws(settings: Settings, filled: Callable[[str, str, str], str]) -> Iterator[Route]:
    for service, handlers in (("bedrock", bedrock.CONTROL), ("bedrock-runtime", bedrock.RUNTIME)):
        for method, template, name in shapes.routes(service):
            if name in handlers:
                path = filled(template, "bedrock", f"bedrock.{name}")
                yield Route("bedrock", f"bedrock.{name}", method, path, {}, b"{}")
    targets = [("sagemaker", f"SageMaker.{name}") for name in sagemaker.OPERATIONS]
    targets += [("application-autoscaling", f"AnyScaleFrontendService.{name}") for name in autoscaling.OPERATIONS]
    targets += [(service, text) for service, text in _MOTO.items() if "Action=" not in text]
    for service, target in targets:
        headers = {"X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.1"}
        body = _BODIES.get(service, b"{}")
        yield Route(service, f"{service}.{target.rpartition('.')[2]}", "POST", "/", headers, body)
    for service in ("sts", "iam"):
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        name = f"{service}.{_MOTO[service].removeprefix('Action=').partition('&')[0]}"
        yield Route(service, name, "POST", "/", form, _MOTO[service].encode())
    for how, name in (("invocations", "InvokeEndpoint"),
                      ("invocations-response-stream", "InvokeEndpointWithResponseStream")):  # fmt: skip
        yield Route("sagemaker", f"sagemaker.{name}", "POST", f"/endpoints/mine/{how}", {}, b"{}")
    for path, (name, _) in mlflow.CALLS.items():
        headers = {"x-sm-mlflow-app-arn": "arn:aws:sagemaker:us-east-1:123456789012:mlflow-app/app"}
        yield Route("sagemaker-mlflow", f"sagemaker.{name}", "GET", mlflow.PREFIX + path, headers)
    for method, path in _S3:
        body = _DELETE if "delete" in path else b"<html>" if path.endswith("page.html") else b""
        yield Route("s3", f"s3 {method} {path}", method, path.format(bucket=settings.aws_bucket), {}, body)
    assert set(_MOTO) | {"s3"} == set(moto_proxy.SERVICES)


def send(emulator: Emulator, route: Route, headers: dict[str, str], *, sender: str = "127.0.0.1") -> Response:
    """Send a request through the application, as any HTTP server hands it on."""
    given = route.headers | {"Host": host(emulator)} | headers
    body = b"" if route.method in ("GET", "HEAD") else route.body
    builder = EnvironBuilder(route.path, method=route.method, headers=given, data=body, base_url=emulator.url)
    content, status, answered = run_wsgi_app(emulator.app, builder.get_environ() | {"REMOTE_ADDR": sender})
    return Response(content, status, answered)


def host(emulator: Emulator) -> str:
    """What clients send as ``Host``."""
    return emulator.url.partition("://")[2]


def credentials(emulator: Emulator, route: Route, headers: dict[str, str] | None = None) -> dict[str, str]:
    """The headers that open a route, and with these more where they are signed."""
    settings = emulator.settings
    given = dict(headers or {})
    match route.api:
        case "openai":
            return given | {"Authorization": f"Bearer {settings.api_key}"}
        case "azure":
            return given | {"api-key": settings.azure_key}
        case "arm":
            return given | {"Authorization": f"Bearer {settings.azure_token}"}
        case "admin":
            return given | {"Authorization": f"Bearer {settings.admin_token}"}
        case "blob":
            return given | shared_key(emulator, route)
    return given | signed(emulator, route)


def signed(emulator: Emulator, route: Route, **changes: str) -> dict[str, str]:
    """Headers of a request that is signed for AWS; ``changes`` are of the credentials."""
    body = b"" if route.method in ("GET", "HEAD") else route.body
    url = f"{emulator.url}{route.path}"
    return signed_headers(emulator, route.method, url, service=route.api, data=body, headers=route.headers, **changes)


def shared_key(emulator: Emulator, route: Route, key: str | None = None) -> dict[str, str]:
    """Azure Storage's Shared Key, by azure-storage-blob's own signer."""
    from azure.core.pipeline import PipelineContext, PipelineRequest
    from azure.core.rest import HttpRequest
    from azure.storage.blob._shared.authentication import SharedKeyCredentialPolicy

    from cloudtune_emulator.azure import storage

    request: Any = HttpRequest(route.method, f"{emulator.url}{route.path}")
    request.headers["x-ms-date"] = formatdate(usegmt=True)
    body = b"" if route.method in ("GET", "HEAD") else route.body
    if body:
        request.headers["Content-Length"] = str(len(body))
    policy = SharedKeyCredentialPolicy(emulator.settings.account, key or storage.key_of(emulator.context))
    policy.on_request(PipelineRequest(request, PipelineContext(None)))
    return {name: value for name, value in request.headers.items() if name != "Content-Length"}
