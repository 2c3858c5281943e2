"""Values that describe a job, used at the boundary between a back end and core.

All are frozen, typed and convertible to JSON and back (``msgspec``). Times are timezone-aware UTC. No I/O.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Self
from urllib.parse import quote, unquote

import msgspec


class JobState(StrEnum):
    """Job states, the same for every back end. ``native_state`` has the vendor's state."""

    QUEUED = "queued"
    PREPARING = "preparing"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    """Stopped by a limit. It may have a usable model."""
    UNKNOWN = "unknown"
    """A vendor state that this version does not know. Not terminal: the job may still be running. With an end time, the
    job has ended (`JobSnapshot.has_ended`)."""

    @property
    def is_terminal(self) -> bool:
        """Whether the state is final."""
        return self in _TERMINAL

    @property
    def may_have_ended(self) -> bool:
        """Whether a job in this state has ended if the vendor reports an end time."""
        return self.is_terminal or self is JobState.UNKNOWN


_MOST_STEPS = 1 << 53
_TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the frozen values. Fields are keyword-only."""


class JobRef(msgspec.Struct, frozen=True):
    """Identifies a job in any process: ``backend:scope:id`` as one string.

    ``scope`` is the account, region, project or folder, so the same id in another account is another reference.
    """

    backend: str
    scope: str
    id: str

    def __str__(self) -> str:
        return f"{self.backend}:{quote(self.scope, safe='/@+,')}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the output of ``str(ref)``. Raises ValueError for other text."""
        backend, _, rest = text.strip().partition(":")
        scope, colon, vendor_id = rest.partition(":")
        if not (backend and colon and vendor_id):
            raise ValueError(
                f"{text!r} is not a job reference; a reference looks like 'local:/home/me/runs:headlines-3f2a'"
            )
        return cls(backend, unquote(scope), vendor_id)


class Progress(Value, frozen=True, kw_only=True):
    """Training progress. Unknown values are None."""

    step: int | None = None
    total_steps: int | None = None
    epoch: float | None = None
    tokens: int | None = None
    eta_s: float | None = None
    """Estimated remaining seconds, as reported by the trainer or vendor."""


class JobProblem(Value, frozen=True, kw_only=True):
    """Why a job failed or expired: the vendor's message and a cloudtune error class."""

    message: str
    code: str = "failed"
    """``killed``, ``out_of_memory``, ``disk_full``, ``data``, ``stopped_by_limit``, ... or the vendor's code."""
    hint: str | None = None
    interrupted: bool = False
    """True if a signal or a lost machine ended the training, and not the training itself."""


class JobSnapshot(Value, frozen=True, kw_only=True):
    """A job at one moment, as the back end reported it."""

    ref: JobRef
    state: JobState
    native_state: str
    """The vendor's state, unchanged."""
    name: str = ""
    model: str = ""
    """The base model that is being tuned."""
    detail: str = ""
    """A more detailed phase as text, e.g. ``loading weights``."""
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    progress: Progress = Progress()
    problem: JobProblem | None = None
    parent: JobRef | None = None
    """The job that this one resumes or retries."""
    raw: dict[str, Any] = {}
    """The vendor's response, for details without a field."""

    @property
    def has_ended(self) -> bool:
        """Whether the job has ended: its state is final, or unknown to this version with an end time."""
        return self.state.is_terminal or (self.state.may_have_ended and self.finished_at is not None)


class Event(Value, frozen=True, kw_only=True):
    """An event of a job."""

    cursor: str
    """Opaque. Pass it as ``after`` to get only newer items."""
    time: datetime
    message: str
    type: str = "message"
    """``message``, ``state``, ``metrics``, ``checkpoint``, ``warning``, ``error`` or a vendor-specific kind."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    data: dict[str, Any] = {}
    observed: bool = False
    """True if the vendor has no events and this one was derived from an observed change."""


class Metric(Value, frozen=True, kw_only=True):
    """Metrics at one step."""

    cursor: str
    step: int
    values: dict[str, float]
    """E.g. ``loss``, ``perplexity``, ``token_accuracy``, ``learning_rate``, ``grad_norm``, ``tokens_per_s``."""
    split: Literal["train", "validation", "test"] = "train"
    epoch: float | None = None
    time: datetime | None = None


def reported_number(value: Any) -> float | None:
    """A number from a vendor's log or file; None for anything else and for integers that are too large."""
    try:
        return None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def reported_step(value: Any) -> int | None:
    """A step from a vendor's log or file; None for anything else."""
    number = reported_number(value)
    return int(number) if number is not None and 0 <= number < _MOST_STEPS else None


