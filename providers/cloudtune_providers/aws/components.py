"""Inference components: models, and adapters of a model, on one endpoint, each created and deleted separately.

A component is atomic by its name, and belongs to cloudtune if it has the submission's token as a tag. An adapter is a
component whose base is another component; it has no model. Shapes: botocore 1.44.5, service model ``sagemaker``.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cloudtune.backend import Absent, Done, Found, Probe, Unsettled
from cloudtune.errors import Conflict, InvalidRequest, JobNotFound
from cloudtune.state import Deployment
from cloudtune_providers.aws.labels import BACKEND_TAG, BASE_TAG, COPIES_TAG, MODEL_TAG, token_in
from cloudtune_providers.aws.names import TOKEN_TAG
from cloudtune_providers.aws.training_responses import plain, when

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from cloudtune_providers.aws.clients import Clients
    from cloudtune_providers.aws.labels import Labels

_STATES = {"InService": "ready", "Failed": "failed"}
_TAKEN = re.compile(r"already exist", re.IGNORECASE)
_PAGE = 100
GOING_POLL_S = 10.0


class Components:
    """The inference components of one back end, account and region. Thread-safe."""

    def __init__(self, clients: Clients, backend: str, labels: Labels) -> None:
        self._clients = clients
        self._backend = backend
        self._labels = labels

    @staticmethod
    def does(request: Mapping[str, Any]) -> bool:
        """Whether a step's request is for a component."""
        return str(request.get("call", "")).endswith("_inference_component")

    # -- steps -----------------------------------------------------------------------------------------------------

    def do(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Create or delete a component."""
        if "body" not in request:
            try:
                with self._clients.asking(f"inference component {request['name']}"):
                    self._client.delete_inference_component(InferenceComponentName=request["name"])
            except JobNotFound:  # a missing resource counts as deleted
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
            if there is None or self._tags_of(there).get(TOKEN_TAG) != token_in(body):
                raise
        return {"name": name}

    def find(self, request: Mapping[str, Any], now: datetime) -> Found:
        """Return the resource with that name. Raises Conflict if cloudtune did not create it."""
        is_removal = "body" not in request
        name = str(request["name"] if is_removal else request["body"]["InferenceComponentName"])
        there = self._describe(name)
        going = there is not None and there["InferenceComponentStatus"] == "Deleting"
        if is_removal:
            return Done(outputs={"name": name}) if there is None or going else Absent()
        if there is None:
            return Absent()
        if going:
            return Unsettled(until=now + timedelta(seconds=GOING_POLL_S))
        if self._tags_of(there).get(TOKEN_TAG) != token_in(request["body"]):
            raise Conflict(f"an inference component {name!r} exists, but cloudtune did not create it for this model",
                           hint="choose another name, or delete it")  # fmt: skip
        return Done(outputs={"name": name})

    def probe(self, request: Mapping[str, Any]) -> Probe:
        """Return whether it is ready or, for a deletion, gone."""
        name = str(request["name"])
        there = self._describe(name)
        word = str((there or {}).get("InferenceComponentStatus") or "not found")
        text = f"{word}: {there['FailureReason']}" if there and there.get("FailureReason") else word
        if request.get("until") == "gone":
            state = "ready" if there is None else "failed" if word == "Failed" else "pending"
        else:
            state = "ready" if word == "InService" else "failed" if word == "Failed" or there is None else "pending"
        return Probe(state=state, outputs={"name": name}, message=text)  # type: ignore[arg-type]

    # -- reading ---------------------------------------------------------------------------------------------------

    def on(self, endpoint: str) -> list[str]:
        """Return the names of all components on an endpoint."""
        entries = self._entries(EndpointNameEquals=endpoint)
        return [str(one["InferenceComponentName"]) for one in entries if one["InferenceComponentStatus"] != "Deleting"]

    def listed(self, scope: str) -> list[Deployment]:
        """List this back end's components, except those being deleted."""
        found = []
        for entry in self._entries():
            tags = self._tags_of(entry)
            word = str(entry["InferenceComponentStatus"])
            if word == "Deleting" or tags.get(BACKEND_TAG) != self._backend:
                continue
            name, base = str(entry["InferenceComponentName"]), tags.get(BASE_TAG)
            held = {"component": name, "endpoint": str(entry["EndpointName"]), "token": tags.get(TOKEN_TAG)}
            held |= {"base": base} if base else {"model": name}
            if COPIES_TAG in tags:
                held["copies"] = tags[COPIES_TAG]
            found.append(
                Deployment(
                    id=name, backend=self._backend, scope=scope, model=tags.get(MODEL_TAG, ""),
                    state=_STATES.get(word, "creating"), native_state=word, created_at=when(entry.get("CreationTime")),
                    # Adapters use the resources of their base.
                    hourly_cost_usd=0.0 if base else None, raw=plain(entry) | {"cloudtune": held},
                )
            )  # fmt: skip
        return found

    def _entries(self, **filters: Any) -> Iterator[dict[str, Any]]:
        more: dict[str, str] = {}
        while True:
            with self._clients.asking("list of inference components"):
                page = self._client.list_inference_components(MaxResults=_PAGE, **filters, **more)
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
        return self._labels.of(str(entry["InferenceComponentArn"]), entry.get("CreationTime"))

    @property
    def _client(self) -> Any:
        return self._clients.client("sagemaker")
