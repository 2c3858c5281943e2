"""Endpoints of SageMaker: model, configuration and endpoint made under one name, waited for, listed, taken down.

Each is a step of its own, atomic by its name: what stands under it is ours if it carries the submission's token as a
tag. "Exists" and "not found" arrive as the texts of ValidationExceptions. It is the endpoint that costs by the hour, so
that it goes first (docs.aws.amazon.com/sagemaker/latest/dg/realtime-endpoints-delete-resources.html, seen 2026-11-21).
"""

from __future__ import annotations

import re
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cloudtune.backend import Absent, DataReport, Done, Found, Plan, Probe, Resolved, Step, Unsettled, place
from cloudtune.errors import CloudtuneError, Conflict, InvalidRequest, JobNotFound
from cloudtune.state import Deployment
from cloudtune_providers.aws.names import TOKEN_TAG, tag_list, tags_of
from cloudtune_providers.aws.training_answers import plain, when

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cloudtune.backend import CostEstimate
    from cloudtune.errors import Problem
    from cloudtune_providers.aws.clients import Clients

MODEL_TAG = "cloudtune:model"
BACKEND_TAG = "cloudtune:backend"
OWN_TAGS = (MODEL_TAG, BACKEND_TAG)
_KINDS: dict[str, tuple[str, str, str]] = {
    "model": ("model", "ModelName", "ModelArn"),
    "config": ("endpoint_config", "EndpointConfigName", "EndpointConfigArn"),
    "endpoint": ("endpoint", "EndpointName", "EndpointArn"),
}
_READY = frozenset({"InService"})
_FAILED = frozenset({"Failed", "OutOfService", "UpdateRollbackFailed"})
_STATES = {"InService": "ready", "Failed": "failed", "OutOfService": "failed", "UpdateRollbackFailed": "failed"}
_TAKEN = re.compile(r"already exist", re.IGNORECASE)
GOING_POLL_S = 10.0
_PAGE = 100


