"""Preflight checks on AWS: identity, region, bucket, role, permissions, quotas. Read-only.

Checks that permissions do not allow are reported separately from failed ones. Permissions are checked with IAM's
simulator, which ignores bucket policies and the organization's policies
(docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html, botocore 1.44.5).
"""

from __future__ import annotations

import json
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from cloudtune.errors import (
    CloudtuneError,
    CredentialsError,
    InputError,
    InvalidRequest,
    JobNotFound,
    PermissionDenied,
)
from cloudtune.optional import Check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from cloudtune_providers.aws.clients import Clients
    from cloudtune_providers.aws.options import AwsOptions

Outcome = tuple[str, str]
"""Verdict and detail."""
Permission = tuple[str, str]
"""Action and resource."""
_PAGE = 100


class AccountChecks:
    """Checks that are shared by the back ends on AWS.

    ``service`` is the principal that assumes the role, e.g. ``sagemaker.amazonaws.com``; ``context`` has further
    context keys of its requests, for the conditions of policies.
    """

    def __init__(
        self,
        clients: Clients,
        options: AwsOptions,
        backend: str,
        service: str,
        context: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.clients = clients
        self.options = options
        self._backend = backend
        self._service = service
        self._carried = context
        self._who: dict[str, str] = {}

    def look(self, what: str, looking: Callable[[], Outcome], *, needed: bool = False, hinders: bool = True) -> Check:
        """One check.

        ``needed``: a missing permission for the check counts as ``denied``. ``hinders``: so does an invalid request.
        """
        try:
            verdict, detail = looking()
        except (PermissionDenied, CredentialsError) as error:
            verdict, detail = ("denied" if needed else "cannot_verify"), error.message
        except CloudtuneError as error:
            refused = hinders and isinstance(error, InvalidRequest | InputError)
            verdict, detail = ("denied" if refused else "cannot_verify"), error.message
        return Check(what=what, verdict=verdict, detail=detail)  # type: ignore[arg-type]

    @property
    def account(self) -> str:
        """The account. Empty until ``identity`` has run."""
        return self._who.get("account", "")

    # -- one by one ------------------------------------------------------------------------------------------------

    def identity(self) -> Outcome:
        """The identity of the credentials."""
        self._who = self.clients.identity()
        return "good", self._who["arn"]

    def region(self) -> Outcome:
        """The region of jobs."""
        return "good", self.clients.region

    def bucket(self) -> Outcome:
        """Whether the bucket exists, is accessible, and is in the region."""
        bucket = self.options.bucket
        if bucket is None:
            return "denied", f"none is set: backends.{self._backend}.bucket"
        try:
            with self.clients.asking(f"bucket {bucket}"):
                response = self.clients.client("s3").head_bucket(Bucket=bucket)
        except JobNotFound:
            return "denied", f"the bucket {bucket} does not exist, or belongs to another account"
        headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        place = response.get("BucketRegion") or headers.get("x-amz-bucket-region")
        if place and place != self.clients.region:
            return (
                "denied",
                f"{bucket} is in {place}, but jobs in {self.clients.region} can only read buckets in that region",
            )
        if not place:
            return "cannot_verify", f"{bucket} exists; its region is unknown"
        return "good", f"{bucket}, in {place}"

    def role(self) -> Outcome:
        """Whether the role exists, and trusts the service."""
        if self.options.role_arn is None:
            return "denied", f"none is set: backends.{self._backend}.role_arn"
        name = self.options.role_arn.rpartition("/")[2]
        try:
            with self.clients.asking(f"role {name}"):
                role = dict(self.clients.client("iam").get_role(RoleName=name)["Role"])
        except JobNotFound:
            return "denied", f"the role {self.options.role_arn} does not exist"
        document = role.get("AssumeRolePolicyDocument")
        if isinstance(document, str):
            document = json.loads(unquote(document))
        if not trusts(document or {}, self._service):
            hint = f"see `cloudtune init {self._backend}`"
            return "denied", f"its trust policy does not allow {self._service} to assume it: {hint}"
        return "good", str(role.get("Arn"))

    def role_may(self, permissions: Iterable[Permission]) -> Outcome:
        """Check the role's permissions."""
        if not (self.options.role_arn and self.options.bucket):
            return "cannot_verify", "set a role and a bucket to check permissions"
        return self._simulated(self.options.role_arn, permissions)

    def caller_may(self, permissions: Iterable[Permission]) -> Outcome:
        """Check the caller's permissions: the given actions, and passing the role."""
        source = role_of(self._who.get("arn", ""))
        if source is None:
            return "cannot_verify", f"the permissions of {self._who.get('arn')} cannot be simulated"
        passing = [("iam:PassRole", self.options.role_arn)] if self.options.role_arn else []
        return self._simulated(source, [*permissions, *passing])

    def objects(self, below: str = "") -> str:
        """The ARN of cloudtune's objects, for ``role_may``."""
        return f"arn:aws:s3:::{self.options.bucket}/{self.options.prefix}/{below}x"

    # -- reading ---------------------------------------------------------------------------------------------------

    def _simulated(self, source: str, permissions: Iterable[Permission]) -> Outcome:
        """The results of IAM's simulator, in one request for each resource."""
        by_resource: dict[str, list[str]] = {}
        for action, resource in permissions:
            by_resource.setdefault(resource, []).append(action)
        allowed: list[str] = []
        denied: list[str] = []
        unknown: list[str] = []
        for resource, actions in by_resource.items():
            for one in self._decisions(source, actions, resource):
                lacks = one["EvalDecision"] == "implicitDeny" and one.get("MissingContextValues")
                found = allowed if one["EvalDecision"] == "allowed" else unknown if lacks else denied
                found.append(str(one["EvalActionName"]))
        if denied:
            return "denied", f"not allowed: {', '.join(denied)}"
        if unknown:
            return "cannot_verify", f"allowed under conditions that the simulator cannot evaluate: {', '.join(unknown)}"
        return "good", ", ".join(allowed)

    def _decisions(self, source: str, actions: list[str], resource: str) -> list[dict[str, Any]]:
        with self.clients.asking(f"simulation of {', '.join(actions)}", missing=PermissionDenied):
            response = self.clients.client("iam").simulate_principal_policy(
                PolicySourceArn=source, ActionNames=actions, ResourceArns=[resource], ContextEntries=self._context()
            )
        return list(response["EvaluationResults"])

    def _context(self) -> list[dict[str, Any]]:
        """The context keys of the real requests, for the conditions of policies."""
        known = {
            "aws:RequestedRegion": self.clients.region,
            "aws:ResourceAccount": self.account,
            "iam:PassedToService": self._service,
            "s3:prefix": f"{self.options.prefix}/x",
            **self._carried,
        }
        return [
            {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}
            for key, value in known.items()
            if value
        ]

    def quotas(self, service: str, call: str = "list_service_quotas") -> Iterator[Mapping[str, Any]]:
        """Iterate over the quotas of a service: those set for the account, or with another ``call`` AWS's defaults."""
        more: dict[str, str] = {}
        while True:
            with self.clients.asking("list of quotas"):
                client = self.clients.client("service-quotas")
                page = getattr(client, call)(ServiceCode=service, MaxResults=_PAGE, **more)
            yield from page.get("Quotas", ())
            if not page.get("NextToken"):
                return
            more = {"NextToken": page["NextToken"]}


def trusts(document: dict[str, Any], service: str) -> bool:
    """Whether a trust policy allows the service to assume the role."""
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


def role_of(arn: str) -> str | None:
    """The ARN for the simulator: a user, or the role that a session has assumed."""
    assumed = re.fullmatch(r"arn:(aws[a-z-]*):sts::(\d{12}):assumed-role/([^/]+)/.+", arn)
    if assumed:
        return f"arn:{assumed.group(1)}:iam::{assumed.group(2)}:role/{assumed.group(3)}"
    return arn if re.fullmatch(r"arn:aws[a-z-]*:iam::\d{12}:(user|role)/.+", arn) else None
