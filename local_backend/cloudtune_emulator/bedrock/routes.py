"""Routing of requests to operations by the paths in botocore's service models.

Call names are ``bedrock.`` and the operation's name; faults are selected by them. Both planes share a signing name.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from cloudtune_emulator.aws import shapes
from cloudtune_emulator.aws.authentication import verified
from cloudtune_emulator.aws.errors import AwsError, dressed
from cloudtune_emulator.bedrock import (
    base_models,
    create_job,
    deployments,
    imports,
    jobs,
    models,
    register_model,
    resources,
    runtime,
    throughput,
)
from cloudtune_emulator.http import Call, read_body, read_head
from cloudtune_emulator.route import Route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from werkzeug.wrappers import Request

    from cloudtune_emulator.aws.routing import RequestInfo
    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.http import Api
    from cloudtune_emulator.route import Handler

CONTROL: dict[str, Handler] = {
    "CreateModelCustomizationJob": create_job.create,
    "GetModelCustomizationJob": jobs.get,
    "ListModelCustomizationJobs": jobs.list_,
    "StopModelCustomizationJob": jobs.stop,
    "CreateCustomModel": register_model.create,
    "GetCustomModel": models.get,
    "ListCustomModels": models.list_,
    "DeleteCustomModel": models.delete,
    "CreateCustomModelDeployment": deployments.create,
    "GetCustomModelDeployment": deployments.get,
    "ListCustomModelDeployments": deployments.list_,
    "UpdateCustomModelDeployment": deployments.update,
    "DeleteCustomModelDeployment": deployments.delete,
    "CreateProvisionedModelThroughput": throughput.create,
    "GetProvisionedModelThroughput": throughput.get,
    "ListProvisionedModelThroughputs": throughput.list_,
    "UpdateProvisionedModelThroughput": throughput.update,
    "DeleteProvisionedModelThroughput": throughput.delete,
    "CreateModelImportJob": imports.create,
    "GetModelImportJob": imports.get_job,
    "ListModelImportJobs": imports.list_jobs,
    "GetImportedModel": imports.get_model,
    "ListImportedModels": imports.list_models,
    "DeleteImportedModel": imports.delete_model,
    "GetFoundationModel": base_models.get,
    "ListFoundationModels": base_models.list_,
    "TagResource": resources.tag_resource,
    "UntagResource": resources.untag_resource,
    "ListTagsForResource": resources.list_tags,
}
RUNTIME: dict[str, Handler] = {
    "Converse": runtime.converse,
    "ConverseStream": runtime.converse_stream,
    "InvokeModel": runtime.invoke,
    "InvokeModelWithResponseStream": runtime.invoke_stream,
}
_PLANES = (("bedrock", CONTROL), ("bedrock-runtime", RUNTIME))
_PREFIX = "bedrock."
_LARGEST_JSON = 25 << 20
"""For InvokeModel (docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html, seen 2026-11-21)."""


def find(request: RequestInfo) -> Route | None:
    """The route for a request. Raises AwsError where the operation is known and not emulated."""
    for service, handlers in _PLANES:
        found = shapes.route(service, request.method, request.path)
        if found is None:
            continue
        name, ids = found
        if name not in handlers:
            raise AwsError(501, "NotImplementedException", f"{name} is not emulated.")
        reading = functools.partial(read, region=request.region)
        return Route(
            "bedrock", _PREFIX + name, handlers[name], verified, ids, reading, dressed("rest-json"), _check_shape
        )
    return None


def named(name: str) -> Route:
    """The route of a call that is already read."""
    handler = (CONTROL | RUNTIME)[name.removeprefix(_PREFIX)]
    return Route("bedrock", name, handler, verified, dressed=dressed("rest-json"))


def _check_shape(context: EmulatorContext, call: Call) -> None:
    """Validate the request against the service's model."""
    operation = call.name.removeprefix(_PREFIX)
    if operation in CONTROL:
        shapes.check("bedrock", operation, call.ids, call.query, call.body)
    else:  # the runtime's pattern for modelId excludes ARNs that the control plane returns
        shapes.check("bedrock-runtime", operation, {}, call.query, call.body | {"modelId": "a.b"})


def read(request: Request, api: Api, name: str, ids: Mapping[str, str], now: float, *, region: str) -> Call:
    """The call. Its body is JSON, also where the model defines the body."""
    data = read_body(request, _LARGEST_JSON)
    try:
        body = msgspec.json.decode(data) if data else {}
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise AwsError(400, "SerializationException", f"The body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise AwsError(400, "SerializationException", "The body must be a JSON object.")
    return replace(read_head(request, api, name, ids, now), body=body, region=region)
