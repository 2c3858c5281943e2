"""The timeline of a scripted job: all its events, computed from the request and cut at a point in time.

Nothing runs in the background. A job's state is a function of time, so that the same requests at the same times get the
same responses. Names and order of the phases: files are validated, the job waits, runs, ends
(https://developers.openai.com/api/docs/guides/supervised-fine-tuning, seen 2026-11-21; openai 3.52.0, FineTuningJob).
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The duration of each phase, and how the job ends. Seconds of the emulator's clock."""

    validating_s: float = 3.0
    queued_s: float = 2.0
    running_s: float = 60.0
    pausing_s: float = 0.0
    """How long a job is ``pausing`` before it is ``paused``."""
    fail_at: float | None = None
    """Share of the training after which the job fails with the error."""
    error_code: str = "server_error"
    error_message: str = "The job failed due to an internal error."
    loading_s: float = 2.0
    """SageMaker: duration of downloading image and data."""
    uploading_s: float = 2.0
    """SageMaker: duration of uploading the model."""
    stopping_s: float = 0.0
    """Amazon's services: how long a job is stopping."""
    interrupt_at: float | None = None
    """SageMaker: share of the training after which a spot job is interrupted, once."""
    interrupted_s: float = 30.0


class TrainingPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A job's parameters: the effective hyperparameters, and the result of validating its files."""

    steps: int
    """Steps of all epochs."""
    epochs: int
    batch_size: int
    learning_rate_multiplier: float
    tokens: int
    """Tokens of one pass over the training file."""
    has_validation: bool = False
    error: dict[str, Any] | None = None


