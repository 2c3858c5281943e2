"""What can be looked at before a job: identity, bucket, role, model, quota. Reads only.

What may not be looked at is told apart from what is refused: nobody knows whether it would work.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from cloudtune.backend import Check
from cloudtune.errors import (
    CloudtuneError,
    CredentialsError,
    InvalidRequest,
    JobNotFound,
    PermissionDenied,
)
from cloudtune_providers.bedrock.answers import NAME
from cloudtune_providers.bedrock.policies import WRITES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloudtune.spec import JobSpec
    from cloudtune_providers.aws.clients import Clients
    from cloudtune_providers.bedrock.open_weight import OpenWeight
    from cloudtune_providers.bedrock.options import BedrockOptions

_TYPES = {"sft": "FINE_TUNING", "distill": "DISTILLATION"}
"""What GetFoundationModel knows; it says nothing of reinforcement."""
_QUOTA = re.compile(r"customization jobs", re.IGNORECASE)


class Preflight:
    """The checks of one account and region."""

    def __init__(self, clients: Clients, options: BedrockOptions) -> None:
        self._clients = clients
        self._options = options

    def checks(self, spec: JobSpec | None, open_weight: OpenWeight | None = None) -> Iterator[Check]:
        """Each thing that was looked at. ``open_weight`` is the API of a job that goes by that one."""
        who: list[dict[str, str]] = []
        yield self._look("identity", lambda: self._identity(who))
        if not who:
            return
        yield self._look("region", lambda: ("good", self._clients.region))
        if open_weight is not None:
            yield self._look("API key", open_weight.look)
            return
        yield self._look("bucket", self._bucket)
        yield self._look("role", self._role)
        yield self._look("role's policy", self._role_policy)
        yield self._look("your permissions", lambda: self._caller(who[0]["arn"]))
        model = spec.model_for(NAME) if spec is not None else None
        if spec is not None and model:
            yield self._look("model", lambda: self._model(model, spec.method.name))
        yield self._look("quota", self._quota)

    def _look(self, what: str, look: Callable[[], tuple[str, str]]) -> Check:
        try:
            verdict, detail = look()
        except (PermissionDenied, CredentialsError) as error:
            verdict = "denied" if what in ("identity", "bucket", "model", "API key") else "cannot_verify"
            detail = error.message
        except CloudtuneError as error:
            # that a quota cannot be read hinders no job
            refused = isinstance(error, InvalidRequest) and what != "quota"
            verdict, detail = ("denied" if refused else "cannot_verify"), error.message
        return Check(what=what, verdict=verdict, detail=detail)  # type: ignore[arg-type]

    # -- one by one ------------------------------------------------------------------------------------------------

    def _identity(self, who: list[dict[str, str]]) -> tuple[str, str]:
        who.append(self._clients.identity())
        return "good", who[0]["arn"]

    def _bucket(self) -> tuple[str, str]:
        bucket = self._options.bucket
        if bucket is None:
            return "denied", "none is set: backends.bedrock.bucket"
        try:
            with self._clients.asking(f"bucket {bucket}"):
                told = self._clients.client("s3").head_bucket(Bucket=bucket)
        except JobNotFound:
            return "denied", f"there is no bucket {bucket}, or it is another account's"
        headers = told.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        place = told.get("BucketRegion") or headers.get("x-amz-bucket-region")
        if place and place != self._clients.region:
            return "denied", f"{bucket} lies in {place}, and jobs in {self._clients.region} read only buckets there"
        if not place:
            return "cannot_verify", f"{bucket} is there; its region is not told"
        return "good", f"{bucket}, in {place}"

    def _role(self) -> tuple[str, str]:
        """Whether the role is there, and lets Bedrock take it on."""
        if self._options.role_arn is None:
            return "denied", "none is set: backends.bedrock.role_arn"
        try:
            role = self._role_document()
        except JobNotFound:
            return "denied", f"there is no role {self._options.role_arn}"
        document = role.get("AssumeRolePolicyDocument")
        if isinstance(document, str):
            document = json.loads(unquote(document))
        if not _trusts(document or {}, "bedrock.amazonaws.com"):
            return "denied", "it does not let bedrock.amazonaws.com take it on: see `cloudtune init bedrock`"
        return "good", str(role.get("Arn"))

    def _role_document(self) -> dict[str, Any]:
        name = str(self._options.role_arn).rpartition("/")[2]
        with self._clients.asking(f"role {name}"):
            return dict(self._clients.client("iam").get_role(RoleName=name)["Role"])

    def _role_policy(self) -> tuple[str, str]:
        bucket, prefix = self._options.bucket, self._options.prefix
        if not (self._options.role_arn and bucket):
            return "cannot_verify", "without a role and a bucket there is nothing to look at"
        arn = f"arn:aws:s3:::{bucket}"
        asked = [(action, arn if action == "s3:ListBucket" else f"{arn}/{prefix}/output/x") for action in WRITES]
        return self._simulated(self._options.role_arn, asked)

    def _caller(self, arn: str) -> tuple[str, str]:
        source = _role_of(arn)
        if source is None:
            return "cannot_verify", f"{arn} cannot be simulated"
        asked = [("bedrock:CreateModelCustomizationJob", "*"), ("bedrock:GetModelCustomizationJob", "*")]
        if self._options.role_arn:
            asked.append(("iam:PassRole", self._options.role_arn))
        return self._simulated(source, asked)

    def _simulated(self, source: str, asked: list[tuple[str, str]]) -> tuple[str, str]:
        """What IAM's simulator says; it knows neither bucket policies nor an organisation's."""
        denied, iam = [], self._clients.client("iam")
        for action, resource in asked:
            with self._clients.asking(f"simulation of {action}", missing=PermissionDenied):
                told = iam.simulate_principal_policy(
                    PolicySourceArn=source, ActionNames=[action], ResourceArns=[resource]
                )
            denied += [one["EvalActionName"] for one in told["EvaluationResults"] if one["EvalDecision"] != "allowed"]
        if denied:
            return "denied", f"not allowed: {', '.join(denied)}"
        return "good", ", ".join(action for action, _ in asked)

    def _model(self, model: str, method: str) -> tuple[str, str]:
        if ":custom-model/" in model:
            with self._clients.asking(f"model {model}"):
                told = self._clients.client(NAME).get_custom_model(modelIdentifier=model)
            return "good", f"{told['modelName']}, a custom model"
        try:
            with self._clients.asking(f"model {model}"):
                told = self._clients.client(NAME).get_foundation_model(modelIdentifier=model)["modelDetails"]
        except JobNotFound:
            return "denied", f"there is no {model} in {self._clients.region}"
        status = (told.get("modelLifecycle") or {}).get("status") or "ACTIVE"
        if status != "ACTIVE":
            return "denied", f"{model} is {status}: it takes no new jobs"
        offered, wanted = told.get("customizationsSupported") or [], _TYPES.get(method)
        if wanted and wanted not in offered:
            return "denied", f"{model} does not take {wanted} here, but: {', '.join(offered) or 'nothing'}"
        return ("good", f"{model}, active") if wanted else ("cannot_verify", f"active; {method} is not told of there")

    def _quota(self) -> tuple[str, str]:
        """Jobs that may run at once, and those that do."""
        with self._clients.asking("list of quotas"):
            listed = self._clients.client("service-quotas").list_service_quotas(ServiceCode=NAME, MaxResults=100)
        found = [quota for quota in listed.get("Quotas", ()) if _QUOTA.search(str(quota.get("QuotaName")))]
        with self._clients.asking("list of jobs"):
            going = self._clients.client(NAME).list_model_customization_jobs(statusEquals="InProgress", maxResults=1000)
        count = len(going.get("modelCustomizationJobSummaries", ()))
        if not found:
            return "cannot_verify", f"{count} jobs run; the quota is not listed"
        least = min(float(quota["Value"]) for quota in found)
        detail = f"{count} jobs run, and {least:g} may"
        return ("good" if count < least else "warning"), detail


def _trusts(document: dict[str, Any], service: str) -> bool:
    statements = document.get("Statement") or []
    for one in [statements] if isinstance(statements, dict) else statements:
        principal = (one.get("Principal") or {}) if isinstance(one.get("Principal"), dict) else {}
        services, actions = principal.get("Service") or [], one.get("Action") or []
        if (
            one.get("Effect") == "Allow"
            and service in ([services] if isinstance(services, str) else services)
            and {"sts:AssumeRole", "sts:*", "*"} & set([actions] if isinstance(actions, str) else actions)
        ):
            return True
    return False


def _role_of(arn: str) -> str | None:
    """Whose policies the simulator can look at: a user's, or those of the role that a session took on."""
    assumed = re.fullmatch(r"arn:(aws[a-z-]*):sts::(\d{12}):assumed-role/([^/]+)/.+", arn)
    if assumed:
        return f"arn:{assumed.group(1)}:iam::{assumed.group(2)}:role/{assumed.group(3)}"
    return arn if re.fullmatch(r"arn:aws[a-z-]*:iam::\d{12}:(user|role)/.+", arn) else None
