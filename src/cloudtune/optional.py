"""What a back end may be beyond `cloudtune.backend.Backend`: one short protocol for each ability.

A back end implements the protocols of what it can do and leaves out the others. What it cannot do has its reason in
`Capabilities.reasons`; there are no methods that only refuse.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path  # noqa: TC003
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from cloudtune.errors import Problem
from cloudtune.plan import Plan, Resolved
from cloudtune.state import Deployment, Generation, JobRef, JobSnapshot, TunedModel, Value

if TYPE_CHECKING:
    from cloudtune.backend import Backend, Capabilities
    from cloudtune.data.checks.targets import Target
    from cloudtune.spec import JobSpec


@runtime_checkable
class BatchStatus(Protocol):
    """A back end that can tell of many jobs in few calls."""

    def get_many(self, refs: Sequence[JobRef]) -> Mapping[JobRef, JobSnapshot]:
        """The jobs that exist, of those asked for."""


@runtime_checkable
class PerJobCapabilities(Protocol):
    """A back end whose jobs differ: some can do what others cannot."""

    def capabilities_of(self, ref: JobRef) -> Capabilities:
        """What can be done with that job; its verbs are what counts. No I/O."""


def capabilities_of(backend: Backend, ref: JobRef) -> Capabilities:
    """What can be done with that job."""
    return backend.capabilities_of(ref) if isinstance(backend, PerJobCapabilities) else backend.capabilities


@runtime_checkable
class HoldsSecrets(Protocol):
    """A back end that signs its requests with secrets that its settings do not hold: those of an SDK's own chain."""

    def secrets(self) -> Iterable[str]:
        """The secret values in use, as far as they are loaded. Core masks them in everything it stores. No I/O."""


@runtime_checkable
class Closeable(Protocol):
    """A back end that keeps connections open, such as those of an SDK's client."""

    def close(self) -> None:
        """Close the connections. May be called again; a call after it opens new ones.

        No other call may be running, and no stream may be half read.
        """


@runtime_checkable
class DataRules(Protocol):
    """A back end with rules for its rows: the format that each method trains on, limits, forbidden words."""

    @classmethod
    def target_for(cls, model: str | None, method: str | None = None) -> Target:
        """The rules for a base model when every setting has its default: what ``data check --for`` uses. No I/O."""

    def data_target(self, spec: JobSpec) -> Target | None:
        """The rules for a job under this back end's settings; None = no rules. No I/O."""


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
class Generator(Protocol):
    """A back end whose tuned models answer prompts, deployed or not."""

    def generate(
        self, model: TunedModel, prompts: Sequence[Prompt], options: GenerateOptions | None = None
    ) -> Iterator[Generation]:
        """Yield the answers in the order of the prompts. With ``options.stream``, the pieces of an answer come first.

        Raises Unavailable for an answer that breaks off, instead of yielding a short one.
        """


@runtime_checkable
class Host(Protocol):
    """A back end where models are deployed. A deployment can end, so ``find`` is also asked about completed steps."""

    def plan_deploy(self, model: TunedModel, **options: Any) -> Plan:
        """Steps that deploy the model, keyed by model, scope and options. The last one outputs ``name``, the id."""

    def plan_remove(self, deployment: Deployment) -> Plan:
        """Steps that remove the deployment. The plan's ``purpose`` is ``remove``."""

    def deployments(self) -> Iterable[Deployment]:
        """The deployments that exist now."""


@runtime_checkable
class Pausable(Protocol):
    """A back end whose jobs can be paused."""

    def pause(self, ref: JobRef) -> None:
        """Pause a job, keeping its state."""

    def resume(self, ref: JobRef) -> None:
        """Resume a paused job. An ended one is continued by a new job, through a plan with a parent."""


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
class SetupDocuments(Protocol):
    """A back end that needs something set up at the vendor first, and can write it down."""

    def documents(self) -> Mapping[str, str]:
        """File name -> text, for a person to look through and apply. Applies nothing."""
