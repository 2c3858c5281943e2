"""The service's operations and their handlers, selected by ``X-Amz-Target``, and in the runtime by path."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from cloudtune_emulator.aws import errors, signing
from cloudtune_emulator.aws.authentication import verified
from cloudtune_emulator.http import read_call
from cloudtune_emulator.route import Handler, Route
from cloudtune_emulator.sagemaker import (
    autoscaling,
    components,
    create_job,
    hosting,
    hub,
    jobs,
    mlflow,
    naming,
    packages,
    runtime,
    shapes,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from werkzeug.wrappers import Request

    from cloudtune_emulator.aws.routing import RequestInfo
    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.http import Api, ApiError, Call, Reply

_TARGET = "SageMaker."
_INVOKE = re.compile(r"/endpoints/(?P<endpoint>[^/]+)/(?P<how>invocations|invocations-response-stream)")
OPERATIONS: dict[str, Handler] = {
    "CreateTrainingJob": create_job.create, "DescribeTrainingJob": jobs.describe, "ListTrainingJobs": jobs.list_,
    "StopTrainingJob": jobs.stop, "DeleteTrainingJob": jobs.delete,
    "DescribeHub": hub.describe_hub, "DescribeHubContent": hub.describe, "ListHubContents": hub.list_,
    "ListHubContentVersions": hub.versions,
    "CreateModelPackageGroup": packages.create_group, "DescribeModelPackageGroup": packages.describe_group,
    "ListModelPackageGroups": packages.list_groups, "DeleteModelPackageGroup": packages.delete_group,
    "CreateModelPackage": packages.create, "DescribeModelPackage": packages.describe,
    "ListModelPackages": packages.list_, "DeleteModelPackage": packages.delete,
    "CreateModel": hosting.create_model, "DescribeModel": hosting.describe_model, "ListModels": hosting.list_models,
    "DeleteModel": hosting.delete_model,
    "CreateEndpointConfig": hosting.create_config, "DescribeEndpointConfig": hosting.describe_config,
    "ListEndpointConfigs": hosting.list_configs, "DeleteEndpointConfig": hosting.delete_config,
    "CreateEndpoint": hosting.create_endpoint, "DescribeEndpoint": hosting.describe_endpoint,
    "ListEndpoints": hosting.list_endpoints, "UpdateEndpoint": hosting.update_endpoint,
    "UpdateEndpointWeightsAndCapacities": hosting.update_weights, "DeleteEndpoint": hosting.delete_endpoint,
    "CreateInferenceComponent": components.create_component,
    "DescribeInferenceComponent": components.describe_component,
    "ListInferenceComponents": components.list_components, "UpdateInferenceComponent": components.update_component,
    "UpdateInferenceComponentRuntimeConfig": components.update_copies,
    "DeleteInferenceComponent": components.delete_component,
    "DescribeMlflowApp": mlflow.describe_app, "DescribeMlflowTrackingServer": mlflow.describe_server,
    "AddTags": naming.add_tags, "ListTags": naming.list_tags, "DeleteTags": naming.delete_tags,
}  # fmt: skip
_RUNTIME = {"invocations": "InvokeEndpoint", "invocations-response-stream": "InvokeEndpointWithResponseStream"}
_INVOKED: dict[str, Handler] = {
    "InvokeEndpoint": runtime.invoke, "InvokeEndpointWithResponseStream": runtime.stream,
}  # fmt: skip
_JSON = "application/x-amz-json-1.1"


def api(request: RequestInfo) -> Route | None:
    """The route of a request that is signed for SageMaker; None if the operation is not emulated."""
    if (found := _INVOKE.fullmatch(request.path)) is not None:
        return _named(_RUNTIME[found["how"]], {"endpoint": found["endpoint"]})
    if (what := request.path.removeprefix(mlflow.PREFIX)) in mlflow.CALLS:
        return _mlflow(what)
    operation = request.target.removeprefix(_TARGET)
    return _named(operation, {}) if operation in OPERATIONS else None


def _mlflow(what: str) -> Route:
    name, handler = mlflow.CALLS[what]
    return Route("sagemaker", f"sagemaker.{name}", handler, verified, read=_read, dressed=mlflow.dressed)


def scaling(request: RequestInfo) -> Route | None:
    """The route of a request that is signed for Application Auto Scaling."""
    operation = request.target.rpartition(".")[2]
    return _scaling(operation) if operation in autoscaling.OPERATIONS else None


def named(name: str) -> Route:
    """The route of a call that is already read."""
    service, _, operation = name.partition(".")
    if (what := next((path for path, (called, _) in mlflow.CALLS.items() if called == operation), None)) is not None:
        return _mlflow(what)
    return _scaling(operation) if service == autoscaling.SERVICE else _named(operation, {})


def _scaling(operation: str) -> Route:
    name, handler = f"{autoscaling.SERVICE}.{operation}", autoscaling.OPERATIONS[operation]
    return Route("sagemaker", name, handler, verified, read=_read, dressed=_dressed)


def _named(operation: str, ids: Mapping[str, str]) -> Route:
    if operation in _INVOKED:
        handler, dress = _INVOKED[operation], errors.dressed("rest-json")
    else:
        handler, dress = _checked(operation), _dressed
    return Route("sagemaker", f"sagemaker.{operation}", handler, verified, ids, read=_read, dressed=dress)


def _dressed(error: ApiError) -> ApiError:
    return errors.dressed("json")(error)


def _checked(operation: str) -> Handler:
    """Validate the request against the service model, and respond in the service's own content type."""

    def act(context: EmulatorContext, call: Call) -> Reply:
        shapes.check(operation, call.body)
        reply = OPERATIONS[operation](context, call)
        return replace(reply, content_type=_JSON)

    return act


def _read(request: Request, api: Api, name: str, ids: Mapping[str, str], now: float) -> Call:
    signed = signing.signature(request)
    return replace(read_call(request, api, name, ids, now), region=signed.region if signed is not None else "")
