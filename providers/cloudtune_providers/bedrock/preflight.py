"""Preflight checks of a Bedrock job: the account's checks, the model, and the job quota. Read-only."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloudtune.errors import JobNotFound
from cloudtune_providers.aws.preflight import AccountChecks
from cloudtune_providers.bedrock.policies import WRITES
from cloudtune_providers.bedrock.responses import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.optional import Check
    from cloudtune.spec import JobSpec
    from cloudtune_providers.aws.clients import Clients
    from cloudtune_providers.aws.preflight import Outcome
    from cloudtune_providers.bedrock.open_weight import OpenWeight
    from cloudtune_providers.bedrock.options import BedrockOptions

_TYPES = {"sft": "FINE_TUNING", "distill": "DISTILLATION"}
"""The methods that GetFoundationModel reports; it does not report reinforcement."""
_QUOTA = re.compile(r"customization jobs", re.IGNORECASE)
_CALLS = ("bedrock:CreateModelCustomizationJob", "bedrock:GetModelCustomizationJob")


class Preflight:
    """The checks of one account and region."""

    def __init__(self, clients: Clients, options: BedrockOptions) -> None:
        self._clients = clients
        self._options = options
        self._account = AccountChecks(clients, options, NAME, "bedrock.amazonaws.com")

    def checks(self, spec: JobSpec | None, open_weight: OpenWeight | None = None) -> Iterator[Check]:
        """Yield the checks. ``open_weight`` is the API of a job that uses it."""
        account = self._account
        yield account.look("identity", account.identity, needed=True)
        if not account.account:
            return
        yield account.look("region", account.region)
        if open_weight is not None:
            yield account.look("API key", open_weight.look, needed=True)
            return
        yield account.look("bucket", account.bucket, needed=True)
        yield account.look("role", account.role)
        yield account.look("role's policy", self._role_policy)
        yield account.look("your permissions", lambda: account.caller_may((call, "*") for call in _CALLS))
        model = spec.model_for(NAME) if spec is not None else None
        if spec is not None and model:
            yield account.look("model", lambda: self._model(model, spec.method.name), needed=True)
        yield account.look("quota", self._quota, hinders=False)

    def _role_policy(self) -> Outcome:
        bucket, objects = f"arn:aws:s3:::{self._options.bucket}", self._account.objects("output/")
        return self._account.role_may((action, bucket if action == "s3:ListBucket" else objects) for action in WRITES)

    def _model(self, model: str, method: str) -> Outcome:
        if ":custom-model/" in model:
            with self._clients.asking(f"model {model}"):
                response = self._clients.client(NAME).get_custom_model(modelIdentifier=model)
            return "good", f"{response['modelName']}, a custom model"
        try:
            with self._clients.asking(f"model {model}"):
                response = self._clients.client(NAME).get_foundation_model(modelIdentifier=model)["modelDetails"]
        except JobNotFound:
            return "denied", f"{model} does not exist in {self._clients.region}"
        status = (response.get("modelLifecycle") or {}).get("status") or "ACTIVE"
        if status != "ACTIVE":
            return "denied", f"{model} is {status} and accepts no new jobs"
        offered, wanted = response.get("customizationsSupported") or [], _TYPES.get(method)
        if wanted and wanted not in offered:
            return "denied", f"{model} does not support {wanted} here, only: {', '.join(offered) or 'nothing'}"
        return (
            ("good", f"{model}, active")
            if wanted
            else ("cannot_verify", f"active; support for {method} is not reported")
        )

    def _quota(self) -> Outcome:
        """The limit of concurrent jobs, and the number of active ones."""
        found = [quota for quota in self._account.quotas(NAME) if _QUOTA.search(str(quota.get("QuotaName")))]
        with self._clients.asking("list of jobs"):
            going = self._clients.client(NAME).list_model_customization_jobs(statusEquals="InProgress", maxResults=1000)
        count = len(going.get("modelCustomizationJobSummaries", ()))
        if not found:
            return "cannot_verify", f"{count} jobs running; the quota is not listed"
        least = min(float(quota["Value"]) for quota in found)
        detail = f"{count} of at most {least:g} jobs running"
        return ("good" if count < least else "warning"), detail
