"""All hosting resources of a back end on SageMaker: endpoints, their components, and scaling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.errors import InvalidRequest, PermissionDenied
from cloudtune.state import ASLEEP
from cloudtune_providers.aws import host_plans
from cloudtune_providers.aws.components import Components
from cloudtune_providers.aws.endpoints import Endpoints
from cloudtune_providers.aws.labels import Labels
from cloudtune_providers.aws.scaling import Scaling

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from cloudtune.backend import Found, Probe
    from cloudtune.plan import Plan
    from cloudtune.state import Deployment
    from cloudtune_providers.aws.clients import Clients

_SERVICES = ("sagemaker.", "application-autoscaling.", "cloudwatch.")


class Hosts:
    """The hosting resources of one account and region. Thread-safe."""

    def __init__(self, clients: Clients, backend: str) -> None:
        labels = Labels(clients)
        self._endpoints = Endpoints(clients, backend, labels)
        self._components = Components(clients, backend, labels)
        self._scaling = Scaling(clients)

    @staticmethod
    def does(request: Mapping[str, Any]) -> bool:
        """Whether a step's request is for hosting: all except those of jobs."""
        return str(request.get("call", "")).startswith(_SERVICES)

    # -- steps -----------------------------------------------------------------------------------------------------

    def do(self, step_id: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Create or delete one resource."""
        if self._scaling.does(request):
            return self._scaling.do(request)
        if self._components.does(request):
            return self._components.do(request)
        return self._endpoints.do(step_id, request)

    def find(self, step_id: str, request: Mapping[str, Any], now: datetime) -> Found:
        """Whether the step is already done."""
        if self._scaling.does(request):
            return self._scaling.find(request)
        if self._components.does(request):
            return self._components.find(request, now)
        return self._endpoints.find(step_id, request, now)

    def probe(self, request: Mapping[str, Any]) -> Probe:
        """Whether the resource is ready, or deleted."""
        if self._components.does(request):
            return self._components.probe(request)
        return self._endpoints.probe(str(request["name"]))

    # -- reading ---------------------------------------------------------------------------------------------------

    def listed(self, scope: str, price: Callable[[str], float | None] = lambda _: None) -> list[Deployment]:
        """List deployments: an endpoint and its own component are one; every other component is a separate one."""
        try:
            parts = {(one.id, one.raw["cloudtune"]["endpoint"]): one for one in self._components.listed(scope)}
        except PermissionDenied:  # an identity that may not list them has created none
            parts = {}
        found = []
        for one in self._endpoints.listed(scope, price):
            own = parts.get((one.id, one.id))
            if own is not None and own.raw["cloudtune"]["token"] == (one.raw["cloudtune"].get("token")):
                del parts[one.id, one.id]
                one = _whole(one, own)  # noqa: PLW2901
            elif one.raw["cloudtune"].get("component") and one.state in ("ready", ASLEEP):
                one = msgspec.structs.replace(one, state="creating")  # noqa: PLW2901 - nothing on it is ready yet
            found.append(one)
        return [*found, *parts.values()]

    def serving(self, model: str, scope: str) -> Deployment | None:
        """The deployment that serves that model now, or starts at a request."""
        ready = (one for one in self.listed(scope) if one.model == model and one.state in ("ready", ASLEEP))
        return next(ready, None)

    def plan_remove(self, deployment: Deployment, token: str) -> Plan:
        """Refuse the deletion while others use the resources that it would delete. Raises InvalidRequest."""
        held = deployment.raw.get("cloudtune") or {}
        if held.get("endpoint") == deployment.id and "base" not in held:
            others = [name for name in self._components.on(deployment.id) if name != deployment.id]
            if others:
                raise InvalidRequest(
                    f"{', '.join(sorted(others))} {'are' if len(others) > 1 else 'is'} on {deployment.id}",
                    hint=f"delete it first: cloudtune undeploy {min(others)}",
                )
        return host_plans.removal(deployment, token)


def where_of(deployment: Deployment) -> dict[str, str]:
    """The arguments that name the deployment in an invocation."""
    held = deployment.raw.get("cloudtune") or {}
    if not held.get("component"):
        return {"EndpointName": deployment.id}
    return {"EndpointName": str(held["endpoint"]), "InferenceComponentName": str(held["component"])}


def _whole(endpoint: Deployment, part: Deployment) -> Deployment:
    """The endpoint is ready as soon as its component is."""
    if part.state == "ready":
        return endpoint
    return msgspec.structs.replace(endpoint, state=part.state, native_state=part.native_state)
