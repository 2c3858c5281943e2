"""SageMaker endpoints: creates, awaits, lists and deletes model, configuration and endpoint under one name.

Each is a separate step, atomic by its name. A resource belongs to cloudtune if it has the submission's token as a
tag. "Exists" and "not found" are messages of ValidationExceptions. The endpoint is billed by the hour, so it is
deleted first (docs.aws.amazon.com/sagemaker/latest/dg/realtime-endpoints-delete-resources.html, seen 2026-11-21).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cloudtune.backend import Absent, Done, Found, Probe, Unsettled
from cloudtune.errors import Conflict, InvalidRequest, JobNotFound
from cloudtune.state import ASLEEP, Deployment
from cloudtune_providers.aws.labels import BACKEND_TAG, COPIES_TAG, MODEL_TAG, Labels, token_in
from cloudtune_providers.aws.names import TOKEN_TAG
from cloudtune_providers.aws.training_responses import plain, when

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cloudtune_providers.aws.clients import Clients

KINDS: dict[str, tuple[str, str, str]] = {
    "model": ("model", "ModelName", "ModelArn"),
    "config": ("endpoint_config", "EndpointConfigName", "EndpointConfigArn"),
    "endpoint": ("endpoint", "EndpointName", "EndpointArn"),
}
_READY = frozenset({"InService"})
_FAILED = frozenset({"Failed", "OutOfService", "UpdateRollbackFailed"})
_STATES = {"InService": "ready", "Failed": "failed", "OutOfService": "failed", "UpdateRollbackFailed": "failed"}
_TAKEN = re.compile(r"already exist", re.IGNORECASE)
GOING_POLL_S = 10.0
SLEEPS = "no instances and no cost while idle; the first request starts one"
_PAGE = 100


class Endpoints:
    """The endpoints of one back end, account and region. Thread-safe."""

    def __init__(self, clients: Clients, backend: str, labels: Labels | None = None) -> None:
        self._clients = clients
        self._backend = backend
        self._labels = labels or Labels(clients)

    # -- steps -----------------------------------------------------------------------------------------------------

    def do(self, step_id: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Create or delete one resource."""
        kind = step_id.removeprefix("remove_")
        call, field, _ = KINDS[kind]
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
        """Return the resource with that name. Raises Conflict if cloudtune did not create it."""
        kind = step_id.removeprefix("remove_")
        _, field, arn = KINDS[kind]
        if step_id.startswith("remove_"):
            there = self._describe(kind, str(request["name"]))
            gone = there is None or there.get("EndpointStatus") == "Deleting"
            return Done(outputs={"name": request["name"]}) if gone else Absent()
        body = request["body"]
        name = str(body[field])
        there = self._describe(kind, name)
        if there is None:
            return Absent()
        if there.get("EndpointStatus") == "Deleting":  # the name is available once it is deleted
            return Unsettled(until=now + timedelta(seconds=GOING_POLL_S))
        if self._labels.of(str(there[arn]), there.get("CreationTime")).get(TOKEN_TAG) != token_in(body):
            raise Conflict(f"{name!r} exists, but cloudtune did not create it for this model",
                           hint="choose another name, or delete it")  # fmt: skip
        return Done(outputs={"name": name})

    def probe(self, name: str) -> Probe:
        """Whether it is ready."""
        there = self._describe("endpoint", name)
        word = str((there or {}).get("EndpointStatus") or "not found")
        state = "ready" if word in _READY else "failed" if word in _FAILED or there is None else "pending"
        text = f"{word}: {there['FailureReason']}" if there and there.get("FailureReason") else word
        return Probe(state=state, outputs={"name": name}, message=text)  # type: ignore[arg-type]

    # -- reading ---------------------------------------------------------------------------------------------------

    def listed(self, scope: str, price: Callable[[str], float | None] = lambda _: None) -> list[Deployment]:
        """List this back end's endpoints, except those being deleted. ``price`` returns an instance type's price."""
        found = []
        for entry in self._entries():
            tags = self._labels.of(str(entry["EndpointArn"]), entry.get("CreationTime"))
            if entry["EndpointStatus"] == "Deleting" or tags.get(BACKEND_TAG) != self._backend:
                continue
            found.append(self._value(entry, tags, scope, price))
        return found

    def _value(
        self, entry: Mapping[str, Any], tags: Mapping[str, str], scope: str, price: Callable[[str], float | None]
    ) -> Deployment:
        name = str(entry["EndpointName"])
        described = self._describe("endpoint", name) or entry
        config_name = str(described.get("EndpointConfigName") or name)
        config = self._describe("config", config_name) or {}
        variant = (config.get("ProductionVariants") or [{}])[0]
        kind, count = str(variant.get("InstanceType") or ""), _instances(described, variant)
        each = 0.0 if count == 0 else price(kind)
        held = {"config": config_name, "model": str(variant.get("ModelName") or name), "instance_type": kind}
        if COPIES_TAG in tags:
            held["copies"] = tags[COPIES_TAG]
        if variant and not variant.get("ModelName"):  # the models are components on it
            held |= {"component": name, "endpoint": name, "token": str(tags.get(TOKEN_TAG))}
        word = str(entry["EndpointStatus"])
        state = _STATES.get(word, "creating")
        return Deployment(
            id=name, backend=self._backend, scope=scope, model=tags.get(MODEL_TAG, ""),
            state=ASLEEP if state == "ready" and count == 0 else state, native_state=word,
            created_at=when(entry.get("CreationTime")), hourly_cost_usd=None if each is None else each * count,
            ends=SLEEPS if str(held.get("copies", "")).startswith("0-") else "",
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
        call, field, _ = KINDS[kind]
        try:
            with self._clients.asking(f"{call} {name}"):
                return dict(getattr(self._client, f"describe_{call}")(**{field: name}))
        except JobNotFound:
            return None

    def _delete(self, call: str, field: str, name: str) -> None:
        try:
            with self._clients.asking(f"{call} {name}"):
                getattr(self._client, f"delete_{call}")(**{field: name})
        except JobNotFound:  # a missing resource counts as deleted
            return

    @property
    def _client(self) -> Any:
        return self._clients.client("sagemaker")


def _instances(described: Mapping[str, Any], variant: Mapping[str, Any]) -> int:
    """The current number of instances; for an endpoint that cannot have zero, the requested number."""
    if (variant.get("ManagedInstanceScaling") or {}).get("Status") == "ENABLED":
        for one in described.get("ProductionVariants") or ():
            if one.get("CurrentInstanceCount") is not None:
                return int(one["CurrentInstanceCount"])
    return int(variant.get("InitialInstanceCount") or 1)
