"""What a back end is: read this file first.

A back end supplies facts and single acts. It answers what it can do (`Capabilities`), writes down what it would send
(`Plan`), does one step, says whether a step is already done, and reports. It holds no loop, no sleep, no retry and no
vendor waiter: waiting, retrying, journaling and rendering are core's, written once (``execute``, ``watch``).

The way of a job::

    resolve(spec) ─ plan(request) ─ [ find(step) ─ do(step) ]* ─ get/events/metrics/checkpoints(ref) ─ model(ref)
      may read        pure            core, against the ledger       read only, no side effects
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path  # noqa: TC003
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import msgspec

from cloudtune.errors import Problem
from cloudtune.state import (
    Checkpoint,
    Deployment,
    Event,
    Generation,
    JobRef,
    JobSnapshot,
    Metric,
    TunedModel,
    Value,
)

if TYPE_CHECKING:
    from pydantic import BaseModel

    from cloudtune.spec import JobSpec  # noqa: TC004 - a PlanRequest is never decoded, and spec loads pydantic

PLAN_VERSION = 1

VERBS = (
    "verb:cancel", "verb:checkpoints", "verb:continue", "verb:delete", "verb:deploy", "verb:events", "verb:export",
    "verb:generate", "verb:list", "verb:metrics", "verb:pause", "verb:resume",
)  # fmt: skip
"""What can be done with a job, as feature names. ``continue`` makes a new job from an ended one's checkpoint."""


class Capabilities(Value, frozen=True, kw_only=True):
    """What a back end can do, and for what it cannot, one sentence why. Asked before any I/O.

    Features are named as in ``JobSpec.asked`` (``method:sft``, ``hyperparameters.epochs``) and `VERBS`.
    """

    supports: frozenset[str]
    reasons: dict[str, str] = {}
    """Feature that is not supported -> why not, and what to use instead."""
    translated: dict[str, str] = {}
    """Supported feature -> what it becomes there, where that is not obvious."""
    inherent: frozenset[str] = frozenset()
    """Supported features that hold for every job there, so that nothing is sent for them; ``translated`` says why."""
    overridden_by: dict[str, str] = {}
    """Feature that is not supported -> the key of ``overrides`` that says it in the back end's own words.

    A spec that gives that override may keep the portable feature: it is left out here, and shown as dropped."""
    poll_s: float = 2.0
    """How soon a watch looks again while the job moves: a service is asked seldom, a file may be read often."""

    def can(self, feature: str) -> bool:
        """Whether the feature is supported."""
        return feature in self.supports

    def why_not(self, feature: str) -> str:
        """The reason for what is not supported."""
        return self.reasons.get(feature, "this back end has nothing that corresponds to it")


class RowLimit(Value, frozen=True, kw_only=True):
    """How long a row may be, and what counts it."""

    tokens: int
    tokenizer: str
    """A folder that holds the model's tokenizer.json (and its chat template)."""
    cut: bool = False
    """Longer rows are cut there, and the plan warns of them; otherwise they are refused."""


class Resolved(Value, frozen=True, kw_only=True):
    """What had to be looked up in the world before planning; never secrets. Plain JSON."""

    scope: str
    """Account, region, project or folder that the job will live in: part of its `JobRef`."""
    facts: dict[str, Any] = {}
    identity: dict[str, Any] = {}
    """Facts that make it another job when they change, e.g. the fingerprint of a model in a folder."""
    row_limit: RowLimit | None = None
    """Where the model's own tokenizer can be had: rows over the limit are found by plan, with their lines."""
    at: datetime | None = None


class SplitInfo(Value, frozen=True, kw_only=True):
    """One side of the data, counted once."""

    rows: int
    bytes: int
    """Of the canonical records, in UTF-8."""
    sha256: str
    """Of the canonical records in order: the same rows give the same hash, whatever file format held them."""
    kind: str
    """chat or text: the canonical kind of the records."""
    longest_chars: int = 0


class DataReport(Value, frozen=True, kw_only=True):
    """What planning learnt of the data."""

    splits: dict[str, SplitInfo]
    """``train`` and, where asked for, ``validation`` and ``test``."""
    fingerprint: str
    """Hash over all splits."""
    problems: tuple[Problem, ...] = ()
    """Warnings; errors are raised as DataError before a report exists."""


class PlanRequest(Value, frozen=True, kw_only=True):
    """All that ``plan`` may look at."""

    spec: JobSpec
    data: DataReport
    resolved: Resolved
    key: str
    """Hash of (spec, data, back end, scope): the job's identity."""
    attempt: int
    token: str
    """Hash of (key, attempt), 32 hex digits: what names and idempotency tokens are derived from."""
    parent: JobRef | None = None
    """The ended job whose newest good checkpoint this one starts from."""

    @property
    def slug(self) -> str:
        """A readable name of this very attempt, unique through the token: letters, digits and hyphens, at most 51."""
        return f"{self.spec.name}-{self.token[:10]}"


