"""The SageMaker back end. It never polls or retries."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from cloudtune.backend import Absent, Capabilities, Found, Intent, Journal, Probe
from cloudtune.clock import Clock, SystemClock
from cloudtune.errors import CloudtuneError, InvalidRequest, UnsupportedError
from cloudtune.optional import Check, GenerateOptions
from cloudtune.plan import Plan, Resolved
from cloudtune.redaction.redactor import setting_secrets
from cloudtune.registry import describe, not_installed
from cloudtune.state import JobRef, JobState, TunedModel
from cloudtune_providers.aws import hourly, rates_reader
from cloudtune_providers.aws.clients import Clients
from cloudtune_providers.aws.hosts import Hosts
from cloudtune_providers.aws.nova_rules import MIXED_MEDIA, nova_rules
from cloudtune_providers.aws.training_jobs import TrainingJobs
from cloudtune_providers.aws.training_responses import MODEL_VARIABLE, to_snapshot
from cloudtune_providers.sagemaker import (
    capabilities,
    images,
    log_lines,
    models,
    policies,
    recipes,
    serverless,
    snapshots,
    translate,
)
from cloudtune_providers.sagemaker.artifacts import Artifacts
from cloudtune_providers.sagemaker.hosting import Hosting
from cloudtune_providers.sagemaker.local_jobs import LocalJobs
from cloudtune_providers.sagemaker.mlflow import Curves
from cloudtune_providers.sagemaker.options import SageMakerOptions, SageMakerOverrides
from cloudtune_providers.sagemaker.packages import Packages
from cloudtune_providers.sagemaker.preflight import Preflight
from cloudtune_providers.sagemaker.storage import Stores
from cloudtune_providers.sagemaker.training import Training, base_of
from cloudtune_trainer.submit import bundle, rows
from cloudtune_trainer.submit.log_lines import to_events, to_metrics
from cloudtune_trainer.submit.plan import row_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import date
    from pathlib import Path

    from pydantic import BaseModel

    from cloudtune.catalog import Catalog
    from cloudtune.cost import CostEstimate, Usage
    from cloudtune.data.checks.targets import Target
    from cloudtune.data.row_rules import VendorRule
    from cloudtune.errors import Problem
    from cloudtune.optional import Prompt
    from cloudtune.plan import PlanRequest, Step
    from cloudtune.spec import JobSpec
    from cloudtune.state import Checkpoint, Deployment, Event, Generation, JobSnapshot, Metric


class SageMakerBackend:
    """Implements `Backend`, `BatchStatus`, `Generator`, `Host`, `Exporter`, `Preflight` and `SetupDocuments`.

    ``factory`` can create botocore's clients, for Stubbers, moto and proxies; ``code`` is the job's code. Default: the
    installed trainer.
    """

    name: ClassVar[str] = capabilities.NAME
    Options: ClassVar[type[BaseModel]] = SageMakerOptions
    Overrides: ClassVar[type[BaseModel]] = SageMakerOverrides

    def __init__(
        self,
        options: SageMakerOptions | None = None,
        *,
        factory: Callable[[str], Any] | None = None,
        clock: Clock | None = None,
        code: Callable[[], bundle.Bundle] = bundle.bundle,
    ) -> None:
        self._options = options or SageMakerOptions()
        info = describe(self.name)
        if self._options.compute != "local" and info.missing:
            raise not_installed(info, info.missing[0])
        self._clock = clock or SystemClock()
        self._root = self._options.root_folder()
        self._is_here = self._options.compute == "local"
        self._clients = Clients(self._options, factory)
        self._jobs: TrainingJobs | LocalJobs = (
            LocalJobs(self._root, self.name, self._options.python)
            if self._is_here
            else TrainingJobs(self._clients, self.name, self._clients.scope)
        )
        self._stores = Stores(self._clients, self._options.kms_key)
        self._code = code
        self._training = Training(self._stores, self._jobs, self._base(), code)
        self._artefacts = Artifacts(self._root, self._training)
        self._hosts = Hosts(self._clients, self.name)
        self._hosting = Hosting(self._clients, self._options, self._hosts)
        self._curves = Curves(self._clients)
        self._packages = Packages(self._clients, self._stores)
        self._is_serverless = self._options.compute == "serverless"
        own = capabilities.capabilities
        self._capabilities = serverless.capabilities(self._options) if self._is_serverless else own(self._options)

    def __repr__(self) -> str:
        return f"SageMakerBackend({self._options.compute!r}, region={self._options.region!r})"

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
        """See `Backend`."""
        if self._is_serverless:
            return serverless.check(spec, self._options)
        return capabilities.check(spec, self._options)

    @classmethod
    def target_for(cls, model: str | None, method: str | None = None) -> Target:
        """See `DataRules`. Serverless jobs have their own formats."""
        return serverless.target_of(model, method)

    @classmethod
    def row_rules(cls, model: str | None, method: str | None) -> Sequence[VendorRule]:
        """See `RowRules`."""
        return [MIXED_MEDIA, *nova_rules(model, method)] if model and serverless.is_nova(model) else []

    def data_target(self, spec: JobSpec) -> Target:
        """See `DataRules`. The trainer, which runs on instances, reads any record."""
        if not self._is_serverless:
            return rows.target_of(spec)
        return self.target_for(spec.model_for(self.name), spec.method.name)

    def resolve(self, spec: JobSpec) -> Resolved:
        """See `Backend`. Finds the base model, the image and the account. Raises SpecError."""
        own = _own(spec)
        if self._is_serverless:
            return self._recipe(spec, own)
        model = models.find_model(spec.model_for(self.name) or "", own.revision, self._stores)
        code = self._code()
        facts: dict[str, Any] = {"model": model, "code": {"sha256": code.sha256, "bytes": len(code.content)}}
        facts |= {"image": self._image(own), "base": self._base()}
        limit = row_limit(spec, model)
        return Resolved(scope=self.scope(), facts=facts, identity={"model": model["fingerprint"]}, row_limit=limit)

    def _recipe(self, spec: JobSpec, own: SageMakerOverrides) -> Resolved:
        technique, peft = serverless.technique_of(spec, own)
        recipe = recipes.find_recipe(
            self._clients, self._stores, hub=self._options.hub, model=spec.model_for(self.name) or "",
            technique=technique, peft=peft, sequence_length=own.sequence_length,
        )  # fmt: skip
        return Resolved(scope=self._clients.scope(), facts={"recipe": recipe})

    def _base(self) -> str:
        return (self._root / "bucket").as_uri() if self._is_here else f"s3://{self._options.bucket}"

    def _image(self, own: SageMakerOverrides) -> dict[str, str] | str:
        """One image for each kind of instance: planning decides between them."""
        if self._options.image:
            return self._options.image
        if self._is_here:
            return "local"
        kind = own.instance_type or self._options.instance_type or ""
        return {
            word: images.image_uri("training", self._clients.region, kind, gpu=word == "gpu", setting="image")
            for word in ("gpu", "cpu")
        }

    def plan(self, request: PlanRequest) -> Plan:
        """See `Backend`."""
        if self._is_serverless:
            return serverless.plan(request, self._options, _own(request.spec))
        return translate.to_plan(request, self._options)

    def estimate(self, request: PlanRequest) -> CostEstimate:
        """See `Priced`."""
        return serverless.estimate() if self._is_serverless else translate.estimate(request, self._options)

    def usage(self, job: JobSnapshot) -> Usage:
        """See `Priced`."""
        return hourly.usage(job)

    def preflight(self, spec: JobSpec | None = None, plan: Plan | None = None) -> Iterator[Check]:
        """See `cloudtune.backend.Preflight`."""
        return Preflight(self._clients, self._options).checks(plan)

    def read_catalog(self, on: date) -> Catalog:
        """See `CatalogReader`."""
        return rates_reader.read_catalog(self._clients, self.name, on)

    def documents(self) -> Mapping[str, str]:
        """See `cloudtune.backend.SetupDocuments`. Without credentials the account's number is a placeholder."""
        account = region = None
        if not self._is_here:
            with suppress(CloudtuneError):
                region, account = self._clients.region, self._clients.account()
        return policies.documents(self._options, account=account, region=region)

    # -- steps -----------------------------------------------------------------------------------------------------

    def do(self, step: Step, journal: Journal) -> dict[str, Any]:
        """See `Backend`."""
        if step.kind == "upload":
            return self._training.upload(step, journal)
        if step.id == translate.FIND_CHECKPOINT:
            return self._training.find_checkpoint(JobRef.parse(step.request["newest_checkpoint_of"]))
        if step.id == translate.CREATE:
            return self._jobs.create(step.request["body"])
        if step.id == serverless.GROUP:
            return self._packages.create_group(step.request["body"])
        if self._hosts.does(step.request):
            return self._hosts.do(step.id, step.request)
        raise InvalidRequest(f"the {self.name} back end has no step {step.id!r}")

    def find(self, step: Step, intent: Intent) -> Found:
        """See `Backend`."""
        if step.kind == "upload":
            return self._training.find_upload(step)
        if step.id == translate.CREATE:
            return self._jobs.find(step.request["body"])
        if step.id == serverless.GROUP:
            return self._packages.find_group(step.request["body"])
        if self._hosts.does(step.request):
            return self._hosts.find(step.id, step.request, self._clock.now())
        return Absent()

    def probe(self, step: Step) -> Probe:
        """See `Backend`."""
        return self._hosts.probe(step.request)

    # -- reading ---------------------------------------------------------------------------------------------------

    def get(self, ref: JobRef) -> JobSnapshot:
        """See `Backend`."""
        return snapshots.as_sagemaker(self._jobs.get(ref))

    def get_many(self, refs: Sequence[JobRef]) -> Mapping[JobRef, JobSnapshot]:
        """See `BatchStatus`."""
        return {ref: snapshots.as_sagemaker(job) for ref, job in self._jobs.get_many(refs).items()}

    def list(self, limit: int | None = None) -> Iterable[JobSnapshot]:
        """See `Backend`."""
        return map(snapshots.as_sagemaker, self._jobs.listed(limit))

    def events(self, ref: JobRef, after: str | None = None) -> Sequence[Event]:
        """See `Backend`. The service's transitions, and the trainer's events from its log."""
        return to_events(self._jobs.events(ref, after))

    def metrics(self, ref: JobRef, after: str | None = None) -> Sequence[Metric]:
        """See `Backend`. From the trainer's log; for a serverless job from MLflow."""
        if isinstance(self._jobs, LocalJobs):
            return to_metrics(self._jobs.lines(ref, int(after or 0)))
        job = self._jobs.describe(self._jobs.name_of(ref))
        if job.get("ServerlessJobConfig"):
            if not job.get("MlflowConfig"):
                raise UnsupportedError(f"{ref} has no metrics: {serverless.NO_CURVES}")
            return self._curves.metrics(job, after)
        return self._jobs.metrics(ref, after, log_lines.read_figures)

    def checkpoints(self, ref: JobRef) -> Sequence[Checkpoint]:
        """See `Backend`. As copied by the service."""
        return self._training.checkpoints(ref)

    def model(self, ref: JobRef) -> TunedModel:
        """See `Backend`. A job that a limit stopped can also have one."""
        job = self._jobs.describe(self._jobs.name_of(ref))
        if job.get("ServerlessJobConfig"):
            return self._packages.model(ref, job)
        seen = to_snapshot(job, self.name, ref.scope)
        url = self._training.artefact(job) if seen.has_ended and seen.state is not JobState.FAILED else None
        if url is None:
            kept = seen.has_ended and self._training.checkpoints(ref)
            hint = "it has checkpoints: `cloudtune resume` continues from the newest valid one" if kept else None
            raise InvalidRequest(f"{ref} has no model; its state is {job['TrainingJobStatus']}", hint=hint)
        given = job.get("HyperParameters") or {}
        return TunedModel(
            id=ref.id,
            base=str((job.get("Environment") or {}).get(MODEL_VARIABLE) or ""),
            backend=self.name,
            scope=ref.scope,
            ref=ref,
            call="in_process",
            adapter=msgspec.json.decode(given["adapter.type"]) if "adapter.type" in given else None,
            uri=url,
            raw={"base": base_of(job)},
        )

    # -- control ---------------------------------------------------------------------------------------------------

    def cancel(self, ref: JobRef) -> None:
        """See `Backend`."""
        self._jobs.cancel(ref)

    def delete(self, ref: JobRef) -> None:
        """Delete an ended job, its model, checkpoints, and inputs that no other job reads. Accepts a missing job."""
        children = self._training.children(ref)
        if children:
            message = f"{', '.join(map(str, children))} started from a checkpoint of {ref} and has not ended"
            raise InvalidRequest(message, hint="wait for it, or cancel it first")
        job = self._jobs.delete(ref)
        if job is not None:
            self._packages.delete(job)
            self._training.clear(job)
        self._artefacts.forget(ref.id)

    # -- inference -------------------------------------------------------------------------------------------------

    def plan_deploy(self, model: TunedModel, **options: Any) -> Plan:
        """See `Host`. The options are `SageMakerDeployment`'s."""
        if self._is_here:
            raise UnsupportedError(self.capabilities.why_not("verb:deploy"))
        return self._hosting.plan_deploy(model, options)

    def plan_remove(self, deployment: Deployment) -> Plan:
        """See `Host`."""
        if self._is_here:
            raise UnsupportedError(self.capabilities.why_not("verb:deploy"))
        return self._hosting.plan_remove(deployment)

    def deployments(self) -> Iterable[Deployment]:
        """See `Host`. This back end's endpoints, and its components on others."""
        if self._is_here:
            return ()
        return self._hosts.listed(self._clients.scope(), hourly.hosting_prices(self._clients.region))

    def scope(self) -> str:
        """See `Generator`."""
        return str(self._root) if self._is_here else self._clients.scope()

    def generate(
        self, model: TunedModel, prompts: Sequence[Prompt], options: GenerateOptions | None = None
    ) -> Iterator[Generation]:
        """See `Generator`. Uses the model's endpoint if there is one, or this process."""
        here = self._is_here or self._options.answers == "here"
        standing = None if here else self._hosts.serving(model.id, model.scope)
        if standing is not None:
            return self._hosting.generate(standing, model, prompts, options or GenerateOptions())
        if self._options.answers == "endpoint" or model.needs_deploy:
            message = f"{model.id} has no active endpoint"
            raise InvalidRequest(message, hint="deploy it: cloudtune deploy JOB; or set answers to auto")
        return self._artefacts.generate(model, prompts, options)

    def export(self, model: TunedModel, to: Path, *, merged: bool = False) -> Sequence[Path]:
        """See `Exporter`."""
        if model.raw.get("package"):
            return self._packages.export(model, to, merged=merged)
        return self._artefacts.export(model, to, merged=merged)


def _own(spec: JobSpec) -> SageMakerOverrides:
    return SageMakerOverrides.model_validate(spec.overrides.get(capabilities.NAME, {}))
