"""Registration of models that SageMaker trained and AWS stores, as custom models. Each is represented as a job.

The model's own state is the job's: there is no other record, and none remains once the model is deleted.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.backend import Absent, Capabilities, Done, Found
from cloudtune.errors import Conflict, InvalidRequest, JobNotFound, PermissionDenied, UnsupportedError
from cloudtune_providers.aws.names import TOKEN_TAG
from cloudtune_providers.bedrock import calls, responses
from cloudtune_providers.bedrock.responses import NAME, REGISTRATION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloudtune.state import JobRef, JobSnapshot, Metric, TunedModel
    from cloudtune_providers.aws.clients import Clients

_log = logging.getLogger(__name__)


def capabilities_of(usual: Capabilities) -> Capabilities:
    """The capabilities for a registration: deleting the model leaves no record."""
    reasons = {verb: why for verb, why in usual.reasons.items() if verb != "verb:delete"}
    return msgspec.structs.replace(usual, supports=usual.supports | {"verb:delete"}, reasons=reasons)


class Registrations:
    """The registered models of one account and region."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    @property
    def _bedrock(self) -> Any:
        return self._clients.client(NAME)

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send the create request. The name may be taken by the model that an earlier request created."""

        def send() -> dict[str, Any]:
            response = self._bedrock.create_custom_model(**body)
            return calls.made(self._clients, REGISTRATION, body["modelName"], response["modelArn"])

        return calls.create_once(self._clients, "register", send, lambda: self.find(body))

    def find(self, body: Mapping[str, Any]) -> Found:
        """Return the model with that name. Raises Conflict if its token tag differs (Get returns no token)."""
        name = str(body["modelName"])
        try:
            model = self.read(name)
        except JobNotFound:
            return Absent()
        token = self.tags(str(model["modelArn"])).get(TOKEN_TAG, body["clientRequestToken"])
        if not responses.is_registered(model) or token != body["clientRequestToken"]:
            raise Conflict(
                f"a custom model named {name!r} exists, but this import did not create it", hint="use another --name"
            )
        return Done(outputs=calls.made(self._clients, REGISTRATION, name, model["modelArn"]))

    def tags(self, arn: str) -> dict[str, str]:
        """The model's tags; none without permission to read them: the name also contains a part of the token."""
        try:
            with self._clients.asking(f"tags of {arn}"):
                response = self._bedrock.list_tags_for_resource(resourceARN=arn)
        except PermissionDenied as error:
            _log.warning("cannot read the tags of %s: %s", arn, type(error).__name__)
            return {}
        return {str(tag["key"]): str(tag["value"]) for tag in response.get("tags", ())}

    def read(self, name: str) -> dict[str, Any]:
        """Return the response of Get for a registered model."""
        with self._clients.asking(f"model {REGISTRATION}{name}"):
            return dict(self._bedrock.get_custom_model(modelIdentifier=name))

    def get(self, name: str) -> JobSnapshot:
        """The registration's current state. Raises JobNotFound for a custom model of a Bedrock job."""
        model = self.read(name)
        if not responses.is_registered(model):
            raise JobNotFound(f"model {REGISTRATION}{name}: created by a customization job, not by a registration")
        return responses.to_registration_snapshot(model, self._clients.scope())

    def pages(self, **filters: Any) -> Iterator[list[JobSnapshot]]:
        """Registered models, newest first; the list has no filter for them."""
        scope = self._clients.scope()
        for page in calls.newest(self._clients, "list_custom_models", "modelSummaries", filters):
            yield [responses.to_registration_snapshot(entry, scope) for entry in page if responses.is_registered(entry)]

    def metrics(self, name: str) -> list[Metric]:
        """None: it was trained elsewhere. Raises JobNotFound."""
        self.get(name)
        return []

    def model(self, ref: JobRef, name: str) -> TunedModel:
        """The registered model. Raises InvalidRequest while it cannot be used."""
        entry = self.read(name)
        model = responses.to_registered_model(entry, self.tags(str(entry["modelArn"])), ref, self._clients.scope())
        if model is None:
            raise InvalidRequest(f"{ref} has no model; its state is {entry.get('modelStatus')}")
        return model

    def stop(self, name: str) -> None:
        """Raises an error for an active registration, which Bedrock cannot stop. No effect on an ended one."""
        if not self.get(name).has_ended:
            raise UnsupportedError(f"model {name}: Bedrock cannot stop a registration; it ends by itself")

    def clear(self, ref: JobRef, name: str) -> None:
        """Delete the model, which is the only record of the registration; SageMaker's own files are kept."""
        try:
            snapshot = self.get(name)
        except JobNotFound:
            return
        if not snapshot.has_ended:
            raise InvalidRequest(f"{ref} is {snapshot.native_state}", hint="wait until it ends")
        calls.delete_model(self._clients, str(snapshot.raw["modelArn"]))
