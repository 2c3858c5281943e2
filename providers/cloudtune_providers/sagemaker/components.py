"""Inference components: several tuned models on one endpoint that stands already, each of them one deployment.

The endpoint must be one for inference components, made by whoever owns it; cloudtune adds models to it, takes its own
away again, and leaves the endpoint alone. Shapes: botocore 1.44.5, service model ``sagemaker``.
"""

from __future__ import annotations

import re
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cloudtune.backend import Absent, DataReport, Done, Found, Plan, Probe, Resolved, Step, Unsettled, place
from cloudtune.errors import Conflict, InvalidRequest, JobNotFound
from cloudtune.state import Deployment
from cloudtune_providers.aws.endpoints import BACKEND_TAG, MODEL_TAG
from cloudtune_providers.aws.names import TOKEN_TAG, tag_list, tags_of
from cloudtune_providers.aws.training_answers import plain, when
from cloudtune_providers.sagemaker.capabilities import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from cloudtune.state import TunedModel
    from cloudtune_providers.aws.clients import Clients
    from cloudtune_providers.sagemaker.options import SageMakerDeployment

COMPONENT, READY, REMOVE = "component", "component_ready", "remove_component"
_STATES = {"InService": "ready", "Failed": "failed"}
_TAKEN = re.compile(r"already exist", re.IGNORECASE)
_PAGE = 100
GOING_POLL_S = 10.0


