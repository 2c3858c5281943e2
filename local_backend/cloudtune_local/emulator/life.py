"""A scripted job's life: everything that will happen to it, computed from what was asked, and cut at a moment.

Nothing runs in the background: a job moves because time does, so the same requests at the same times see the same.
Words and order of the phases: files are validated, the job waits, runs, ends
(https://developers.openai.com/api/docs/guides/supervised-fine-tuning, seen 2026-11-21; openai 3.52.0, FineTuningJob).
"""

from __future__ import annotations

import hashlib
import math
from itertools import pairwise
from typing import Any

import msgspec


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long each phase takes, and how it ends. Seconds of the emulator's clock."""

    validating_s: float = 3.0
    queued_s: float = 2.0
    running_s: float = 60.0
    pausing_s: float = 0.0
    """How long a job says ``pausing`` before it says ``paused``."""
    fail_at: float | None = None
    """Share of the training after which the job fails with the error."""
    error_code: str = "server_error"
    error_message: str = "The job failed due to an internal error."


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """What a job will do: the figures in force, and what validating its files found."""

    steps: int
    epochs: int
    batch_size: int
    learning_rate_multiplier: float
    tokens: int
    """In one pass over the training file."""
    has_validation: bool = False
    error: dict[str, Any] | None = None


class Occurrence(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is told of a job at a moment."""

    at: float
    message: str
    level: str = "info"
    type: str = "message"
    data: dict[str, Any] = {}


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint."""

    at: float
    step: int
    metrics: dict[str, float]
    is_last: bool = False


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """A job at one moment, whichever engine moves it."""

    word: str
    """The vendor's status."""
    started_at: float | None = None
    finished_at: float | None = None
    estimated_finish: float | None = None
    events: tuple[Occurrence, ...] = ()
    """Oldest first."""
    checkpoints: tuple[Kept, ...] = ()
    results: tuple[dict[str, Any], ...] = ()
    """Rows of the result file."""
    error: dict[str, Any] | None = None
    trained_tokens: int | None = None


ENDED = frozenset({"succeeded", "failed", "cancelled"})


class Acts(msgspec.Struct, frozen=True):
    """What was done to a job from outside, each with its time."""

    entries: tuple[tuple[float, str], ...] = ()

    def first(self, kind: str) -> float | None:
        """When it was first done."""
        return next((at for at, what in self.entries if what == kind), None)

    def is_on(self, now: float) -> float | None:
        """Since when the job stands paused at that moment, or None."""
        said = [(at, what) for at, what in self.entries if what in ("pause", "resume") and at <= now]
        return said[-1][0] if said and said[-1][1] == "pause" else None


def life(job_id: str, created: float, seed: int, script: Script, course: Course, acts: Acts, now: float) -> Life:
    """The job at ``now``."""
    cancelled = acts.first("cancel")
    seen = now if cancelled is None else min(now, cancelled)
    queued = created + script.validating_s
    events = [Occurrence(at=created, message=f"Created fine-tuning job: {job_id}")]
    events.append(Occurrence(at=created, message="Validating training file"))
    if course.error is not None and seen >= queued:
        events.append(Occurrence(at=queued, message=course.error["message"], level="error"))
        return Life(word="failed", finished_at=queued, events=tuple(events), error=course.error)
    running = queued + script.queued_s
    events.append(Occurrence(at=queued, message="Files validated, moving job to queued state"))
    events.append(Occurrence(at=running, message="Fine-tuning job started"))
    spans = _spans(running, acts, script)
    result = _trained(seed, script, course, spans, seen)
    end, error = result.pop("end"), result.pop("error")
    # The sort is stable and acts come last: what was told before an act keeps its place when the act is told.
    events += [*result.pop("events"), *_pauses(acts)]
    told = tuple(sorted((event for event in events if event.at <= seen), key=lambda event: event.at))
    started = running if seen >= running else None
    if end is not None and end <= seen:
        word = "failed" if error else "succeeded"
        tokens = None if error else course.tokens * course.epochs
        return Life(
            word=word, started_at=started, finished_at=end, events=told, error=error, trained_tokens=tokens, **result
        )
    if cancelled is not None and cancelled <= now:
        told = (*told, Occurrence(at=cancelled, message="Fine-tuning job cancelled"))
        return Life(word="cancelled", started_at=started, finished_at=cancelled, events=told, **result)
    word = _word(queued, running, acts, script, now)
    return Life(word=word, started_at=started, estimated_finish=end if started else None, events=told, **result)


def _word(queued: float, running: float, acts: Acts, script: Script, now: float) -> str:
    if now < queued:
        return "validating_files"
    if now < running:
        return "queued"
    if (since := acts.is_on(now)) is not None:
        return "pausing" if now < since + script.pausing_s else "paused"
    return "running"


def _pauses(acts: Acts) -> list[Occurrence]:
    said = {"pause": "Fine-tuning job paused", "resume": "Fine-tuning job resumed"}
    return [Occurrence(at=at, message=said[what]) for at, what in acts.entries if what in said]


def _spans(running: float, acts: Acts, script: Script) -> list[tuple[float, float, float]]:
    """Stretches of training: begin, end, seconds trained before."""
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


def _trained(
    seed: int, script: Script, course: Course, spans: list[tuple[float, float, float]], seen: float
) -> dict[str, Any]:
    """Steps, checkpoints and the end, as far as ``seen``; events one a step, thinned out for long jobs."""
    events, kept, rows = [], [], []
    stride = max(1, course.steps // 200)
    last = course.steps if script.fail_at is None else int(course.steps * script.fail_at)
    per_epoch = max(1, math.ceil(course.steps / max(1, course.epochs)))
    for step in range(1, last + 1):
        at = _when(spans, script.running_s * step / course.steps)
        if at is None or at > seen:
            break
        figures = _figures(seed, step, course, full=step % per_epoch == 0 or step == course.steps)
        rows.append({"step": step} | figures)
        if step % stride == 0 or step == course.steps:
            events.append(_step_event(at, step, course, figures))
        if step % per_epoch == 0 or step == course.steps:
            kept.append(Kept(at=at, step=step, metrics={"step": step} | figures, is_last=step == course.steps))
    share = 1.0 if script.fail_at is None else script.fail_at
    end = _when(spans, script.running_s * share)
    error = None
    if script.fail_at is not None:
        error = {"code": script.error_code, "message": script.error_message, "param": None}
    if end is not None and error is not None:
        events.append(Occurrence(at=end, message=script.error_message, level="error"))
    elif end is not None:
        events += [Occurrence(at=end, message="New fine-tuned model created"),
                   Occurrence(at=end, message="The job has successfully completed")]  # fmt: skip
    return {"events": events, "checkpoints": tuple(kept), "results": tuple(rows), "end": end, "error": error}


def _step_event(at: float, step: int, course: Course, figures: dict[str, float]) -> Occurrence:
    parts = [f"training loss={figures['train_loss']:.2f}"]
    if "valid_loss" in figures:
        parts.append(f"validation loss={figures['valid_loss']:.2f}")
    message = f"Step {step}/{course.steps}: {', '.join(parts)}"
    return Occurrence(
        at=at, message=message, type="metrics", data={"step": step, "total_steps": course.steps} | figures
    )


def _figures(seed: int, step: int, course: Course, *, full: bool) -> dict[str, float]:
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
