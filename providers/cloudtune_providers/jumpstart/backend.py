"""The JumpStart back end: training jobs with AWS's own scripts, configured from the hub's documents."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cloudtune.backend import Absent, Capabilities, Done, Found, Intent, Journal, Probe
from cloudtune.clock import Clock, SystemClock
from cloudtune.errors import CloudtuneError, Conflict, InvalidRequest
from cloudtune.optional import Check, GenerateOptions
from cloudtune.plan import Plan, Resolved
from cloudtune.redaction.redactor import setting_secrets
from cloudtune.registry import describe, not_installed
from cloudtune.state import TunedModel
from cloudtune_providers.aws import hourly
from cloudtune_providers.aws.clients import Clients
from cloudtune_providers.aws.hosts import Hosts
from cloudtune_providers.aws.s3 import Objects
from cloudtune_providers.aws.training_jobs import TrainingJobs
from cloudtune_providers.aws.training_responses import plain, to_snapshot
from cloudtune_providers.jumpstart import (
    artifact,
    layouts,
    policies,
    results,
    translate,
)
from cloudtune_providers.jumpstart.hosting import Hosting
from cloudtune_providers.jumpstart.hub import Hub
from cloudtune_providers.jumpstart.options import JumpStartOptions, JumpStartOverrides
from cloudtune_providers.jumpstart.preflight import Preflight

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pydantic import BaseModel

    from cloudtune.cost import CostEstimate, Usage
    from cloudtune.data.checks.targets import Target
    from cloudtune.errors import Problem
    from cloudtune.optional import Prompt
    from cloudtune.plan import PlanRequest, Step
    from cloudtune.spec import JobSpec
    from cloudtune.state import Checkpoint, Deployment, Event, Generation, JobRef, JobSnapshot, Metric
    from cloudtune_providers.aws.clients import ClientFactory


class JumpStartBackend:
    """Implements `Backend`, and all of `cloudtune.optional` except `Importer`, `PerJobCapabilities` and `Pausable`.

    ``factory`` can create botocore's clients, by service name.
    """

    name: ClassVar[str] = layouts.NAME
    Options: ClassVar[type[BaseModel]] = JumpStartOptions
    Overrides: ClassVar[type[BaseModel]] = JumpStartOverrides

    def __init__(
        self,
        options: JumpStartOptions | None = None,
        *,
        factory: ClientFactory | None = None,
        clock: Clock | None = None,
    ) -> None:
        info = describe(self.name)
        if info.missing:
            raise not_installed(info, info.missing[0])
        self._options = options or JumpStartOptions()
        self._clock = clock or SystemClock()
        self._clients = Clients(self._options, factory)
        self._hub = Hub(self._clients, self._options.hub, self._clock, self._options.document_age)
        self._jobs = TrainingJobs(self._clients, self.name, self._clients.scope)
        self._hosts = Hosts(self._clients, self.name)
        self._hosting = Hosting(self._clients, self._options, self._hub, self._hosts)
        self._capabilities = translate.capabilities()

    def __repr__(self) -> str:
        return f"JumpStartBackend(region={self._options.region!r}, bucket={self._options.bucket!r})"

    def secrets(self) -> tuple[str, ...]:
        """See `HoldsSecrets`."""
        return (*setting_secrets(self._options), *self._clients.secrets())

    def close(self) -> None:
        """See `Closeable`."""
        self._clients.close()

    @property
    def capabilities(self) -> Capabilities:
        """See `Backend`."""
        return self._capabilities

    # -- planning --------------------------------------------------------------------------------------------------

    def check(self, spec: JobSpec) -> Sequence[Problem]:
        """See `Backend`. ``plan`` checks the model's document."""
        return list(translate.check(spec, self._options))

    def resolve(self, spec: JobSpec) -> Resolved:
        """See `Backend`. Reads the model's document in the hub, and the account's id."""
        scope = self._clients.scope()
        given = spec.overrides.get(self.name, {})
        facts = self._hub.facts(str(spec.model_for(self.name)), given.get("model_version"))
        return Resolved(scope=scope, facts=facts, at=datetime.fromisoformat(facts["read_at"]))

    def plan(self, request: PlanRequest) -> Plan:
        """See `Backend`."""
        return translate.plan(request, self._options)

    @classmethod
    def target_for(cls, model: str | None, method: str | None = None) -> Target:
        """See `DataRules`. Dialogs, which most models of the hub support."""
        return layouts.TARGETS["text" if method == "cpt" else "chat"]

    def data_target(self, spec: JobSpec) -> Target:
        """See `DataRules`. By the model's document, which ``resolve`` has just read."""
        given = spec.overrides.get(self.name, {})
        known = self._hub.known(str(spec.model_for(self.name)), given.get("model_version"), given)
        return layouts.TARGETS[layouts.layout_of(spec, known)]

    # -- preparation -----------------------------------------------------------------------------------------------

    def estimate(self, request: PlanRequest) -> CostEstimate:
        """See `Priced`."""
        return translate.estimate(request, self._options)

    def usage(self, job: JobSnapshot) -> Usage:
        """See `Priced`."""
        return hourly.usage(job)

    def preflight(self, spec: JobSpec | None = None, plan: Plan | None = None) -> Iterator[Check]:
        """See `cloudtune.backend.Preflight`."""
        return Preflight(self._clients, self._options, self._hub).checks(spec, plan)

    def documents(self) -> Mapping[str, str]:
        """See `cloudtune.backend.SetupDocuments`. Without credentials the account's number is a placeholder."""
        account = region = None
        with suppress(CloudtuneError):
            region, account = self._clients.region, self._clients.account()
        return policies.documents(self._options, account=account, region=region)

    # -- steps -----------------------------------------------------------------------------------------------------

    def do(self, step: Step, journal: Journal) -> dict[str, Any]:
        """See `Backend`."""
        request = step.request
        if step.id == "create":
            return self._jobs.create(request["body"])
        if self._hosts.does(request):
            return self._hosts.do(step.id, request)
        objects = self._objects(request)
        if "content" in request:
            objects.write(request["key"], str(request["content"]).encode(), request["sha256"])
            return _written(objects, request)
        return objects.put(request["key"], Path(request["path"]), request["sha256"], journal)

    def find(self, step: Step, intent: Intent) -> Found:
        """See `Backend`."""
        request = step.request
        if step.id == "create":
            return self._jobs.find(request["body"])
        if self._hosts.does(request):
            return self._hosts.find(step.id, request, self._clock.now())
        found = self._objects(request).find(request["key"], request["sha256"], request["bytes"])
        return found if isinstance(found, Done) else Absent()

    def probe(self, step: Step) -> Probe:
        """See `Backend`. A folder of rows is ready when it has exactly the expected objects; all are trained on."""
        request = step.request
        if self._hosts.does(request):
            return self._hosts.probe(request)
        there = [str(entry["Key"]) for entry in self._objects(request).list(request["prefix"])]
        strange = sorted(set(there) - set(request["keys"]))
        if strange:
            raise Conflict(
                f"{strange[0]} is in s3://{request['bucket']}/{request['prefix']} and would be trained on",
                hint="delete it, or set another prefix",
            )
        is_there = set(request["keys"]) <= set(there)
        return Probe(state="ready" if is_there else "pending", message="not all rows are listed yet")

    def _objects(self, request: Mapping[str, Any]) -> Objects:
        return Objects(self._clients, request["bucket"], self._options.kms_key)

    # -- reading ---------------------------------------------------------------------------------------------------

    def get(self, ref: JobRef) -> JobSnapshot:
        """See `Backend`."""
        return self._jobs.get(ref)

    def get_many(self, refs: Sequence[JobRef]) -> Mapping[JobRef, JobSnapshot]:
        """See `BatchStatus`."""
        return self._jobs.get_many(refs)

    def list(self, limit: int | None = None) -> Iterable[JobSnapshot]:
        """See `Backend`. Every training job of account and region."""
        return self._jobs.listed(limit)

    def events(self, ref: JobRef, after: str | None = None) -> Sequence[Event]:
        """See `Backend`. Transitions, and the lines of the log."""
        return self._jobs.events(ref, after)

    def metrics(self, ref: JobRef, after: str | None = None) -> Sequence[Metric]:
        """See `Backend`. From the log; the scripts do not log the step: their reports are counted."""
        return self._jobs.metrics(ref, after, results.figures)

    def checkpoints(self, ref: JobRef) -> Sequence[Checkpoint]:
        """See `Backend`. There are none."""
        return ()

    def model(self, ref: JobRef) -> TunedModel:
        """See `Backend`. For a job that was stopped by a limit or a user, the uploaded result."""
        job = self._jobs.describe(self._jobs.name_of(ref))
        snapshot = to_snapshot(job, self.name, ref.scope)
        uri = (job.get("ModelArtifacts") or {}).get("S3ModelArtifacts")
        if not snapshot.has_ended or not uri:
            raise InvalidRequest(f"{ref} has no model; its state is {job['TrainingJobStatus']}")
        return TunedModel(
            id=ref.id, base=snapshot.model, backend=self.name, scope=ref.scope, ref=ref, call="api", needs_deploy=True,
            adapter="lora", uri=str(uri), files=(str(uri),), raw=plain(job),
        )  # fmt: skip

    def export(self, model: TunedModel, to: Path, *, merged: bool = False) -> Sequence[Path]:
        """See `Exporter`. Extracts the job's model.tar.gz: an adapter, or with ``merge_weights`` the whole model."""
        return artifact.export(self._clients, model, to, merged=merged)

    # -- control ---------------------------------------------------------------------------------------------------

    def cancel(self, ref: JobRef) -> None:
        """See `Backend`."""
        self._jobs.cancel(ref)

    def delete(self, ref: JobRef) -> None:
        """Delete the record and artifacts of a job that has ended. Rows are kept, because other jobs may use them."""
        if ref.scope != self._clients.scope():
            return
        job = self._jobs.delete(ref)
        if job is None:
            return
        bucket, _, folder = str(job["OutputDataConfig"]["S3OutputPath"]).removeprefix("s3://").partition("/")
        Objects(self._clients, bucket).delete(f"{folder.rstrip('/')}/{ref.id}/")

    # -- inference -------------------------------------------------------------------------------------------------

    def plan_deploy(self, model: TunedModel, **options: Any) -> Plan:
        """See `Host`. Options: those of `JumpStartDeployment`."""
        return self._hosting.plan_deploy(model, options)

    def plan_remove(self, deployment: Deployment) -> Plan:
        """See `Host`."""
        return self._hosting.plan_remove(deployment)

    def deployments(self) -> Iterable[Deployment]:
        """See `Host`."""
        return self._hosts.listed(self._clients.scope(), hourly.hosting_prices(self._clients.region))

    def scope(self) -> str:
        """See `Generator`."""
        return self._clients.scope()

    def generate(
        self, model: TunedModel, prompts: Sequence[Prompt], options: GenerateOptions | None = None
    ) -> Iterator[Generation]:
        """See `Generator`. Calls the model's endpoint."""
        return self._hosting.generate(model, prompts, options or GenerateOptions())


def _written(objects: Objects, request: Mapping[str, Any]) -> dict[str, Any]:
    key, content = str(request["key"]), str(request["content"]).encode()
    return {"key": key, "url": objects.url(key), "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
