"""The back end. Acme's service is played by `cloudtune.testing.ScriptedVendor`, which keeps its jobs in a file.

Creating a job takes an idempotency token, and a file lies under the hash of its content, so every step is atomic.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, SecretStr

from acme_tuning.rows import RULES, target_of
from cloudtune.backend import VERBS, Absent, Capabilities, Done, Found, Intent, Journal, Probe
from cloudtune.config.option_types import Credential, WrittenPath
from cloudtune.errors import Conflict, InvalidRequest, JobNotFound
from cloudtune.plan import Plan, PlanRequest, Resolved, Setting, Step, output_ref
from cloudtune.spec import spec_features
from cloudtune.state import Checkpoint, Event, JobRef, JobSnapshot, Metric, TunedModel
from cloudtune.testing.translation import to_error, to_event, to_metric, to_snapshot, when
from cloudtune.testing.vendor import ScriptedVendor, VendorError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cloudtune.data.checks.targets import Target
    from cloudtune.data.row_rules import VendorRule
    from cloudtune.errors import Problem
    from cloudtune.spec import JobSpec

SUPPORTED = frozenset({
    "method:sft", "hyperparameters.epochs", "hyperparameters.learning_rate", "data.validation", "tags", "seed",
    "verb:cancel", "verb:checkpoints", "verb:delete", "verb:events", "verb:list", "verb:metrics",
})  # fmt: skip


class AcmeOptions(BaseModel):
    """Settings under ``[backends.acme]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    store: WrittenPath[Path]
    """The file in which the service keeps its jobs."""
    api_key: Credential[SecretStr] = SecretStr("acme-key")


