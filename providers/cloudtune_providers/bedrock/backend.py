"""The Bedrock back end: customization jobs and imports by the control plane, inference by the runtime.

Jobs on open-weight models use another API: see ``open_weight``.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import date
from heapq import merge
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cloudtune.catalog import load
from cloudtune.clock import Clock, SystemClock
from cloudtune.cost import Usage
from cloudtune.errors import CloudtuneError, JobNotFound
from cloudtune.optional import Check, GenerateOptions
from cloudtune.plan import Plan, Resolved
from cloudtune.pricing import answer_price
from cloudtune.redaction.redactor import setting_secrets
from cloudtune.registry import describe, not_installed
from cloudtune_providers.aws.clients import Clients
from cloudtune_providers.aws.s3 import Objects
from cloudtune_providers.bedrock import (
    catalog_reader,
    import_plan,
    import_rules,
    open_weight,
    policies,
    registrations,
    targets,
    translate,
)
from cloudtune_providers.bedrock.calls import PAGE
from cloudtune_providers.bedrock.deployments import Deployments
from cloudtune_providers.bedrock.imports import Imports
from cloudtune_providers.bedrock.inference import Answering
from cloudtune_providers.bedrock.jobs import Jobs
from cloudtune_providers.bedrock.locating import Locating
from cloudtune_providers.bedrock.model_files import LocalFiles
from cloudtune_providers.bedrock.open_weight import OpenWeight
from cloudtune_providers.bedrock.options import BedrockOptions, BedrockOverrides
from cloudtune_providers.bedrock.preflight import Preflight
from cloudtune_providers.bedrock.registrations import Registrations
from cloudtune_providers.bedrock.responses import IMPORT, NAME, REGISTRATION
from cloudtune_providers.bedrock.row_rules import rules_for
from cloudtune_providers.bedrock.rules import Rules, find_model
from cloudtune_providers.openai_dialect import costs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pydantic import BaseModel

    from cloudtune.backend import Capabilities, Found, Intent, Journal, Probe
    from cloudtune.catalog import Catalog
    from cloudtune.cost import AnswerPrice, CostEstimate
    from cloudtune.data.checks.targets import Target
    from cloudtune.data.row_rules import VendorRule
    from cloudtune.errors import Problem
    from cloudtune.optional import Elsewhere, ImportRequest, InPlace, Prompt
    from cloudtune.plan import PlanRequest, Step
    from cloudtune.spec import JobSpec
    from cloudtune.state import Checkpoint, Deployment, Event, Generation, JobRef, JobSnapshot, Metric, TunedModel
    from cloudtune_providers.aws.clients import ClientFactory
    from cloudtune_providers.bedrock.open_weight import Connect


class BedrockBackend:
    """Implements `Backend`, and all of `cloudtune.optional` except `Exporter` and `Pausable`.

    ``factory`` can create botocore's clients, by service name: for a Stubber, for moto, for proxies; ``connect`` can
    create the client of OpenAI's SDK, by its base URL, which jobs on open-weight models need.
    """

    name: ClassVar[str] = NAME
    Options: ClassVar[type[BaseModel]] = BedrockOptions
    Overrides: ClassVar[type[BaseModel]] = BedrockOverrides

    def __init__(
        self,
        options: BedrockOptions | None = None,
        *,
        factory: ClientFactory | None = None,
        connect: Connect | None = None,
        clock: Clock | None = None,
    ) -> None:
        info = describe(self.name)
        if info.missing:
            raise not_installed(info, info.missing[0])
        self._options = options or BedrockOptions()
        self._clock = clock or SystemClock()
        self._catalog = load(self.name)
        self._clients = Clients(self._options, factory)
        self._jobs = Jobs(self._clients)
        self._imports = Imports(self._clients, self._options)
        self._registrations = Registrations(self._clients)
        self._rooms: dict[str, Jobs | Imports | Registrations] = {
            IMPORT: self._imports, REGISTRATION: self._registrations, "": self._jobs
        }  # fmt: skip
        self._hosted = Deployments(self._clients, self._options, self._catalog)
        self._answering = Answering(self._clients, self._options, self._hosted)
        self._open_weight = OpenWeight(self._clients, self._options, self._clock, connect)
        self._capabilities = translate.capabilities()

    def __repr__(self) -> str:
        return f"BedrockBackend(region={self._options.region!r}, bucket={self._options.bucket!r})"

    def secrets(self) -> tuple[str, ...]:
        """See `HoldsSecrets`."""
        return (*setting_secrets(self._options), *self._clients.secrets())

    def close(self) -> None:
        """See `Closeable`."""
        self._open_weight.close()
        self._clients.close()

    @property
    def capabilities(self) -> Capabilities:
        """See `Backend`."""
        return self._capabilities

    def capabilities_of(self, ref: JobRef) -> Capabilities:
        """See `PerJobCapabilities`."""
        if _is_open_weight(ref):
            return open_weight.capabilities_of(self._capabilities)
        return registrations.capabilities_of(self._capabilities) if _kind(ref) == REGISTRATION else self._capabilities

    # -- planning --------------------------------------------------------------------------------------------------

    def check(self, spec: JobSpec) -> Sequence[Problem]:
        """See `Backend`. Reads the catalog and today's date."""
        return list(self._rules().check(spec))

    @classmethod
    def target_for(cls, model: str | None, method: str | None = None) -> Target:
        """See `DataRules`."""
        return targets.target_of(model, method)

    @classmethod
    def row_rules(cls, model: str | None, method: str | None) -> Sequence[VendorRule]:
        """See `RowRules`."""
        catalog = load(cls.name)
        return rules_for(catalog, find_model(catalog, model or ""), model or "", method)

    def data_target(self, spec: JobSpec) -> Target:
        """See `DataRules`."""
        return self.target_for(spec.model_for(self.name), spec.method.name)

    def resolve(self, spec: JobSpec) -> Resolved:
        """See `Backend`. The account, part of the scope, comes from STS. Models are chosen as of that day."""
        return Resolved(scope=self._clients.scope(), facts={"date": self._clock.now().date().isoformat()})

    def plan(self, request: PlanRequest) -> Plan:
        """See `Backend`."""
        rules = self._rules(date.fromisoformat(request.resolved.facts["date"]))
        return translate.plan(request, self._options, rules, self._catalog)

    def estimate(self, request: PlanRequest) -> CostEstimate:
        """See `Priced`."""
        return translate.estimate(request, self._catalog)

    def usage(self, job: JobSnapshot) -> Usage:
        """See `Priced`. Only the API for open-weight models reports tokens."""
        if _is_open_weight(job.ref):
            return costs.usage(job)
        return Usage(note="Bedrock does not report what a job is billed for; see the invoice")

    def _rules(self, on: date | None = None) -> Rules:
        """The catalog on that day, or today."""
        return Rules(self._catalog, self._options, on or self._clock.now().date())

    # -- preparation -----------------------------------------------------------------------------------------------

    def preflight(self, spec: JobSpec | None = None, plan: Plan | None = None) -> Iterator[Check]:
        """See `cloudtune.backend.Preflight`."""
        is_open = spec is not None and self._rules().is_open_weight(spec.model_for(NAME))
        return Preflight(self._clients, self._options).checks(spec, self._open_weight if is_open else None)

    def read_catalog(self, on: date) -> Catalog:
        """See `CatalogReader`."""
        return catalog_reader.read_catalog(self._clients, self._catalog, on)

    def documents(self) -> Mapping[str, str]:
        """See `cloudtune.backend.SetupDocuments`. Without credentials the account's number is a placeholder."""
        account = region = None
        with suppress(CloudtuneError):
            region, account = self._clients.region, self._clients.account()
        return policies.documents(self._options, account=account, region=region)

    # -- importing -------------------------------------------------------------------------------------------------

    def check_import(self, folder: Path) -> Sequence[Problem]:
        """See `Importer`."""
        return import_rules.problems(LocalFiles(folder))

    def locate(self, source: str | TunedModel) -> InPlace | Elsewhere:
        """See `InPlaceImporter`. A URI in S3, a SageMaker model package, or the result of a SageMaker job."""
        return Locating(self._clients).locate(source)

    def resolve_import(self) -> Resolved:
        """See `Importer`."""
        return Resolved(scope=self._clients.scope())

    def plan_import(self, request: ImportRequest) -> Plan:
        """See `Importer`."""
        return import_plan.plan_of(request, self._options, self._catalog)

    # -- steps -----------------------------------------------------------------------------------------------------

    def do(self, step: Step, journal: Journal) -> dict[str, Any]:
        """See `Backend`."""
        request = step.request
        if open_weight.is_its_step(request):
            return self._open_weight.account.do(step, journal)
        match step.id:
            case "create":
                return self._jobs.create(request["body"])
            case "import":
                return self._imports.create(request["body"])
            case "register":
                return self._registrations.create(request["body"])
            case "deploy":
                return self._hosted.create(request, journal)
            case "remove":
                return self._hosted.remove(request)
            case _ if "content" in request:
                return self._write(request)
            case _:
                return self._objects(request).put(_key(request), Path(request["path"]), request["sha256"], journal)

    def find(self, step: Step, intent: Intent) -> Found:
        """See `Backend`."""
        request = step.request
        if open_weight.is_its_step(request):
            return self._open_weight.account.find(step, intent)
        match step.id:
            case "create":
                return self._jobs.find(request["body"])
            case "import":
                return self._imports.find(request["body"])
            case "register":
                return self._registrations.find(request["body"])
            case "deploy" | "remove":
                return self._hosted.find(request)
            case _:
                return self._objects(request).find(_key(request), request["sha256"], request["bytes"])

    def probe(self, step: Step) -> Probe:
        """See `Backend`."""
        if open_weight.is_its_step(step.request):
            return self._open_weight.account.probe(step)
        return self._hosted.probe(step.request)

    def _write(self, request: Mapping[str, Any]) -> dict[str, Any]:
        objects, key = self._objects(request), _key(request)
        objects.write(key, str(request["content"]).encode(), request["sha256"])
        return {"key": key, "url": objects.url(key), "bytes": request["bytes"], "sha256": request["sha256"]}

    def _objects(self, request: Mapping[str, Any]) -> Objects:
        return Objects(self._clients, request["bucket"], self._options.kms_key)

    # -- reading ---------------------------------------------------------------------------------------------------

    def get(self, ref: JobRef) -> JobSnapshot:
        """See `Backend`."""
        if _is_open_weight(ref):
            return self._open_weight.account.jobs.get(ref)
        room, name = self._room(ref)
        return room.get(name)

    def get_many(self, refs: Sequence[JobRef]) -> Mapping[JobRef, JobSnapshot]:
        """See `BatchStatus`. Jobs on the newest pages of the lists, the others one by one."""
        scope = self._clients.scope()
        wanted = {ref for ref in refs if ref.scope == scope}
        others = {ref for ref in wanted if _is_open_weight(ref)}
        found: dict[JobRef, JobSnapshot] = self._open_weight.account.jobs.get_many([*others]) if others else {}
        wanted -= others
        for kind, room in self._rooms.items():
            these = {ref for ref in wanted if _kind(ref) == kind}
            for page in islice(room.pages(), 1 + len(these) // PAGE) if these else ():
                found |= {snapshot.ref: snapshot for snapshot in page if snapshot.ref in these}
                if these <= found.keys():
                    break
        for ref in wanted - found.keys():
            try:
                found[ref] = self.get(ref)
            except JobNotFound:
                continue
        return found

    def list(self, limit: int | None = None) -> Iterable[JobSnapshot]:
        """See `Backend`. Jobs of every kind; those on open-weight models only if their API is accessible."""
        size = {} if limit is None else {"maxResults": max(1, min(limit, PAGE))}
        kinds = (chain.from_iterable(room.pages(**size)) for room in self._rooms.values())
        newest = merge(
            *kinds,
            self._open_weight.listed(limit),
            key=lambda job: job.created_at.timestamp() if job.created_at else 0.0,
            reverse=True,
        )
        return islice(newest, limit)

    def events(self, ref: JobRef, after: str | None = None) -> Sequence[Event]:
        """See `Backend`. Bedrock keeps none, but of jobs on open-weight models."""
        return self._open_weight.account.jobs.events(ref, after) if _is_open_weight(ref) else ()

    def metrics(self, ref: JobRef, after: str | None = None) -> Sequence[Metric]:
        """See `Backend`. From the result files, once the job has ended; imported models have none."""
        if _is_open_weight(ref):
            return self._open_weight.account.jobs.metrics(ref, after)
        room, name = self._room(ref)
        found = room.metrics(name)
        cursors = [metric.cursor for metric in found]
        return found[cursors.index(after) + 1 :] if after in cursors else found

    def checkpoints(self, ref: JobRef) -> Sequence[Checkpoint]:
        """See `Backend`. Bedrock keeps none, but of jobs on open-weight models."""
        return self._open_weight.account.jobs.checkpoints(ref) if _is_open_weight(ref) else ()

    def model(self, ref: JobRef) -> TunedModel:
        """See `Backend`. A tuned model has to be deployed first; an imported or open-weight one need not."""
        if _is_open_weight(ref):
            return self._open_weight.model(ref)
        room, name = self._room(ref)
        return room.model(ref, name)

    # -- control ---------------------------------------------------------------------------------------------------

    def cancel(self, ref: JobRef) -> None:
        """See `Backend`. Training until then is billed, and its result is lost. An import cannot be stopped."""
        if _is_open_weight(ref):
            return self._open_weight.account.jobs.cancel(ref)
        room, name = self._room(ref)
        return room.stop(name)

    def delete(self, ref: JobRef) -> None:
        """Delete the ended job's model, metrics and rows; its record is kept. Deployments have to be deleted first."""
        if _is_open_weight(ref):
            return self._open_weight.account.jobs.clear(ref)
        room, name = self._room(ref)
        return room.clear(ref, name)

    # -- inference -------------------------------------------------------------------------------------------------

    def plan_deploy(self, model: TunedModel, **options: Any) -> Plan:
        """See `Host`. Options: those of `BedrockDeployment`."""
        return self._hosted.plan_deploy(model, options)

    def plan_remove(self, deployment: Deployment) -> Plan:
        """See `Host`."""
        return self._hosted.plan_remove(deployment)

    def deployments(self) -> Iterable[Deployment]:
        """See `Host`. On demand and provisioned."""
        return self._hosted.listed()

    def scope(self) -> str:
        """See `Generator`."""
        return self._clients.scope()

    def generate(
        self, model: TunedModel, prompts: Sequence[Prompt], options: GenerateOptions | None = None
    ) -> Iterator[Generation]:
        """See `Generator`. Calls the model's deployment, an imported or open-weight model itself, or the base model."""
        if model.ref is not None and _is_open_weight(model.ref):
            return self._open_weight.generate(model, prompts, options)
        return self._answering.generate(model, prompts, options or GenerateOptions())

    def answer_price(self, model: TunedModel, *, base: bool = False) -> AnswerPrice | None:
        """See `PricedAnswers`. Tuned models may also be billed by the hour, so only base models have a price."""
        return answer_price(self._catalog, model.base, base=True) if base or model.ref is None else None

    def _room(self, ref: JobRef) -> tuple[Jobs | Imports | Registrations, str]:
        """The module for jobs of that kind, and the job's name. Raises JobNotFound for another account or region."""
        scope = self._clients.scope()
        if ref.scope != scope:
            raise JobNotFound(f"{ref.id} belongs to {ref.scope}, but the settings select {scope}")
        kind = _kind(ref)
        return self._rooms[kind], ref.id.removeprefix(kind)


def _kind(ref: JobRef) -> str:
    """Return the prefix of the name."""
    return next((kind for kind in (IMPORT, REGISTRATION) if ref.id.startswith(kind)), "")


def _is_open_weight(ref: JobRef) -> bool:
    return ref.id.startswith(open_weight.PREFIX)


def _key(request: Mapping[str, Any]) -> str:
    """The key of bytes with that hash."""
    return str(request.get("key") or "") or f"{request['below']}/{request['sha256']}/{request['name']}"
