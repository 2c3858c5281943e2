"""Deployments through the management plane: create, await, list and delete by name.

A PUT overwrites an existing deployment, so it is checked first: one that cloudtune did not create is a conflict.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from cloudtune.backend import Absent, Done, Found, Probe, Unsettled
from cloudtune.cost import CostEstimate
from cloudtune.errors import ConfigError, Conflict, InvalidRequest, InvalidResponse, JobNotFound, Problem
from cloudtune.plan import DataReport, Plan, Resolved, Step, output_ref
from cloudtune.state import Deployment
from cloudtune_providers.azure_openai import translate
from cloudtune_providers.azure_openai.errors import asking

if TYPE_CHECKING:
    from collections.abc import Callable

    from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient

    from cloudtune.catalog import Catalog, Limit
    from cloudtune.clock import Clock
    from cloudtune.state import TunedModel
    from cloudtune_providers.azure_openai.options import AzureOpenAIOptions

# azure-mgmt-cognitiveservices 14.1.0, DeploymentProvisioningState.
_READY = frozenset({"Succeeded"})
_FAILED = frozenset({"Failed", "Canceled", "Disabled"})
_GOING = frozenset({"Deleting"})
GOING_POLL_S = 5.0
DEVELOPER = "DeveloperTier"
_STATES = {"Succeeded": "ready", "Failed": "failed", "Canceled": "failed", "Disabled": "failed"}


class Deployments:
    """The deployments of one resource. ``manage`` creates the management client."""

    def __init__(
        self,
        options: AzureOpenAIOptions,
        catalog: Catalog,
        manage: Callable[[], CognitiveServicesManagementClient],
        clock: Clock,
    ) -> None:
        self._options = options
        self._scope = options.scope()
        self._catalog = catalog
        self._manage = manage
        self._clock = clock
        self._lock = threading.Lock()
        self._client: CognitiveServicesManagementClient | None = None

    # -- plans -----------------------------------------------------------------------------------------------------

    def plan_deploy(self, model: TunedModel, name: str | None, sku: str, capacity: int) -> Plan:
        """Return steps that deploy the model under a name, and wait until it is ready."""
        name = name or translate.deployment_name(model.id)
        token = translate.token_of("deploy", model.scope, name, model.id, sku, str(capacity))
        request = {
            "call": "deployments.create_or_update", "name": name,
            "body": translate.deployment_body(model.id, sku, capacity, token),
        }  # fmt: skip
        steps = (
            Step(id="deploy", kind="call", title=f"deploy {model.id}", request=request, once="atomic", token=token),
            Step(id="ready", kind="await", title=f"wait until {name} is ready", limit_s=self._options.deploy_limit,
                 request={"call": "deployments.get", "name": output_ref("deploy", "name")}),
        )  # fmt: skip
        return self._plan("deploy", name, model.scope, token, steps, self._warnings(sku), self._cost(sku))

    def plan_remove(self, deployment: Deployment) -> Plan:
        """Return steps that delete it."""
        token = translate.token_of("remove", deployment.scope, deployment.id, deployment.model)
        request = {"call": "deployments.delete", "name": deployment.id}
        step = Step(id="remove", kind="call", title=f"delete {deployment.id}", request=request, once="atomic")
        return self._plan("remove", deployment.id, deployment.scope, token, (step,), (), None)

    def _plan(
        self, purpose: Literal["deploy", "remove"], name: str, scope: str, token: str, steps: tuple[Step, ...],
        warnings: tuple[Problem, ...], cost: CostEstimate | None,
    ) -> Plan:  # fmt: skip
        if scope != self._scope:
            raise InvalidRequest(f"{name} belongs to {scope}, but the settings select {self._scope}")
        return Plan(
            purpose=purpose, name=name, backend=translate.NAME, scope=scope, key=token, attempt=1, token=token,
            spec={}, steps=steps, data=DataReport(splits={}, fingerprint=""), resolved=Resolved(scope=scope),
            warnings=warnings, cost=cost,
        )  # fmt: skip

    def _warnings(self, sku: str) -> tuple[Problem, ...]:
        limit = self._end(sku)
        if limit is None:
            return ()
        return (Problem(code="deployment", severity="warning", field="sku", message=f"{sku}: {limit.note}"),)

    def _end(self, sku: str) -> Limit | None:
        """When the service deletes such a deployment automatically."""
        name = "deployment.developer.seconds.max" if sku == DEVELOPER else "deployment.idle.seconds.max"
        return self._catalog.limit(name)

    def _cost(self, sku: str) -> CostEstimate | None:
        price = self._catalog.price("hosting", "", tier=sku)
        if price is None:
            return None
        seen = self._catalog.cite(price.source)
        return CostEstimate(usd=None, basis=f"{price.usd:g} USD per hour, even when idle, until it is deleted ({seen})")

    # -- acts ------------------------------------------------------------------------------------------------------

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        """Create it, unless the name belongs to another deployment."""
        self.find(request)
        name, body = request["name"], request["body"]
        self._ask("deploy", lambda c, *at: c.begin_create_or_update(*at, name, body, polling=False))
        return {"name": request["name"]}

    def find(self, request: dict[str, Any]) -> Found:
        """Return the deployment with that name. Raises Conflict if cloudtune did not create it."""
        there = self._get(request["name"])
        going = _word(there) in _GOING
        if request["call"] == "deployments.delete":
            return Done(outputs={"name": request["name"]}) if there is None or going else Absent()
        if there is None:
            return Absent()
        if going:  # the name is available once it is deleted
            return Unsettled(until=self._clock.now() + timedelta(seconds=GOING_POLL_S))
        if not translate.is_ours(there, request["body"]):
            raise Conflict(
                f"a deployment named {request['name']!r} exists, but cloudtune did not create it for this model",
                hint="choose another name, or delete it",
            )
        return Done(outputs={"name": request["name"]})

    def remove(self, request: dict[str, Any]) -> dict[str, Any]:
        """Delete it. Succeeds if it does not exist."""
        self._ask("removal", lambda c, *at: c.begin_delete(*at, request["name"], polling=False))
        return {"name": request["name"]}

    def probe(self, request: dict[str, Any]) -> Probe:
        """Whether it is ready."""
        there = self._get(request["name"])
        word = _word(there) or "not found"
        state = "ready" if word in _READY else "failed" if word in _FAILED or there is None else "pending"
        return Probe(state=state, outputs={"name": request["name"]}, message=word)  # type: ignore[arg-type]

    def listed(self, scope: str) -> list[Deployment]:
        """List the deployments, except those being deleted."""
        found = self._ask("list of deployments", lambda c, *at: [_json(entry) for entry in c.list(*at)])
        return [deployment for deployment in (self._value(entry, scope) for entry in found) if deployment is not None]

    def base_models(self) -> list[dict[str, Any]]:
        """The models that the resource offers."""
        what = "list of models"
        return self._ask(what, lambda c, *at: [_json(entry) for entry in c.list_models(*at)], of="accounts")  # type: ignore[no-any-return]

    def serving(self, model: str, scope: str) -> str:
        """The name of a ready deployment of that model. Raises InvalidRequest."""
        for deployment in self.listed(scope):
            if deployment.state == "ready" and translate.serves(deployment.raw, model):
                return deployment.id
        raise InvalidRequest(f"{model} is not deployed", hint="deploy it first: cloudtune deploy JOB")

    def _value(self, entry: dict[str, Any], scope: str) -> Deployment | None:
        properties = entry.get("properties") or {}
        word = _word(entry)
        if word in _GOING:
            return None
        sku, made = str((entry.get("sku") or {}).get("name")), _made_at(entry)
        price, limit = self._catalog.price("hosting", "", tier=sku), self._end(sku)
        ends_at = made + timedelta(seconds=limit.value) if made and limit and sku == DEVELOPER else None
        return Deployment(
            id=str(entry.get("name")), backend=translate.NAME, scope=scope,
            model=str((properties.get("model") or {}).get("name")), state=_STATES.get(word, "creating"),
            native_state=word, created_at=made, hourly_cost_usd=price.usd if price else None,
            ends=limit.note if limit else "", ends_at=ends_at, raw=entry,
        )  # fmt: skip

    def _get(self, name: str) -> dict[str, Any] | None:
        try:
            there: dict[str, Any] = self._ask(f"deployment {name}", lambda c, *at: _json(c.get(*at, name)))
        except JobNotFound:
            return None
        if not there.get("name"):
            raise InvalidResponse(f"deployment {name}: the response names no deployment")
        return there

    # -- the wire --------------------------------------------------------------------------------------------------

    def _ask(
        self, what: str, call: Callable[..., Any], *, of: Literal["deployments", "accounts"] = "deployments"
    ) -> Any:
        subscription, group, account = self._options.place()
        if not (subscription and group and account):
            missing = {"subscription_id": subscription, "resource_group": group, "account": account}
            raise ConfigError(
                [
                    Problem(
                        code="setting", field=f"backends.{translate.NAME}.{name}", message="required for deployments"
                    )
                    for name, value in missing.items()
                    if not value
                ]
            )
        secret = self._options.management_token
        with asking(what, (secret.get_secret_value(),) if secret else ()):
            return call(getattr(self._made(), of), group, account)

    def close(self) -> None:
        """Close the connections; the next call creates a new client."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _made(self) -> CognitiveServicesManagementClient:
        with self._lock:
            if self._client is None:
                self._client = self._manage()
            return self._client


def _word(entry: dict[str, Any] | None) -> str:
    return str(((entry or {}).get("properties") or {}).get("provisioningState") or "")


def _made_at(entry: dict[str, Any]) -> datetime | None:
    """The resource manager's own metadata, which some services omit."""
    text = (entry.get("systemData") or {}).get("createdAt")
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def _json(entry: Any) -> dict[str, Any]:
    """The service's own JSON; older and newer models of the SDK provide it differently."""
    return dict(entry.serialize(keep_readonly=True) if hasattr(entry, "serialize") else entry.as_dict())
