"""A back end over a `ScriptedVendor`, for tests of code that uses cloudtune: all calls work, and nothing is trained.

::

    clock = FakeClock()
    vendor = ScriptedVendor(clock=clock)
    client = Client(ScriptedBackend(vendor=vendor), ledger=f"sqlite:///{tmp_path}/ledger.db", clock=clock)
    job = client.submit(spec)
    vendor.fail("get_job", faults.server_error(times=2))
    model = job.wait()  # takes no time: the job lives by the clock

Jobs end according to their `Script`; `ScriptedVendor.act` changes a job, and `ScriptedVendor.fail` injects a fault.
Several processes share one vendor by opening the same store by path.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from cloudtune.backend import Absent, Capabilities, Done, Found, Intent, Journal, Probe
from cloudtune.errors import BackendNotInstalled, Conflict, InputError, InvalidRequest, JobNotFound, Problem
from cloudtune.optional import GenerateOptions, Prompt
from cloudtune.plan import Plan, PlanRequest, Resolved, Step
from cloudtune.prompts import messages_of
from cloudtune.state import Checkpoint, Deployment, Event, Generation, JobRef, JobSnapshot, Metric, TunedModel
from cloudtune.testing import translation
from cloudtune.testing.scripted_options import ScriptedOptions, ScriptedOverrides
from cloudtune.testing.service import VendorError
from cloudtune.testing.vendor import ScriptedVendor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pydantic import BaseModel

    from cloudtune.cost import CostEstimate, Usage
    from cloudtune.errors import Severity
    from cloudtune.spec import JobSpec

PART_BYTES = 512
"""Parts of uploads are so small that a few rows need several."""


class ScriptedBackend:
    """Implements `Backend`, `BatchStatus`, `Generator`, `Host`, `Pausable` and `Priced`.

    Give it options, a vendor, or both (the vendor wins).
    """

    name: ClassVar[str] = "scripted"
    Options: ClassVar[type[BaseModel]] = ScriptedOptions
    Overrides: ClassVar[type[BaseModel]] = ScriptedOverrides

    def __init__(self, options: ScriptedOptions | None = None, *, vendor: ScriptedVendor | None = None) -> None:
        self._options = options or ScriptedOptions()
        self._key = self._options.api_key.get_secret_value()
        self._vendor = vendor or ScriptedVendor(
            self._options.store, personality=self._options.personality, api_key=self._key
        )
        self._capabilities = translation.capabilities()
        self._owner: str | None = None
        if (module := self._options.needs) and importlib.util.find_spec(module) is None:
            raise BackendNotInstalled(f"this needs {module}", hint=f"run: pip install {module}")

    def __repr__(self) -> str:
        return f"ScriptedBackend(personality={self._vendor.personality!r})"

    @property
    def capabilities(self) -> Capabilities:
        """See `Backend`."""
        return self._capabilities

    def secrets(self) -> tuple[str, ...]:
        """See `HoldsSecrets`."""
        return (self._key,)

    # -- planning --------------------------------------------------------------------------------------------------

    def check(self, spec: JobSpec) -> Sequence[Problem]:
        """See `Backend`. A training rate above 1 is refused, one above 0.01 warned of."""
        rate, field = spec.hyperparameters.learning_rate, "hyperparameters.learning_rate"
        if rate is None or rate <= 0.01:
            return ()
        severity: Severity = "error" if rate > 1 else "warning"
        return [Problem(code="rate", severity=severity, field=field, message=f"{rate:g} is too large", fix="try 1e-4")]

    def resolve(self, spec: JobSpec) -> Resolved:
        """See `Backend`. Asks whose key it is, and looks for rows that are over the model's limit."""
        translation.refuse_long_rows(spec)
        return Resolved(scope=self.scope())

    def plan(self, request: PlanRequest) -> Plan:
        """See `Backend`."""
        vendor = self._vendor
        return translation.plan_of(
            request, name=self.name, personality=vendor.personality, list_lag_s=vendor.list_lag_s
        )

    def estimate(self, request: PlanRequest) -> CostEstimate:
        """See `Priced`."""
        return translation.estimate(request, self._options.usd_per_hour)

    def usage(self, job: JobSnapshot) -> Usage:
        """See `Priced`."""
        return translation.usage(job)

    # -- steps -----------------------------------------------------------------------------------------------------

    def do(self, step: Step, journal: Journal) -> dict[str, Any]:
        """See `Backend`."""
        request = step.request
        if step.kind == "upload":
            return self._upload(request, journal)
        if request["call"] == "create_job":
            return self._create(request["body"])
        if request["call"] == "cancel_job":
            for duplicate in request["duplicates"]:
                self.cancel(JobRef.parse(duplicate))
            return {"ref": request["ref"]}
        return self._host(request["call"], request["body"])

    def _host(self, call: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            self._ask(call, body)
        except JobNotFound:
            if call != "delete_deployment":  # a missing deployment counts as deleted
                raise
        return {"name": body["name"]}

    def _upload(self, request: dict[str, Any], journal: Journal) -> dict[str, Any]:
        content = Path(request["path"]).read_bytes()
        if request["call"] != "multipart":
            return {"id": self._ask(request["call"], request["body"], payload=content)["id"]}
        upload, there = self._open_upload(request["body"], journal)
        for number, start in enumerate(range(0, len(content), PART_BYTES)):
            if number not in there:
                self._ask("put_part", {"upload": upload, "number": number}, payload=content[start : start + PART_BYTES])
                journal.note("parts", number + 1)
        return {"id": self._ask("finish_upload", {"upload": upload})["id"]}

    def _open_upload(self, body: dict[str, Any], journal: Journal) -> tuple[int, set[int]]:
        """The upload that an earlier process began, with the parts that it has, or a new one."""
        if (begun := journal.notes.get("upload")) is not None:
            try:
                return begun, set(self._ask("list_parts", {"upload": begun}))
            except JobNotFound:
                journal.note("lost_upload", begun)
        upload = self._ask("begin_upload", body)["upload"]
        journal.note("upload", upload)
        return upload, set()

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        try:
            job = self._ask("create_job", body)
        except Conflict:
            # The name is taken: by this request, delivered before, or by another client.
            found = self._found_by_name(body) if self._vendor.personality == "unique_names" else None
            if found is None:
                raise
            return found.outputs
        return self._made(job)

    def _made(self, job: dict[str, Any]) -> dict[str, Any]:
        return {"id": job["id"], "ref": str(self._snapshot(job).ref)}

    def find(self, step: Step, intent: Intent) -> Found:
        """See `Backend`."""
        request = step.request
        if step.kind == "upload":
            return self._find_file(request)
        if "deployment" in request["call"]:
            return self._find_deployment(request["call"], request["body"])
        if request["call"] != "create_job":
            return Absent()
        body = request["body"]
        if self._vendor.personality == "unique_names":
            return self._found_by_name(body) or Absent()
        if self._vendor.personality == "token":
            return Absent()  # sending it again is harmless
        jobs = self._with_token(body["token"])
        if not jobs:
            return Absent()
        duplicates = tuple(str(self._snapshot(job).ref) for job in jobs[1:])
        return Done(outputs=self._made(jobs[0]), duplicates=duplicates)

    def _find_deployment(self, call: str, body: dict[str, Any]) -> Found:
        """Return the deployment with that name. If it serves another model, the vendor rejects the request."""
        models = {entry["name"]: entry["model"] for entry in self._ask("list_deployments", {})}
        done = models.get(body["name"]) == body.get("model")  # a removal names none
        return Done(outputs={"name": body["name"]}) if done else Absent()

    def _find_file(self, request: dict[str, Any]) -> Found:
        name, size = request["body"]["name"], request["bytes"]
        if self._vendor.personality == "neither":
            files = [file for file in self._ask("list_files", {}) if file["name"] == name and file["bytes"] == size]
            good = [file for file in files if file["status"] != "error"]
            return Done(outputs={"id": good[0]["id"]}) if good else Absent()
        try:
            file = self._ask("head_file", {"name": name})
        except JobNotFound:
            return Absent()
        return Done(outputs={"id": file["id"]}) if file["sha256"] == request["sha256"] else Absent()

    def _found_by_name(self, body: dict[str, Any]) -> Done | None:
        try:
            job = self._ask("find_job", {"name": body["name"]})
        except JobNotFound:
            return None
        if job["metadata"].get("cloudtune") != body["token"]:
            raise Conflict(f"a job called {body['name']!r} exists, and cloudtune did not make it for this submission")
        return Done(outputs=self._made(job))

    def _with_token(self, token: str) -> list[dict[str, Any]]:
        """Active jobs with the token, oldest first, even if the vendor ignores the filter."""
        wanted = {"cloudtune": token}
        listed = self._pages("list_jobs", {"metadata": wanted})
        jobs = [job for job in listed if job["metadata"].items() >= wanted.items()]
        jobs = [job for job in jobs if job["status"] not in ("Stopping", "Stopped")] or jobs
        return sorted(jobs, key=lambda job: str(job["id"]))

    def probe(self, step: Step) -> Probe:
        """See `Backend`."""
        if step.id == "confirm":
            return self._confirm(step.request)
        file = self._ask("get_file", step.request["body"])
        if file["status"] == "error":
            return Probe(state="failed", message=file["message"])
        ready = file["status"] == "processed"
        return Probe(state="ready" if ready else "pending", outputs={"id": file["id"]}, message=file["status"])

    def _confirm(self, request: dict[str, Any]) -> Probe:
        jobs = self._with_token(request["token"])
        if request["id"] not in [job["id"] for job in jobs]:
            return Probe(state="pending", message="the job is not in the list yet")
        refs = [str(self._snapshot(job).ref) for job in jobs]
        return Probe(state="ready", outputs={"ref": refs[0], "duplicates": refs[1:]})

    # -- reading ---------------------------------------------------------------------------------------------------

    def get(self, ref: JobRef) -> JobSnapshot:
        """See `Backend`."""
        return self._snapshot(self._ask("get_job", {"id": self._id(ref)}))

    def get_many(self, refs: Sequence[JobRef]) -> Mapping[JobRef, JobSnapshot]:
        """See `BatchStatus`. Most come from one list; the others are read one by one."""
        listed = {job.ref: job for job in self.list()}
        found = {ref: listed[ref] for ref in refs if ref in listed}
        for ref in refs:
            if ref not in found:
                try:
                    found[ref] = self.get(ref)
                except JobNotFound:
                    continue
        return found

    def list(self, limit: int | None = None) -> Iterable[JobSnapshot]:
        """See `Backend`."""
        for number, job in enumerate(self._pages("list_jobs", {})):
            if limit is not None and number >= limit:
                return
            yield self._snapshot(job)

    def events(self, ref: JobRef, after: str | None = None) -> Sequence[Event]:
        """See `Backend`."""
        entries = {entry["id"]: entry for entry in self._pages("list_events", {"id": self._id(ref), "after": after})}
        return [translation.to_event(entry) for entry in entries.values()]

    def metrics(self, ref: JobRef, after: str | None = None) -> Sequence[Metric]:
        """See `Backend`."""
        entries = self._pages("list_metrics", {"id": self._id(ref), "after": after})
        return [translation.to_metric(entry) for entry in entries]

    def checkpoints(self, ref: JobRef) -> Sequence[Checkpoint]:
        """See `Backend`."""
        kept = self._ask("list_checkpoints", {"id": self._id(ref)})
        best = min((entry["loss"] for entry in kept), default=None)
        return [
            Checkpoint(
                id=entry["id"], step=entry["step"], best=entry["loss"] == best, last=entry is kept[-1], resumable=True,
                metrics={"loss": entry["loss"]}, created_at=translation.when(entry["at"]),
            )
            for entry in kept
        ]  # fmt: skip

    def model(self, ref: JobRef) -> TunedModel:
        """See `Backend`."""
        job = self._ask("get_job", {"id": self._id(ref)})
        try:
            made = self._ask("get_model", {"id": self._id(ref)})
        except Conflict as error:
            raise InvalidRequest(f"{ref} has no model; its state is {job['status']}") from error
        return TunedModel(
            id=made["model"], base=job["model"], backend=self.name, scope=ref.scope, ref=ref, call="api", raw=made
        )

    # -- control ---------------------------------------------------------------------------------------------------

    def cancel(self, ref: JobRef) -> None:
        """See `Backend`. Stopping twice, or after the end, is a conflict there and nothing here."""
        try:
            self._ask("cancel_job", {"id": self._id(ref)})
        except Conflict:
            return

    def pause(self, ref: JobRef) -> None:
        """See `Pausable`."""
        self._steer("pause_job", ref)

    def resume(self, ref: JobRef) -> None:
        """See `Pausable`."""
        self._steer("resume_job", ref)

    def delete(self, ref: JobRef) -> None:
        """See `Backend`."""
        try:
            self._steer("delete_job", ref)
        except JobNotFound:
            return

    def _steer(self, call: str, ref: JobRef) -> None:
        try:
            self._ask(call, {"id": self._id(ref)})
        except Conflict as error:
            raise InvalidRequest(error.message) from error

    # -- inference -------------------------------------------------------------------------------------------------

    def plan_deploy(self, model: TunedModel, **options: Any) -> Plan:
        """See `Host`. ``name`` is the only option."""
        if unknown := sorted(set(options) - {"name"}):
            raise InputError([Problem(code="option", field=key, message="no such option") for key in unknown])
        body = {"name": options.get("name") or f"serve-{model.id.rpartition(':')[2]}", "model": model.id}
        return self._hosting("deploy", model.id, model.scope, body)

    def plan_remove(self, deployment: Deployment) -> Plan:
        """See `Host`."""
        return self._hosting("remove", deployment.id, deployment.scope, {"name": deployment.id})

    def _hosting(self, purpose: Literal["deploy", "remove"], about: str, scope: str, body: dict[str, Any]) -> Plan:
        if scope != self.scope():
            raise InvalidRequest(f"{about} belongs to another account than the key in use, {self.scope()}")
        return translation.hosting_plan(purpose, about, self.name, scope, body)

    def deployments(self) -> Iterable[Deployment]:
        """See `Host`."""
        scope = self.scope()
        return [
            Deployment(
                id=entry["name"], backend=self.name, scope=scope, model=entry["model"], state="ready",
                native_state="InService", created_at=translation.when(entry["created_at"]),
            )
            for entry in self._ask("list_deployments", {})
        ]  # fmt: skip

    def generate(
        self, model: TunedModel, prompts: Sequence[Prompt], options: GenerateOptions | None = None
    ) -> Iterator[Generation]:
        """See `Generator`."""
        options = options or GenerateOptions()
        model_id = model.base if options.base else model.id
        for prompt in prompts:
            turns = [str(turn["content"]) for turn in messages_of(prompt)]
            body = {"model": model_id, "prompt": turns[-1], "max_tokens": options.max_tokens}
            text, read = str(self._ask("generate", body)["text"]), len(" ".join(turns).split())
            yield Generation(text=text, finish_reason="stop", model=model_id, prompt_tokens=read, completion_tokens=1)

    def scope(self) -> str:
        """See `Generator`. The key's account and region; they do not change, so they are read once."""
        if self._owner is None:
            self._owner = str(self._ask("whoami", {})["owner"])
        return self._owner

    # -- the wire --------------------------------------------------------------------------------------------------

    def _id(self, ref: JobRef) -> str:
        if ref.scope != self.scope():  # the same id in another account is another job
            raise JobNotFound(f"{ref} belongs to another account than the key in use, {self.scope()}")
        return ref.id

    def _ask(self, call: str, body: dict[str, Any], payload: bytes = b"") -> Any:
        sent = msgspec.json.decode(msgspec.json.encode(body))  # like over a network: JSON, and nothing shared
        try:
            return self._vendor.request(call, sent, api_key=self._key, payload=payload)
        except VendorError as error:
            raise translation.to_error(error, call, self._key) from error

    def _pages(self, call: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        more = True
        while more:
            page = self._ask(call, body)
            yield from page["data"]
            more = page["has_more"] and bool(page["data"])
            body = body | {"after": page["data"][-1]["id"] if page["data"] else None}

    def _snapshot(self, job: dict[str, Any]) -> JobSnapshot:
        return translation.to_snapshot(job, self.name, job["owner"])
