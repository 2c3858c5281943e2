"""Preflight checks of a JumpStart job: the account's checks, the model's document and terms, quotas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune_providers.aws.training_preflight import TrainingChecks, Wanted, wanted_by
from cloudtune_providers.jumpstart.document import Document
from cloudtune_providers.jumpstart.layouts import NAME
from cloudtune_providers.jumpstart.options import PUBLIC_HUB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.optional import Check
    from cloudtune.plan import Plan
    from cloudtune.spec import JobSpec
    from cloudtune_providers.aws.clients import Clients
    from cloudtune_providers.aws.preflight import Outcome, Permission
    from cloudtune_providers.jumpstart.hub import Hub
    from cloudtune_providers.jumpstart.options import JumpStartOptions


class Preflight:
    """The checks of one account and region."""

    def __init__(self, clients: Clients, options: JumpStartOptions, hub: Hub) -> None:
        self._clients = clients
        self._options = options
        self._hub = hub
        self._training = TrainingChecks(clients, options, NAME)

    def checks(self, spec: JobSpec | None, plan: Plan | None) -> Iterator[Check]:
        """Yield the checks, for the values in the plan or the settings."""
        checks = self._training
        yield from checks.account_checks(self._also())
        if not checks.account:
            return
        if spec is None:
            yield checks.look("hub", self._hub_there, needed=True)
        else:
            yield checks.look("model", lambda: self._document(spec), needed=True)
            yield checks.look("terms", lambda: self._terms(spec), needed=True)
        kind = self._options.instance_type
        wanted = wanted_by(plan) if plan else Wanted(kind, spot=self._options.spot) if kind else None
        yield checks.quota(wanted)
        yield from checks.price(plan, wanted)

    def _also(self) -> Iterator[Permission]:
        owner = "aws" if self._options.hub == PUBLIC_HUB else self._training.account
        arn = f"arn:aws:sagemaker:{self._clients.region}:{owner}:hub-content/{self._options.hub}/Model/x"
        yield "sagemaker:DescribeHubContent", arn

    def _hub_there(self) -> Outcome:
        count = len(self._hub.models())
        if count:
            return "good", f"{self._options.hub}; {count} models in the public list"
        return "cannot_verify", f"{self._options.hub}: cannot read the public list of models"

    def _facts(self, spec: JobSpec) -> dict[str, object]:
        version = spec.overrides.get(NAME, {}).get("model_version")
        return self._hub.facts(str(spec.model_for(NAME)), version)

    def _document(self, spec: JobSpec) -> Outcome:
        facts = self._facts(spec)
        document, name = Document(facts["document"]), f"{facts['model']} {facts['version']}"  # type: ignore[arg-type]
        if not document.trains:
            return "denied", f"{name} is not trainable in JumpStart, according to its document"
        return "good", f"{name}, read from {self._options.hub}"

    def _terms(self, spec: JobSpec) -> Outcome:
        facts = self._facts(spec)
        document = Document(facts["document"])  # type: ignore[arg-type]
        if not document.is_gated:
            return "good", "none to accept"
        said = spec.overrides.get(NAME, {}).get("accept_eula")
        if said or (said is None and facts["model"] in self._options.accept_eula):
            return "good", f"accepted: {document.terms}"
        return "denied", f"read {document.terms}, and set overrides.{NAME}.accept_eula: true"