class Endpoints:
    """Those of one back end, account and region. May be used from several threads."""

    def __init__(self, clients: Clients, backend: str) -> None:
        self._clients = clients
        self._backend = backend
        self._lock = threading.Lock()
        self._tags: dict[tuple[str, Any], dict[str, str]] = {}

    # -- plans -----------------------------------------------------------------------------------------------------

    def plan_deploy(
        self, name: str, model: str, scope: str, token: str, bodies: Mapping[str, Mapping[str, Any]], *, limit_s: float,
        tags: Mapping[str, str], warnings: tuple[Problem, ...] = (), cost: CostEstimate | None = None,
    ) -> Plan:  # fmt: skip
        """``bodies`` has ``model``, ``config`` and ``endpoint``: the requests, less names and tags."""
        labels = tags_of(token, name, tags, {MODEL_TAG: model, BACKEND_TAG: self._backend})
        steps = []
        for kind, body in bodies.items():
            call, field, _ = _KINDS[kind]
            whole = {field: name, **body, "Tags": tag_list(labels, upper=True)}
            steps.append(
                Step(id=kind, kind="call", title=f"create the {call.replace('_', ' ')} {name}", once="atomic",
                     token=token, request={"call": f"sagemaker.create_{call}", "body": whole})
            )  # fmt: skip
        steps.append(
            Step(id="ready", kind="await", title=f"wait until {name} answers", limit_s=limit_s,
                 request={"call": "sagemaker.describe_endpoint", "name": place("endpoint", "name")})
        )  # fmt: skip
        return Plan(
            purpose="deploy", name=name, backend=self._backend, scope=scope, key=token, attempt=1, token=token, spec={},
            steps=tuple(steps), data=DataReport(splits={}, fingerprint=""), resolved=Resolved(scope=scope),
            warnings=warnings, cost=cost,
        )  # fmt: skip

    def plan_remove(self, deployment: Deployment, token: str) -> Plan:
        """The endpoint first, since it costs; then what it was made of."""
        held = deployment.raw.get("cloudtune") or {}
        names = {"endpoint": deployment.id, "config": held.get("config") or deployment.id,
                 "model": held.get("model") or deployment.id}  # fmt: skip
        steps = tuple(
            Step(id=f"remove_{kind}", kind="call", title=f"delete the {_KINDS[kind][0].replace('_', ' ')} {name}",
                 once="atomic", request={"call": f"sagemaker.delete_{_KINDS[kind][0]}", "name": name})
            for kind, name in names.items()
        )  # fmt: skip
        return Plan(
            purpose="remove", name=deployment.id, backend=self._backend, scope=deployment.scope, key=token, attempt=1,
            token=token, spec={}, steps=steps, data=DataReport(splits={}, fingerprint=""),
            resolved=Resolved(scope=deployment.scope),
        )  # fmt: skip

    # -- steps -----------------------------------------------------------------------------------------------------

    def do(self, step_id: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Create or delete one thing."""
        kind = step_id.removeprefix("remove_")
        call, field, _ = _KINDS[kind]
        if step_id.startswith("remove_"):
            self._delete(call, field, str(request["name"]))
            return {"name": request["name"]}
        name = str(request["body"][field])
        try:
            with self._clients.asking(f"{call} {name}", missing=InvalidRequest):
                getattr(self._client, f"create_{call}")(**request["body"])
        except (InvalidRequest, Conflict) as error:
            if not _TAKEN.search(str(error)):
                raise
            found = self.find(step_id, request, datetime.now(UTC))
            if not isinstance(found, Done):
                raise
        return {"name": name}

    def find(self, step_id: str, request: Mapping[str, Any], now: datetime) -> Found:
        """What stands under the name. Raises Conflict if that is not ours."""
        kind = step_id.removeprefix("remove_")
        _, field, arn = _KINDS[kind]
        if step_id.startswith("remove_"):
            there = self._describe(kind, str(request["name"]))
            gone = there is None or there.get("EndpointStatus") == "Deleting"
            return Done(outputs={"name": request["name"]}) if gone else Absent()
        body = request["body"]
        name = str(body[field])
        there = self._describe(kind, name)
        if there is None:
            return Absent()
        if there.get("EndpointStatus") == "Deleting":  # the name is free once it has gone
            return Unsettled(until=now + timedelta(seconds=GOING_POLL_S))
        wanted = {tag["Key"]: tag["Value"] for tag in body["Tags"]}[TOKEN_TAG]
        if self._tags_of(str(there[arn]), there.get("CreationTime")).get(TOKEN_TAG) != wanted:
            raise Conflict(f"{name!r} stands already, and cloudtune did not make it for this model",
                           hint="give another name, or take it down")  # fmt: skip
        return Done(outputs={"name": name})

    def probe(self, name: str) -> Probe:
        """Whether it answers."""
        there = self._describe("endpoint", name)
        word = str((there or {}).get("EndpointStatus") or "not there")
        state = "ready" if word in _READY else "failed" if word in _FAILED or there is None else "pending"
        told = f"{word}: {there['FailureReason']}" if there and there.get("FailureReason") else word
        return Probe(state=state, outputs={"name": name}, message=told)  # type: ignore[arg-type]

    # -- reading ---------------------------------------------------------------------------------------------------

    def listed(self, scope: str, price: Callable[[str], float | None] = lambda _: None) -> list[Deployment]:
        """This back end's endpoints; those that are being taken down do not stand. ``price`` is an instance type's."""
        found = []
        for entry in self._entries():
            tags = self._tags_of(str(entry["EndpointArn"]), entry.get("CreationTime"))
            if entry["EndpointStatus"] == "Deleting" or tags.get(BACKEND_TAG) != self._backend:
                continue
            found.append(self._value(entry, tags, scope, price))
        return found

    def serving(self, model: str, scope: str) -> Deployment:
        """A ready endpoint of that model. Raises InvalidRequest."""
        for one in self.listed(scope):
            if one.model == model and one.state == "ready":
                return one
        raise InvalidRequest(f"{model} is not deployed, and answers only then", hint="deploy it: cloudtune deploy JOB")

    def _value(
        self, entry: Mapping[str, Any], tags: Mapping[str, str], scope: str, price: Callable[[str], float | None]
    ) -> Deployment:
        name = str(entry["EndpointName"])
        described = self._describe("endpoint", name) or entry
        config_name = str(described.get("EndpointConfigName") or name)
        config = self._describe("config", config_name) or {}
        variant = (config.get("ProductionVariants") or [{}])[0]
        kind = str(variant.get("InstanceType") or "")
        each, count = price(kind), int(variant.get("InitialInstanceCount") or 1)
        held = {"config": config_name, "model": str(variant.get("ModelName") or name), "instance_type": kind}
        return Deployment(
            id=name, backend=self._backend, scope=scope, model=tags.get(MODEL_TAG, ""),
            state=_STATES.get(str(entry["EndpointStatus"]), "creating"), native_state=str(entry["EndpointStatus"]),
            created_at=when(entry.get("CreationTime")), hourly_cost_usd=None if each is None else each * count,
            raw=plain(described) | {"cloudtune": held},
        )  # fmt: skip

    def _entries(self) -> Iterator[dict[str, Any]]:
        more: dict[str, str] = {}
        while True:
            with self._clients.asking("list of endpoints"):
                page = self._client.list_endpoints(MaxResults=_PAGE, **more)
            yield from page["Endpoints"]
            if not page.get("NextToken"):
                return
            more = {"NextToken": page["NextToken"]}

    def _describe(self, kind: str, name: str) -> dict[str, Any] | None:
        call, field, _ = _KINDS[kind]
        try:
            with self._clients.asking(f"{call} {name}"):
                return dict(getattr(self._client, f"describe_{call}")(**{field: name}))
        except JobNotFound:
            return None

    def _delete(self, call: str, field: str, name: str) -> None:
        try:
            with self._clients.asking(f"{call} {name}"):
                getattr(self._client, f"delete_{call}")(**{field: name})
        except JobNotFound:  # what is not there is deleted
            return

    def _tags_of(self, arn: str, made: Any) -> dict[str, str]:
        """A thing's tags, which ours are never changed: asked for once."""
        with self._lock:
            known = self._tags.get((arn, made))
        if known is not None:
            return known
        try:
            with self._clients.asking(f"tags of {arn}"):
                page = self._client.list_tags(ResourceArn=arn, MaxResults=_PAGE)
        except CloudtuneError as error:
            if isinstance(error, JobNotFound):
                return {}
            raise
        found = {tag["Key"]: tag["Value"] for tag in page.get("Tags", ())}
        with self._lock:
            self._tags[arn, made] = found
        return found

    @property
    def _client(self) -> Any:
        return self._clients.client("sagemaker")