class Step(Value, frozen=True, kw_only=True):
    """One act, with the exact request that it will send.

    A value in ``request`` may be a place, ``{"$step": "upload_train", "output": "file_id"}``, which core fills with
    an earlier step's output before the step is done.
    """

    id: str
    kind: Literal["encode", "upload", "call", "await"]
    """``encode`` is core's own: it writes a split in a format and outputs path, sha256, bytes and rows."""
    title: str
    request: dict[str, Any] = {}
    once: Literal["pure", "atomic", "reconciled"] = "pure"
    """How it happens only once: nothing to repeat; the vendor enforces a token or name; we find before we send."""
    token: str = ""
    settle_s: float = 0.0
    """After a send without an answer: how long absence is not believed (request timeout plus the vendor's list lag)."""
    limit_s: float | None = None
    """For ``await``: give up after this many seconds."""
    makes_job: bool = False
    """Its outputs hold ``ref``, the new job's reference as a string. The plan's last step, and no other, does."""


class Setting(Value, frozen=True, kw_only=True):
    """One value that will be in force, and who chose it."""

    field: str
    value: Any
    source: str
    """``spec``, ``override``, ``default of <back end>``, ``derived: ...``."""


class Dropped(Value, frozen=True, kw_only=True):
    """A field that the back end cannot apply and that ``unsupported: drop`` left out."""

    field: str
    value: Any
    reason: str


class CostEstimate(Value, frozen=True, kw_only=True):
    """What the job is expected to cost, and how old the prices are."""

    usd: float | None
    """The expected sum; None where only bounds, or the price of an hour, are known."""
    basis: str
    prices_as_of: str | None = None
    at_least_usd: float | None = None
    at_most_usd: float | None = None


