"""What is known of a job: values that cross the boundary between a back end and everything else.

All are frozen, typed and convertible to JSON and back (``msgspec``). Times are timezone-aware UTC.
Nothing here talks to anything.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Self
from urllib.parse import quote, unquote

import msgspec


class JobState(StrEnum):
    """The one vocabulary for every back end. The vendor's own word stands beside it in ``native_state``."""

    QUEUED = "queued"
    PREPARING = "preparing"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    """Stopped by a limit; it may still hold a usable model."""
    UNKNOWN = "unknown"
    """A word that this version has not met. Not terminal: the job may well go on."""

    @property
    def is_terminal(self) -> bool:
        """Whether the job will never change again."""
        return self in _TERMINAL


_TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the frozen values; fields are keyword-only."""


class JobRef(msgspec.Struct, frozen=True):
    """All that another process needs to find a job again: ``backend:scope:id`` as one string.

    ``scope`` names the account, region, project or folder, so that the same id in another account is another ref.
    """

    backend: str
    scope: str
    id: str

    def __str__(self) -> str:
        return f"{self.backend}:{quote(self.scope, safe='/@+,')}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str(ref)`` wrote. Raises ValueError on anything else."""
        backend, _, rest = text.strip().partition(":")
        scope, colon, vendor_id = rest.partition(":")
        if not (backend and colon and vendor_id):
            raise ValueError(
                f"{text!r} is not a job reference; a reference looks like 'local:/home/me/runs:headlines-3f2a'"
            )
        return cls(backend, unquote(scope), vendor_id)


class Progress(Value, frozen=True, kw_only=True):
    """How far the training is. Unknown figures are None."""

    step: int | None = None
    total_steps: int | None = None
    epoch: float | None = None
    tokens: int | None = None
    eta_s: float | None = None
    """Seconds still to go, as estimated by whoever trains."""


class JobProblem(Value, frozen=True, kw_only=True):
    """Why a job failed or expired: the vendor's words and our class."""

    message: str
    code: str = "failed"
    """``killed``, ``out_of_memory``, ``disk_full``, ``data``, ``stopped_by_limit`` ... or the vendor's own code."""
    hint: str | None = None


class JobSnapshot(Value, frozen=True, kw_only=True):
    """A job at one moment, as the back end reported it."""

    ref: JobRef
    state: JobState
    native_state: str
    """The vendor's own word, kept as it came."""
    name: str = ""
    model: str = ""
    """The base model that is being tuned."""
    detail: str = ""
    """A finer phase, in words, e.g. ``loading weights``."""
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    progress: Progress = Progress()
    problem: JobProblem | None = None
    parent: JobRef | None = None
    """The job that this one resumes or retries."""
    raw: dict[str, Any] = {}
    """The vendor's answer, for what the fields above do not carry."""


class Event(Value, frozen=True, kw_only=True):
    """Something that happened to a job."""

    cursor: str
    """Opaque; hand it back as ``after`` to get only what is newer."""
    time: datetime
    message: str
    type: str = "message"
    """``message``, ``state``, ``metrics``, ``checkpoint``, ``warning``, ``error`` or the vendor's own."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    data: dict[str, Any] = {}
    observed: bool = False
    """True where the vendor keeps no events and this was made from an observed change."""


class Metric(Value, frozen=True, kw_only=True):
    """Figures at one step."""

    cursor: str
    step: int
    values: dict[str, float]
    """E.g. ``loss``, ``perplexity``, ``token_accuracy``, ``learning_rate``, ``grad_norm``, ``tokens_per_s``."""
    split: Literal["train", "validation", "test"] = "train"
    epoch: float | None = None
    time: datetime | None = None


class Checkpoint(Value, frozen=True, kw_only=True):
    """A state of the model that was kept."""

    id: str
    step: int | None = None
    epoch: float | None = None
    best: bool = False
    last: bool = False
    resumable: bool = False
    metrics: dict[str, float] = {}
    created_at: datetime | None = None
    uri: str | None = None


class TunedModel(Value, frozen=True, kw_only=True):
    """What training produced, and what it takes to use it."""

    id: str
    base: str
    backend: str
    scope: str
    ref: JobRef | None = None
    """The job that made it."""
    call: Literal["in_process", "api", "none"] = "none"
    needs_deploy: bool = False
    adapter: str | None = None
    """lora, full, ...: what ``files`` hold."""
    uri: str | None = None
    files: tuple[str, ...] = ()
    retires_at: datetime | None = None
    trust_remote_code: bool = False
    """Whether Python code that comes with the model may run. `Job.model` knows it from the ledger; never a vendor."""
    raw: dict[str, Any] = {}


class Deployment(Value, frozen=True, kw_only=True):
    """A model that answers, or is being made to."""

    id: str
    backend: str
    scope: str
    model: str
    state: str
    native_state: str
    created_at: datetime | None = None
    hourly_cost_usd: float | None = None
    ends: str = ""
    """When the place takes it down by itself, if it does, in words."""
    ends_at: datetime | None = None
    """And the moment, where it is known beforehand."""
    raw: dict[str, Any] = {}


class Generation(Value, frozen=True, kw_only=True):
    """An answer of a model, or a piece of one."""

    text: str
    partial: bool = False
    """A piece of an answer that goes on; the whole of it follows, with the reason of its end."""
    finish_reason: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    model: str = ""


def to_json(value: Any) -> Any:
    """Plain JSON types of any value above: JobRefs become their strings, times ISO 8601."""
    return msgspec.to_builtins(_refs_to_text(value), str_keys=True)


def _refs_to_text(value: Any) -> Any:
    if isinstance(value, JobRef):
        return str(value)
    if isinstance(value, msgspec.Struct):
        return {name: _refs_to_text(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {key: _refs_to_text(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_refs_to_text(item) for item in value]
    return value