class AcmeOverrides(BaseModel):
    """What ``overrides.acme`` in a spec may hold: nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AcmeBackend:
    """Implements `Backend` and `DataRules`. ``vendor`` may take the place of the service, for tests."""

    name: ClassVar[str] = "acme"
    Options: ClassVar[type[BaseModel]] = AcmeOptions
    Overrides: ClassVar[type[BaseModel]] = AcmeOverrides

    def __init__(self, options: AcmeOptions, *, vendor: ScriptedVendor | None = None) -> None:
        self._key = options.api_key.get_secret_value()
        self._vendor = vendor or ScriptedVendor(options.store, api_key=self._key)

    def __repr__(self) -> str:
        return "AcmeBackend()"

    @property
    def capabilities(self) -> Capabilities:
        """See `Backend`."""
        others = {*spec_features(), *VERBS} - SUPPORTED
        return Capabilities(
            supports=SUPPORTED, reasons=dict.fromkeys(others, "Acme's service does not offer it"), poll_s=0.25
        )

    # -- planning ------------------------------------------------------------------------------------------------------

    @classmethod
    def target_for(cls, model: str | None, method: str | None = None) -> Target:
        """See `DataRules`."""
        return target_of(model, method)

    @classmethod
    def row_rules(cls, model: str | None, method: str | None) -> Sequence[VendorRule]:
        """See `RowRules`."""
        return RULES

    def data_target(self, spec: JobSpec) -> Target:
        """See `DataRules`."""
        return target_of(spec.model_for(self.name), spec.method.name)

    def check(self, spec: JobSpec) -> Sequence[Problem]:
        """See `Backend`."""
        return ()

    def resolve(self, spec: JobSpec) -> Resolved:
        """See `Backend`. Asks whose key it is."""
        return Resolved(scope=self._scope())

    def plan(self, request: PlanRequest) -> Plan:
        """See `Backend`."""
        spec = request.spec
        form = self.data_target(spec).format_for(spec.method.name)
        steps = [step for split in request.data.splits for step in _upload(request, split, form)]
        hyperparameters = {
            name: value for name, value in spec.requested_fields().items() if name.startswith("hyperparameters.")
        }
        body = {
            "name": request.slug, "model": spec.model_for(self.name), "token": request.token, "seed": spec.seed,
            "files": {split: output_ref(f"await_{split}", "id") for split in request.data.splits},
            "hyperparameters": {name.partition(".")[2]: value for name, value in hyperparameters.items()},
            "metadata": {**(spec.tags or {}), "cloudtune": request.token},
        }  # fmt: skip
        steps.append(
            Step(
                id="create", kind="call", title="create the job", request={"call": "create_job", "body": body},
                once="atomic", token=request.token, makes_job=True,
            )
        )  # fmt: skip
        settings = tuple(Setting(field=name, value=value, source="spec") for name, value in hyperparameters.items())
        return Plan(
            name=spec.name, backend=self.name, scope=request.resolved.scope, key=request.key, attempt=request.attempt,
            token=request.token, spec=spec.model_dump(mode="json", exclude_none=True), steps=tuple(steps),
            data=request.data, resolved=request.resolved, settings=settings,
        )  # fmt: skip

    # -- steps ---------------------------------------------------------------------------------------------------------

    def do(self, step: Step, journal: Journal) -> dict[str, Any]:
        """See `Backend`."""
        if step.kind == "upload":
            content = Path(step.request["path"]).read_bytes()
            return {"id": self._ask("put_file", step.request["body"], content)["id"]}
        job = self._ask("create_job", step.request["body"])
        return {"id": job["id"], "ref": str(self._snapshot(job).ref)}

    def find(self, step: Step, intent: Intent) -> Found:
        """See `Backend`. A file is found by its key; a job is created again, which makes no second one."""
        if step.kind != "upload":
            return Absent()
        try:
            file = self._ask("head_file", step.request["body"])
        except JobNotFound:
            return Absent()
        return Done(outputs={"id": file["id"]}) if file["sha256"] == step.request["sha256"] else Absent()

    def probe(self, step: Step) -> Probe:
        """See `Backend`."""
        file = self._ask("get_file", step.request["body"])
        if file["status"] == "error":
            return Probe(state="failed", message=file["message"])
        return Probe(state="ready" if file["status"] == "processed" else "pending", outputs={"id": file["id"]})

    # -- jobs ----------------------------------------------------------------------------------------------------------

    def get(self, ref: JobRef) -> JobSnapshot:
        """See `Backend`."""
        return self._snapshot(self._ask("get_job", {"id": self._id(ref)}))

    def list(self, limit: int | None = None) -> Iterable[JobSnapshot]:
        """See `Backend`."""
        for number, job in enumerate(self._pages("list_jobs", {})):
            if limit is not None and number >= limit:
                return
            yield self._snapshot(job)

    def events(self, ref: JobRef, after: str | None = None) -> Sequence[Event]:
        """See `Backend`. A page may repeat entries of the one before."""
        entries = {entry["id"]: entry for entry in self._pages("list_events", {"id": self._id(ref), "after": after})}
        return [to_event(entry) for entry in entries.values()]

    def metrics(self, ref: JobRef, after: str | None = None) -> Sequence[Metric]:
        """See `Backend`."""
        return [to_metric(entry) for entry in self._pages("list_metrics", {"id": self._id(ref), "after": after})]

    def checkpoints(self, ref: JobRef) -> Sequence[Checkpoint]:
        """See `Backend`."""
        kept = self._ask("list_checkpoints", {"id": self._id(ref)})
        return [
            Checkpoint(
                id=entry["id"], step=entry["step"], last=entry is kept[-1], metrics={"loss": entry["loss"]},
                best=entry["loss"] == min(one["loss"] for one in kept), created_at=when(entry["at"]),
            )
            for entry in kept
        ]  # fmt: skip

    def cancel(self, ref: JobRef) -> None:
        """See `Backend`."""
        try:
            self._ask("cancel_job", {"id": self._id(ref)})
        except Conflict:
            return  # it is stopping already, or has ended

    def delete(self, ref: JobRef) -> None:
        """See `Backend`."""
        try:
            self._ask("delete_job", {"id": self._id(ref)})
        except JobNotFound:
            return
        except Conflict as error:
            raise InvalidRequest(error.message) from error

    def model(self, ref: JobRef) -> TunedModel:
        """See `Backend`."""
        job = self._ask("get_job", {"id": self._id(ref)})
        try:
            made = self._ask("get_model", {"id": self._id(ref)})
        except Conflict as error:
            raise InvalidRequest(f"{ref} has no model: it is {job['status']}") from error
        return TunedModel(id=made["model"], base=job["model"], backend=self.name, scope=ref.scope, ref=ref, call="api")

    # -- requests ------------------------------------------------------------------------------------------------------

    def _scope(self) -> str:
        return str(self._ask("whoami", {})["owner"])

    def _id(self, ref: JobRef) -> str:
        if ref.scope != self._scope():
            raise JobNotFound(f"{ref} belongs to another account")
        return ref.id

    def _ask(self, call: str, body: dict[str, Any], payload: bytes = b"") -> Any:
        try:
            return self._vendor.request(call, body, api_key=self._key, payload=payload)
        except VendorError as error:
            raise to_error(error, call, self._key) from error

    def _pages(self, call: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        while True:
            page = self._ask(call, body)
            yield from page["data"]
            if not page["has_more"] or not page["data"]:
                return
            body = body | {"after": page["data"][-1]["id"]}

    def _snapshot(self, job: dict[str, Any]) -> JobSnapshot:
        return to_snapshot(job, self.name, job["owner"])


def _upload(request: PlanRequest, split: str, form: str) -> list[Step]:
    """Write a split in the format, upload it under its hash, and wait until it is processed."""
    digest = request.data.splits[split].sha256
    encoded = {part: output_ref(f"encode_{split}", part) for part in ("path", "bytes", "sha256")}
    return [
        Step(
            id=f"encode_{split}", kind="encode", title=f"write the {split} rows as {form}",
            request={"split": split, "format": form, "sha256": digest},
        ),
        Step(
            id=f"upload_{split}", kind="upload", title=f"upload the {split} rows", once="atomic", token=digest,
            request={"call": "put_file", "body": {"name": f"{digest}.jsonl"}} | encoded,
        ),
        Step(
            id=f"await_{split}", kind="await", title=f"wait until the {split} rows are processed", limit_s=600.0,
            request={"call": "get_file", "body": {"id": output_ref(f"upload_{split}", "id")}},
        ),
    ]  # fmt: skip