class Checkpoint(Value, frozen=True, kw_only=True):
    """A saved state of the model."""

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
    """The result of training, and how to use it."""

    id: str
    base: str
    backend: str
    scope: str
    ref: JobRef | None = None
    """The job that trained it."""
    call: Literal["in_process", "api", "none"] = "none"
    needs_deploy: bool = False
    adapter: str | None = None
    """lora, full, ...: the content of ``files``."""
    uri: str | None = None
    files: tuple[str, ...] = ()
    retires_at: datetime | None = None
    trust_remote_code: bool = False
    """Whether Python code from the model's repository can run. `Job.model` reads it from the ledger, never a vendor."""
    raw: dict[str, Any] = {}


ASLEEP = "asleep"
"""The state of a deployment without an instance: it costs nothing, and starts within minutes after a request."""


class Deployment(Value, frozen=True, kw_only=True):
    """A deployed model, or one that is being deployed."""

    id: str
    backend: str
    scope: str
    model: str
    state: str
    native_state: str
    created_at: datetime | None = None
    hourly_cost_usd: float | None = None
    ends: str = ""
    """When the vendor deletes it automatically, as text, if it does."""
    ends_at: datetime | None = None
    """The time of that deletion, if it is known."""
    expires_at: datetime | None = None
    """The end of the time to live with which it was deployed, from the ledger: `Client.sweep` then deletes it."""
    raw: dict[str, Any] = {}

    def cost_so_far(self, now: datetime) -> float | None:
        """The present hourly price since the creation in USD, or None if either is unknown.

        A deployment without instances costs nothing now, but how long it had some is unknown.
        """
        if self.hourly_cost_usd is None or self.created_at is None or self.state == ASLEEP:
            return None
        return self.hourly_cost_usd * max((now - self.created_at).total_seconds(), 0.0) / 3600


class Generation(Value, frozen=True, kw_only=True):
    """Generated text, or a part of it."""

    text: str
    partial: bool = False
    """True for a part of a streamed answer. The complete answer follows, with its finish reason."""
    finish_reason: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    scores: dict[str, float] | None = None
    """For a classifier, whose text is a label: the probability of each label, the most likely first."""
    model: str = ""


class Likelihood(Value, frozen=True, kw_only=True):
    """The probability of a text under a model."""

    log_probability: float
    """The natural logarithm of the probability of all tokens of the text, without the end of the answer."""
    tokens: int


class Tag(Value, frozen=True, kw_only=True):
    """The tag of one word."""

    token: str
    tag: str
    score: float
    """Its probability; 0 for a word that the model cannot read."""


class Prediction(Value, frozen=True, kw_only=True):
    """What a model predicts for one input."""

    text: str
    """The label, the answer (empty if there is none), the generated text, or the tags, separated by spaces."""
    score: float | None = None
    """The probability of ``text``, for a label or an answer."""
    scores: dict[str, float] | None = None
    """For a classifier: the probability of each label, the most likely first."""
    value: float | None = None
    """For a reward model, regression and the similarity of two texts: the number in ``text``."""
    tags: tuple[Tag, ...] | None = None
    """For a token classifier: the tag of each word."""
    start: int | None = None
    """For an answer in a context: its first character, counted from 0."""
    end: int | None = None
    """The position after its last character."""
    vector: tuple[float, ...] | None = None
    """For an embedding model: the vector of the text, of length 1."""
    model: str = ""


def to_json(value: Any) -> Any:
    """Convert any value above to plain JSON types. JobRefs become strings, times ISO 8601."""
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


def observed_events(snapshot: JobSnapshot, after: str | None = None) -> list[Event]:
    """Return the events that follow from the snapshot, in order, after that cursor, marked as observed.

    Used for vendors without events.

    Cursors do not depend on the time of the call, so a reader that resumes misses nothing and repeats nothing.
    """
    marks = (
        ("1-created", snapshot.created_at, "created"),
        ("2-started", snapshot.started_at, "started"),
        ("3-ended", snapshot.finished_at, f"ended: {snapshot.native_state}"),
    )
    return [
        Event(cursor=cursor, time=time, message=message, type="state", observed=True)
        for cursor, time, message in marks
        if time is not None and (after is None or cursor > after)
    ]