class Plan(Value, frozen=True, kw_only=True):
    """Everything that submit would do, before it does any of it. JSON, and no secret in it."""

    schema_version: int = PLAN_VERSION
    purpose: Literal["job", "deploy", "remove"] = "job"  # the latter two have no step that makes a job
    name: str
    backend: str
    scope: str
    key: str
    attempt: int
    token: str
    spec: dict[str, Any]
    """The spec as it will be carried out, after drops."""
    steps: tuple[Step, ...]
    data: DataReport
    resolved: Resolved
    settings: tuple[Setting, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    warnings: tuple[Problem, ...] = ()
    cost: CostEstimate | None = None
    parent: str | None = None
    """Reference of the ended job that this one starts from."""


class Intent(Value, frozen=True, kw_only=True):
    """What the ledger knows of a step that was begun."""

    begun_at: datetime
    sent_at: datetime | None = None
    """When it was last sent; None if it surely never was."""
    sends: int = 0
    notes: dict[str, Any] = {}
    """What ``do`` journaled on the way: upload ids, finished parts."""


class Done(Value, frozen=True, kw_only=True):
    """The step has been done; these are its outputs."""

    outputs: dict[str, Any] = {}
    duplicates: tuple[str, ...] = ()
    """References of further jobs that a late request made: core cancels them and records it."""


class Absent(Value, frozen=True, kw_only=True):
    """Nothing is to be seen of the step. Core believes it only once ``settle_s`` has passed since the last send."""


class Unsettled(Value, frozen=True, kw_only=True):
    """It cannot be told yet, for a reason that the vendor gives: ask again at ``until``."""

    until: datetime


Found = Done | Absent | Unsettled


class Probe(Value, frozen=True, kw_only=True):
    """How an ``await`` step stands."""

    state: Literal["ready", "pending", "failed"]
    outputs: dict[str, Any] = {}
    message: str = ""


class Journal(Protocol):
    """Durable notes inside one step: written before the act that they announce."""

    def note(self, name: str, value: Any) -> None:
        """Keep a JSON value under that name; it is durable when this returns."""

    @property
    def notes(self) -> Mapping[str, Any]:
        """All notes of this step so far, those of a dead process included."""


@runtime_checkable
class Backend(Protocol):
    """A place where jobs run. All methods may be called from several threads."""

    name: ClassVar[str]
    Options: ClassVar[type[BaseModel]]
    """Its settings in the configuration: where its files lie, region, endpoint. Secrets only as references."""
    Overrides: ClassVar[type[BaseModel]]
    """What ``overrides.<name>`` in a spec may hold."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do. No I/O."""

    def check(self, spec: JobSpec) -> Sequence[Problem]:
        """What is wrong with the values that the spec asks for here (ranges, names, combinations). No I/O.

        Core has checked already which features are asked for, and the shape of ``overrides``.
        """

    def resolve(self, spec: JobSpec) -> Resolved:
        """Look up what planning needs. May read the world; writes nothing."""

    def plan(self, request: PlanRequest) -> Plan:
        """Write down the steps. Pure: no I/O, the same request gives the same plan."""

    def do(self, step: Step, journal: Journal) -> dict[str, Any]:
        """Do one step whose places are filled, and return its outputs as JSON."""

    def find(self, step: Step, intent: Intent) -> Found:
        """Whether the step is already done. Reads only."""

    def probe(self, step: Step) -> Probe:
        """How an ``await`` step stands. Reads only."""

    def get(self, ref: JobRef) -> JobSnapshot:
        """The job now. Raises JobNotFound."""

    def list(self, limit: int | None = None) -> Iterable[JobSnapshot]:
        """Jobs of this scope, newest first, those that cloudtune did not make included."""

    def events(self, ref: JobRef, after: str | None = None) -> Sequence[Event]:
        """What happened, in order, after that cursor."""

    def metrics(self, ref: JobRef, after: str | None = None) -> Sequence[Metric]:
        """Figures in order, after that cursor."""

    def checkpoints(self, ref: JobRef) -> Sequence[Checkpoint]:
        """What was kept, oldest first."""

    def cancel(self, ref: JobRef) -> None:
        """Ask the job to stop. Harmless when repeated or too late."""

    def pause(self, ref: JobRef) -> None:
        """Ask the job to stand still, keeping its state."""

    def resume(self, ref: JobRef) -> None:
        """Let a paused job go on; an ended one is continued by a new job, through a plan with a parent."""

    def delete(self, ref: JobRef) -> None:
        """Remove an ended job and what it holds. Not found is done."""

    def model(self, ref: JobRef) -> TunedModel:
        """What the job produced. Raises InvalidRequest while there is nothing usable."""


@runtime_checkable
class BatchStatus(Protocol):
    """A back end that can tell of many jobs in few calls."""

    def get_many(self, refs: Sequence[JobRef]) -> Mapping[JobRef, JobSnapshot]:
        """The jobs that exist, of those asked for."""


@runtime_checkable
class ByJob(Protocol):
    """A back end whose jobs are not all alike: some can do what others cannot."""

    def capabilities_of(self, ref: JobRef) -> Capabilities:
        """What can be done with that job; its verbs are what counts. No I/O."""


def capabilities_of(backend: Backend, ref: JobRef) -> Capabilities:
    """What can be done with that job."""
    return backend.capabilities_of(ref) if isinstance(backend, ByJob) else backend.capabilities


@runtime_checkable
class HoldsSecrets(Protocol):
    """A back end that signs its requests with secrets that its settings do not hold: those of an SDK's own chain."""

    def secrets(self) -> Iterable[str]:
        """The secret values in use, as far as they are loaded. Core masks them in everything it stores. No I/O."""


@runtime_checkable
class RowRules(Protocol):
    """A back end that says itself what its rows are held against, where its name and the model do not tell it."""

    def data_target(self, spec: JobSpec) -> str | None:
        """A name in ``cloudtune.data.targets``; None = no vendor's rules. No I/O."""


class GenerateOptions(Value, frozen=True, kw_only=True):
    """How an answer is drawn."""

    max_tokens: int = 128
    temperature: float = 0.0
    """0 takes the likeliest token each time."""
    top_p: float = 1.0
    seed: int | None = None
    base: bool = False
    """Ask the base model instead of the tuned one, to compare."""
    stream: bool = False
    """Tell each answer in pieces as it comes, ``Generation.partial``, before the whole; where that cannot be, whole."""


Prompt = str | Sequence[Mapping[str, Any]]
"""A user's words, or a list of ``{"role": ..., "content": ...}`` messages."""


@runtime_checkable
class Host(Protocol):
    """A place where a tuned model answers. It may be gone again: ``find`` is asked of steps done before, too."""

    def plan_deploy(self, model: TunedModel, **options: Any) -> Plan:
        """Steps that make the model answer, keyed by model, scope and options; the last outputs ``name``, the id."""

    def plan_remove(self, deployment: Deployment) -> Plan:
        """Steps that take it down. The plan's ``purpose`` is ``remove``."""

    def deployments(self) -> Iterable[Deployment]:
        """What stands now."""

    def generate(
        self, model: TunedModel, prompts: Sequence[Prompt], options: GenerateOptions | None = None
    ) -> Iterator[Generation]:
        """Answers, in the order of the prompts, as they come: with ``options.stream`` the pieces of one before it.

        One that breaks off on the way is Unavailable, and not a short answer.
        """


class ModelFile(Value, frozen=True, kw_only=True):
    """One file of a model's folder."""

    name: str
    """Below the folder, with slashes."""
    path: str
    bytes: int
    sha256: str


class InPlace(Value, frozen=True, kw_only=True):
    """A model that lies within an importer's reach already: nothing of it is brought here, nothing is uploaded."""

    at: str
    """Its address: what the import is given."""
    name: str
    """What it may be called, unless somebody says otherwise."""
    identity: dict[str, Any]
    """Facts that make it another import when they change: its files with their sizes and versions."""
    facts: dict[str, Any] = {}
    """What ``plan_import`` wants to know of it."""
    problems: tuple[Problem, ...] = ()
    """What an import of it would be refused for, all at once, and warnings."""


class Elsewhere(Value, frozen=True, kw_only=True):
    """A model that cannot be taken from where it lies: it has to be brought here first."""

    reason: str
    fix: str
    """What to do where nobody can bring it."""


class ImportRequest(Value, frozen=True, kw_only=True):
    """All that ``plan_import`` may look at."""

    name: str
    folder: str
    """Where the files lie here; empty for a model that is taken from where it lies."""
    files: tuple[ModelFile, ...]
    in_place: InPlace | None = None
    resolved: Resolved
    key: str
    """Hash of (name, files, back end, scope): the import's identity."""
    attempt: int
    token: str
    """Hash of (key, attempt), as for a job."""

    @property
    def slug(self) -> str:
        """As `PlanRequest.slug`."""
        return f"{self.name}-{self.token[:10]}"


@runtime_checkable
class Importer(Protocol):
    """A back end that takes models which were trained elsewhere. The import is a job of its own."""

    def check_import(self, folder: Path) -> Sequence[Problem]:
        """What is wrong with the model in the folder, all at once. Reads the folder, and nothing else."""

    def resolve_import(self) -> Resolved:
        """As ``resolve``, for an import."""

    def plan_import(self, request: ImportRequest) -> Plan:
        """Steps that upload the files and make the import job. May read the folder's small files."""


@runtime_checkable
class InPlaceImporter(Protocol):
    """An importer that can be given a model where it lies, by its address."""

    def locate(self, source: str | TunedModel) -> InPlace | Elsewhere:
        """Look at an address, or at what a job of another back end left. May read the world; writes nothing.

        Raises InputError for an address that nothing can lie at.
        """


@runtime_checkable
class Exporter(Protocol):
    """A back end whose weights can be taken away."""

    def export(self, model: TunedModel, to: Path, *, merged: bool = False) -> Sequence[Path]:
        """Write the adapter, or the merged safetensors, into a folder that does not exist yet."""


class Check(Value, frozen=True, kw_only=True):
    """One thing that was looked at before a job."""

    what: str
    verdict: Literal["good", "warning", "denied", "cannot_verify"]
    """``cannot_verify``: it may not be looked at, so that nobody knows; not the same as denied."""
    detail: str = ""


@runtime_checkable
class Preflight(Protocol):
    """A back end that can look at what a job will need: identity, permissions, models, quotas."""

    def preflight(self, spec: JobSpec | None = None, plan: Plan | None = None) -> Iterator[Check]:
        """Look at each thing, those of a job where one is given. Reads only; raises nothing for what is wrong.

        ``plan`` is the job's, where one was made: it says what will be asked for.
        """


@runtime_checkable
class Prepares(Protocol):
    """A back end that needs something set up at the vendor first, and can write down what."""

    def documents(self) -> Mapping[str, str]:
        """File name -> text, for a person to look through and apply. Applies nothing."""


def filled(request: Any, outputs: Mapping[str, Mapping[str, Any]]) -> Any:
    """The request with every place replaced by the output it names. Raises KeyError on a step not done yet."""
    if isinstance(request, dict):
        if "$step" in request:
            return outputs[request["$step"]][request["output"]]
        return {key: filled(value, outputs) for key, value in request.items()}
    if isinstance(request, list | tuple):
        return [filled(value, outputs) for value in request]
    return request


def place(step: str, output: str) -> dict[str, str]:
    """A place that ``filled`` replaces: the output of an earlier step."""
    return {"$step": step, "output": output}


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain JSON types."""
    return msgspec.to_builtins(plan, enc_hook=_encode)  # type: ignore[no-any-return]


def plan_from_json(document: Any) -> Plan:
    """Read what ``plan_to_json`` wrote."""
    return msgspec.convert(document, Plan)


# msgspec works out a struct's types when it is first decoded, which two threads must not do at once (seen: a crash with
# msgspec 0.22). An import is made by one thread.
for _decoded in (Plan, Intent):
    msgspec.json.Decoder(_decoded)


def _encode(value: Any) -> Any:
    raise TypeError(f"{type(value).__name__} does not belong in a plan")