class Occurrence(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a job."""

    at: float
    message: str
    level: str = "info"
    type: str = "message"
    data: dict[str, Any] = {}


class EmulatedCheckpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint."""

    at: float
    step: int
    metrics: dict[str, float]
    is_last: bool = False


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a job at one time, for both engines."""

    word: str
    """The vendor's status."""
    started_at: float | None = None
    finished_at: float | None = None
    estimated_finish: float | None = None
    events: tuple[Occurrence, ...] = ()
    """Oldest first."""
    checkpoints: tuple[EmulatedCheckpoint, ...] = ()
    error: dict[str, Any] | None = None
    trained_tokens: int | None = None


ENDED = frozenset({"succeeded", "failed", "cancelled"})
SUCCESS = ("New fine-tuned model created", "The job has successfully completed")
"""The last events of a job that has succeeded."""


def before_success(seen: JobStatus) -> JobStatus:
    """The state of a succeeded job before its end: without the last checkpoint, which is the tuned model."""
    return msgspec.structs.replace(
        seen, word="running", finished_at=None, trained_tokens=None,
        events=tuple(event for event in seen.events if event.message not in SUCCESS),
        checkpoints=tuple(kept for kept in seen.checkpoints if not kept.is_last),
    )  # fmt: skip


class Actions(msgspec.Struct, frozen=True):
    """The requests that changed a job (cancel, pause, resume), with their times."""

    entries: tuple[tuple[float, str], ...] = ()

    def first(self, kind: str) -> float | None:
        """The time of the first one."""
        return next((at for at, what in self.entries if what == kind), None)

    def is_on(self, now: float) -> float | None:
        """The start of the pause at that time, or None."""
        said = [(at, what) for at, what in self.entries if what in ("pause", "resume") and at <= now]
        return said[-1][0] if said and said[-1][1] == "pause" else None


def status_at(
    job_id: str, created: float, seed: int, script: Script, course: TrainingPlan, acts: Actions, now: float
) -> JobStatus:
    """The job at ``now``."""
    queued = created + script.validating_s
    opening = [Occurrence(at=created, message=f"Created fine-tuning job: {job_id}"),
               Occurrence(at=created, message="Validating training file")]  # fmt: skip
    cancelled = acts.first("cancel")
    seen = now if cancelled is None else min(now, cancelled)
    if course.error is not None and seen >= queued:
        failed = Occurrence(at=queued, message=course.error["message"], level="error")
        return JobStatus(word="failed", finished_at=queued, events=(*opening, failed), error=course.error)
    running = queued + script.queued_s
    future = _future(running, seed, script, msgspec.structs.replace(course, error=None), acts)
    begun = [Occurrence(at=queued, message="Files validated, moving job to queued state"),
             Occurrence(at=running, message="Fine-tuning job started")]  # fmt: skip
    before = [*opening, *(event for event in begun if event.at <= seen)]
    reported = (*before, *future.events[: bisect_right(future.events, seen, key=_moment)])
    started = running if seen >= running else None
    so_far = JobStatus(
        word="", started_at=started, events=reported,
        checkpoints=future.checkpoints[: bisect_right(future.checkpoints, seen, key=_moment)],
    )  # fmt: skip
    if future.end is not None and future.end <= seen:
        error = _error(script)
        tokens = None if error else course.tokens * course.epochs
        word = "failed" if error else "succeeded"
        return msgspec.structs.replace(so_far, word=word, finished_at=future.end, error=error, trained_tokens=tokens)
    if cancelled is not None and cancelled <= now:
        reported = (*reported, Occurrence(at=cancelled, message="Fine-tuning job cancelled"))
        return msgspec.structs.replace(so_far, word="cancelled", finished_at=cancelled, events=reported)
    word = _word(queued, running, acts, script, now)
    return msgspec.structs.replace(so_far, word=word, estimated_finish=future.end if started else None)


def results(seed: int, script: Script, course: TrainingPlan) -> list[dict[str, Any]]:
    """Rows of a finished job's result file: one per step."""
    steps = range(1, _last_step(script, course) + 1)
    return [{"step": step} | _figures(seed, step, course, full=_is_epoch(step, course)) for step in steps]


class _Future(NamedTuple):
    """All later events, in order, if no other request changes the job."""

    events: tuple[Occurrence, ...]
    checkpoints: tuple[EmulatedCheckpoint, ...]
    end: float | None


def _moment(entry: Occurrence | EmulatedCheckpoint) -> float:
    return entry.at


def _error(script: Script) -> dict[str, Any] | None:
    if script.fail_at is None:
        return None
    return {"code": script.error_code, "message": script.error_message, "param": None}


def _word(queued: float, running: float, acts: Actions, script: Script, now: float) -> str:
    if now < queued:
        return "validating_files"
    if now < running:
        return "queued"
    if (since := acts.is_on(now)) is not None:
        return "pausing" if now < since + script.pausing_s else "paused"
    return "running"


def _pauses(acts: Actions) -> list[Occurrence]:
    said = {"pause": "Fine-tuning job paused", "resume": "Fine-tuning job resumed"}
    return [Occurrence(at=at, message=said[what]) for at, what in acts.entries if what in said]


def _spans(running: float, acts: Actions, script: Script) -> list[tuple[float, float, float]]:
    """Intervals of training: begin, end, seconds trained before."""
    turns = [(running, "resume"), *((max(at, running), what) for at, what in acts.entries if what != "cancel")]
    spans, done = [], 0.0
    for (begin, what), (end, _) in pairwise([*turns, (math.inf, "")]):
        if what == "resume":
            spans.append((begin, end, done))
            done += end - begin
    return spans


def _when(spans: list[tuple[float, float, float]], trained: float) -> float | None:
    for begin, end, before in spans:
        if trained <= before + (end - begin):
            return begin + trained - before
    return None


@lru_cache(maxsize=1024)
def _future(running: float, seed: int, script: Script, course: TrainingPlan, acts: Actions) -> _Future:
    """Steps, checkpoints, acts and the end. Computed once for all polls; long jobs report fewer steps."""
    spans = _spans(running, acts, script)
    events, kept = [], []
    stride = max(1, course.steps // 200)
    for step in range(1, _last_step(script, course) + 1):
        is_epoch = _is_epoch(step, course)
        if not is_epoch and step % stride:
            continue
        at = _when(spans, script.running_s * step / course.steps)
        if at is None:
            break
        figures = _figures(seed, step, course, full=is_epoch)
        events.append(_step_event(at, step, course, figures))
        if is_epoch:
            kept.append(
                EmulatedCheckpoint(at=at, step=step, metrics={"step": step} | figures, is_last=step == course.steps)
            )
    end = _when(spans, script.running_s * (1.0 if script.fail_at is None else script.fail_at))
    if end is not None and script.fail_at is not None:
        events.append(Occurrence(at=end, message=script.error_message, level="error"))
    elif end is not None:
        events += [Occurrence(at=end, message=message) for message in SUCCESS]
    # The sort is stable and acts come last: events before an act keep their place when the act is added.
    events = sorted([*events, *_pauses(acts)], key=_moment)
    return _Future(tuple(events), tuple(kept), end)


def _last_step(script: Script, course: TrainingPlan) -> int:
    return course.steps if script.fail_at is None else int(course.steps * script.fail_at)


def _is_epoch(step: int, course: TrainingPlan) -> bool:
    return step == course.steps or step % max(1, math.ceil(course.steps / max(1, course.epochs))) == 0


def _step_event(at: float, step: int, course: TrainingPlan, figures: dict[str, float]) -> Occurrence:
    parts = [f"training loss={figures['train_loss']:.2f}"]
    if "valid_loss" in figures:
        parts.append(f"validation loss={figures['valid_loss']:.2f}")
    message = f"Step {step}/{course.steps}: {', '.join(parts)}"
    return Occurrence(
        at=at, message=message, type="metrics", data={"step": step, "total_steps": course.steps} | figures
    )


def _figures(seed: int, step: int, course: TrainingPlan, *, full: bool) -> dict[str, float]:
    """A loss that falls, with a little noise that is always the same for the same seed and step."""
    digest = hashlib.sha256(f"{seed}/{step}".encode()).digest()
    noise = (digest[0] / 255 - 0.5) * 0.1
    loss = round(0.3 + 2.2 * math.exp(-3 * step / course.steps) + noise, 4)
    found = {"train_loss": loss, "train_mean_token_accuracy": round(math.exp(-loss), 4)}
    if course.has_validation:
        found |= {"valid_loss": round(loss + 0.1, 4), "valid_mean_token_accuracy": round(math.exp(-loss - 0.1), 4)}
        if full:
            found |= {"full_valid_loss": round(loss + 0.12, 4),
                      "full_valid_mean_token_accuracy": round(math.exp(-loss - 0.12), 4)}  # fmt: skip
    return found