class Components:
    """Those of one account and region. May be used from several threads."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._lock = threading.Lock()
        self._tags: dict[tuple[str, Any], dict[str, str]] = {}

    # -- plans -----------------------------------------------------------------------------------------------------

    def plan_deploy(
        self, name: str, model: TunedModel, token: str, container: Mapping[str, Any], asked: SageMakerDeployment,
        *, limit_s: float, tags: Mapping[str, str],
    ) -> Plan:  # fmt: skip
        """The model, and a component with it on the endpoint. ``container`` is the body of CreateModel."""
        labels = tag_list(tags_of(token, name, tags, {MODEL_TAG: model.id, BACKEND_TAG: NAME}), upper=True)
        needs: dict[str, Any] = {"MinMemoryRequiredInMb": asked.memory_mb}
        if asked.accelerators:
            needs["NumberOfAcceleratorDevicesRequired"] = asked.accelerators
        body = {
            "InferenceComponentName": name, "EndpointName": asked.endpoint, "VariantName": asked.variant,
            "Specification": {"ModelName": place("model", "name"), "ComputeResourceRequirements": needs},
            "RuntimeConfig": {"CopyCount": asked.instances}, "Tags": labels,
        }  # fmt: skip
        steps = (
            Step(id="model", kind="call", title=f"create the model {name}", once="atomic", token=token,
                 request={"call": "sagemaker.create_model", "body": {"ModelName": name, **container, "Tags": labels}}),
            Step(id=COMPONENT, kind="call", title=f"put {name} on the endpoint {asked.endpoint}", once="atomic",
                 token=token, request={"call": "sagemaker.create_inference_component", "body": body}),
            Step(id=READY, kind="await", title=f"wait until {name} answers", limit_s=limit_s,
                 request={"call": "sagemaker.describe_inference_component", "name": place(COMPONENT, "name")}),
        )  # fmt: skip
        return _plan("deploy", name, model.scope, token, steps)

    def plan_remove(self, deployment: Deployment, token: str) -> Plan:
        """The component first, then its model; the endpoint stays."""
        held = deployment.raw["cloudtune"]
        steps = tuple(
            Step(id=step, kind="call", title=f"delete the {what} {held[key]}", once="atomic",
                 request={"call": f"sagemaker.delete_{what.replace(' ', '_')}", "name": held[key]})
            for step, what, key in (
                (REMOVE, "inference component", "component"), ("remove_model", "model", "model"),
            )
        )  # fmt: skip
        return _plan("remove", deployment.id, deployment.scope, token, steps)

    # -- steps -----------------------------------------------------------------------------------------------------

    def do(self, step_id: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Create or delete one."""
        if step_id == REMOVE:
            try:
                with self._clients.asking(f"inference component {request['name']}"):
                    self._client.delete_inference_component(InferenceComponentName=request["name"])
            except JobNotFound:  # what is not there is deleted
                pass
            return {"name": request["name"]}
        body = request["body"]
        name = str(body["InferenceComponentName"])
        try:
            with self._clients.asking(f"inference component {name}", missing=InvalidRequest):
                self._client.create_inference_component(**body)
        except (InvalidRequest, Conflict) as error:
            if not _TAKEN.search(str(error)):
                raise
            there = self._describe(name)
            if there is None or self._tags_of(there).get(TOKEN_TAG) != _token(body):
                raise
        return {"name": name}

    def find(self, step_id: str, request: Mapping[str, Any], now: datetime) -> Found:
        """What stands under the name. Raises Conflict if that is not ours."""
        name = str(request["name"] if step_id == REMOVE else request["body"]["InferenceComponentName"])
        there = self._describe(name)
        going = there is not None and there["InferenceComponentStatus"] == "Deleting"
        if step_id == REMOVE:
            return Done(outputs={"name": name}) if there is None or going else Absent()
        if there is None:
            return Absent()
        if going:
            return Unsettled(until=now + timedelta(seconds=GOING_POLL_S))
        if self._tags_of(there).get(TOKEN_TAG) != _token(request["body"]):
            raise Conflict(f"an inference component {name!r} stands, and cloudtune did not make it for this model",
                           hint="give another name, or take it down")  # fmt: skip
        return Done(outputs={"name": name})

    def probe(self, name: str) -> Probe:
        """Whether it answers."""
        there = self._describe(name)
        word = str((there or {}).get("InferenceComponentStatus") or "not there")
        state = "ready" if word == "InService" else "failed" if word == "Failed" or there is None else "pending"
        told = f"{word}: {there['FailureReason']}" if there and there.get("FailureReason") else word
        return Probe(state=state, outputs={"name": name}, message=told)  # type: ignore[arg-type]

    # -- reading ---------------------------------------------------------------------------------------------------

    def listed(self, scope: str) -> list[Deployment]:
        """This back end's; those that are being taken down do not stand."""
        found = []
        for entry in self._entries():
            tags = self._tags_of(entry)
            word = str(entry["InferenceComponentStatus"])
            if word == "Deleting" or tags.get(BACKEND_TAG) != NAME:
                continue
            name = str(entry["InferenceComponentName"])
            held = {"component": name, "endpoint": str(entry["EndpointName"]), "model": name}
            found.append(
                Deployment(
                    id=name, backend=NAME, scope=scope, model=tags.get(MODEL_TAG, ""),
                    state=_STATES.get(word, "creating"), native_state=word, created_at=when(entry.get("CreationTime")),
                    raw=plain(entry) | {"cloudtune": held},
                )
            )  # fmt: skip
        return found

    def _entries(self) -> Iterator[dict[str, Any]]:
        more: dict[str, str] = {}
        while True:
            with self._clients.asking("list of inference components"):
                page = self._client.list_inference_components(MaxResults=_PAGE, **more)
            yield from page["InferenceComponents"]
            if not page.get("NextToken"):
                return
            more = {"NextToken": page["NextToken"]}

    def _describe(self, name: str) -> dict[str, Any] | None:
        try:
            with self._clients.asking(f"inference component {name}"):
                return dict(self._client.describe_inference_component(InferenceComponentName=name))
        except JobNotFound:
            return None

    def _tags_of(self, entry: Mapping[str, Any]) -> dict[str, str]:
        """Ours are never changed: asked for once."""
        key = (str(entry["InferenceComponentArn"]), entry.get("CreationTime"))
        with self._lock:
            known = self._tags.get(key)
        if known is not None:
            return known
        try:
            with self._clients.asking(f"tags of {key[0]}"):
                page = self._client.list_tags(ResourceArn=key[0], MaxResults=_PAGE)
        except JobNotFound:
            return {}
        found = {tag["Key"]: tag["Value"] for tag in page.get("Tags", ())}
        with self._lock:
            self._tags[key] = found
        return found

    @property
    def _client(self) -> Any:
        return self._clients.client("sagemaker")


def _token(body: Mapping[str, Any]) -> str | None:
    return {tag["Key"]: tag["Value"] for tag in body["Tags"]}.get(TOKEN_TAG)


def _plan(purpose: Any, name: str, scope: str, token: str, steps: tuple[Step, ...]) -> Plan:
    return Plan(
        purpose=purpose, name=name, backend=NAME, scope=scope, key=token, attempt=1, token=token, spec={}, steps=steps,
        data=DataReport(splits={}, fingerprint=""), resolved=Resolved(scope=scope),
    )  # fmt: skip
