"""The timeline of a scripted job: its state at a given time.

A pure function of the creation time, the acts since then, and the script. Nothing is stored as time passes, so reading
a job changes nothing, and all processes see the same timeline.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal, NamedTuple

from cloudtune.state import Value


class Word(StrEnum):
    """The vendor's own statuses of a job, like an enum of its SDK."""

    WAITING = "Waiting"
    PREPARING = "Preparing"
    TRAINING = "Training"
    PAUSED = "Paused"
    STOPPING = "Stopping"
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPED = "Stopped"
    TIMED_OUT = "TimedOut"


ENDED = frozenset({Word.COMPLETED, Word.FAILED, Word.STOPPED, Word.TIMED_OUT})


class Script(Value, frozen=True, kw_only=True):
    """The phases of a job without interference, in seconds. Make ``queue_s`` large for a slow start."""

    queue_s: float = 5.0
    prepare_s: float = 10.0
    step_s: float = 1.0
    steps: int = 10
    checkpoint_every: int = 5
    stop_s: float = 2.0
    """From the request to stop until the job has stopped."""
    fails: str | None = None
    """The vendor's message, if the job is to fail after its last step instead of completing."""
    max_time_s: float | None = None
    """Training time after which the vendor stops the job."""


class Act(NamedTuple):
    """An act on a job from outside, at a time of the vendor's clock."""

    at: float
    kind: Literal["pause", "resume", "cancel", "fail", "expire", "show", "skip"]
    value: str = ""
    """The failure's message, the word to show, or the seconds to skip."""


class JobStatus(NamedTuple):
    """The visible state of the job."""

    word: str
    step: int
    events: tuple[dict[str, Any], ...]
    metrics: tuple[dict[str, Any], ...]
    checkpoints: tuple[dict[str, Any], ...]
    started_at: float | None
    ended_at: float | None
    message: str


def status_at(created_at: float, acts: list[Act], script: Script, now: float) -> JobStatus:
    """Compute the job's state from its creation until ``now``."""
    return _Living(created_at, script).until(acts, now)


class _Living:
    def __init__(self, created_at: float, script: Script) -> None:
        self._script = script
        self._time = created_at
        self._used = 0.0  # seconds of active life: pauses do not count
        self._milestones = _milestones(script)
        self._word: str = Word.WAITING
        self._shown: str | None = None
        self._stop_at: float | None = None
        self._step = 0
        self._events: list[dict[str, Any]] = []
        self._metrics: list[dict[str, Any]] = []
        self._checkpoints: list[dict[str, Any]] = []
        self._started_at: float | None = None
        self._ended_at: float | None = None
        self._message = ""
        self._say(created_at, "state", "the job was created")

    def until(self, acts: list[Act], now: float) -> JobStatus:
        for act in sorted(acts, key=lambda act: act.at):
            if act.at > now:
                break
            self._pass(act.at)
            self._apply(act)
        self._pass(now)
        return JobStatus(
            self._shown or self._word, self._step, tuple(self._events), tuple(self._metrics),
            tuple(self._checkpoints), self._started_at, self._ended_at, self._message,
        )  # fmt: skip

    def _pass(self, until: float) -> None:
        if self._stop_at is not None and self._word == Word.STOPPING and self._stop_at <= until:
            self._turn(Word.STOPPED, self._stop_at)
        if self._word not in ENDED and self._word not in (Word.PAUSED, Word.STOPPING):
            self._advance(max(0.0, until - self._time), self._time)
        self._time = max(self._time, until)

    def _advance(self, seconds: float, start: float | None) -> None:
        """Reach the milestones of that many active seconds; with no ``start`` they all happen at once."""
        base, goal = self._used, self._used + seconds
        while self._milestones and self._milestones[0][0] <= goal and self._word not in ENDED:
            when, kind, value = self._milestones.pop(0)
            self._used = when
            self._meet(kind, value, self._time if start is None else start + when - base)
        self._used = max(self._used, goal)

    def _meet(self, kind: str, value: Any, at: float) -> None:
        if kind == "turn":
            if value == Word.TRAINING:
                self._started_at = at
            if value == Word.FAILED:
                self._message = self._script.fails or ""
            if value == Word.TIMED_OUT:
                self._message = "the training time limit was reached"
            self._turn(value, at)
            return
        self._step = value
        loss = round(2.0 / (1 + 0.1 * value), 4)
        self._metrics.append({"id": f"met-{value:06}", "at": at, "step": value, "loss": loss})
        if value % self._script.checkpoint_every == 0 or value == self._script.steps:
            self._checkpoints.append({"id": f"ckpt-{value:06}", "at": at, "step": value, "loss": loss})
            self._say(at, "checkpoint", f"checkpoint kept at step {value}")

    def _apply(self, act: Act) -> None:
        if act.kind == "show":
            self._shown = act.value
            return
        self._shown = None
        if self._word in ENDED:
            return
        match act.kind:
            case "pause":
                self._turn(Word.PAUSED, act.at)
            case "resume" if self._word == Word.PAUSED:
                self._turn(Word.TRAINING, act.at)
            case "cancel":
                self._stop_at = act.at + self._script.stop_s
                self._turn(Word.STOPPING, act.at)
            case "fail" | "expire":
                self._message = act.value or "the training time limit was reached"
                self._turn(Word.FAILED if act.kind == "fail" else Word.TIMED_OUT, act.at)
            case "skip":
                self._advance(float(act.value), None)

    def _turn(self, word: Word, at: float) -> None:
        self._word = word
        if word in ENDED:
            self._ended_at = at
        level = "error" if word == Word.FAILED else "info"
        self._say(at, "state", f"the job is now {word}" + (f": {self._message}" if self._message else ""), level)

    def _say(self, at: float, kind: str, message: str, level: str = "info") -> None:
        number = len(self._events) + 1
        self._events.append({"id": f"evt-{number:06}", "at": at, "type": kind, "message": message, "level": level})


def _milestones(script: Script) -> list[tuple[float, str, Any]]:
    """(seconds of active life, what happens), in order."""
    start = script.queue_s + script.prepare_s
    marks: list[tuple[float, str, Any]] = [(script.queue_s, "turn", Word.PREPARING), (start, "turn", Word.TRAINING)]
    marks += [(start + script.step_s * step, "step", step) for step in range(1, script.steps + 1)]
    end = start + script.step_s * (script.steps + 1)
    marks.append((end, "turn", Word.FAILED if script.fails else Word.COMPLETED))
    if script.max_time_s is not None and script.max_time_s < end - start:
        limit = start + script.max_time_s
        marks = [mark for mark in marks if mark[0] <= limit] + [(limit, "turn", Word.TIMED_OUT)]
    return marks
