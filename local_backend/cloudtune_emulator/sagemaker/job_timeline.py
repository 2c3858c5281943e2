"""The timeline of a scripted training job: computed from the request, and cut at a point in time.

Order: Starting, Pending, Downloading, Training, Uploading, Completed; a spot job may be Interrupted and start again; a
job over its MaxRuntimeInSeconds is Stopped with MaxRuntimeExceeded, one that waited too long with MaxWaitTimeExceeded
(docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeTrainingJob.html, SecondaryStatus, seen 2026-11-21).
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import msgspec

from cloudtune_emulator.job_timeline import Script

TERMINAL = frozenset({"Completed", "Failed", "Stopped"})
MESSAGES = {
    "Starting": "Starting the training job",
    "Pending": "Training job waiting for capacity",
    "Downloading": "Downloading the training image",
    "Training": "Training image download completed. Training in progress.",
    "Interrupted": "Managed spot training instances were interrupted",
    "Uploading": "Uploading generated training model",
    "Completed": "Training job completed",
    "Failed": "Training job failed",
    "Stopping": "Stopping the training job",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds provided",
    "MaxWaitTimeExceeded": "Training job wait time exceeded MaxWaitTimeInSeconds provided",
}
DEFAULT_MAX_RUNTIME_S = 86400
MOST_LINES = 200


class Phase(msgspec.Struct, frozen=True):
    """A secondary status with its start and the primary status."""

    at: float
    status: str
    secondary: str


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a job at one time, for both engines."""

    phases: tuple[Phase, ...]
    reason: str | None = None
    """FailureReason."""
    step: int = 0
    lines: tuple[tuple[float, str], ...] = ()
    """Its log until that time."""

    @property
    def now(self) -> Phase:
        """The current phase."""
        return self.phases[-1]

    @property
    def has_ended(self) -> bool:
        """Whether it is final."""
        return self.now.status in TERMINAL

    def before_end(self) -> Seen:
        """The state before the end."""
        going = tuple(phase for phase in self.phases if phase.status not in TERMINAL)
        return msgspec.structs.replace(self, phases=going, reason=None)

    @property
    def started(self) -> float | None:
        """The start of training."""
        return next((phase.at for phase in self.phases if phase.secondary == "Training"), None)

    @property
    def has_trained(self) -> bool:
        """Whether the model's folder may have files."""
        return self.started is not None


def seen(job: dict[str, Any], now: float) -> Seen:
    """A scripted job at ``now``."""
    script = msgspec.convert(job["script"], Script)
    phases = _phases(job, script)
    reported = tuple(phase for phase in phases if phase.at <= now)
    spans = _training(phases)
    trained = sum(max(0.0, min(now, end) - begin) for begin, end in spans)
    steps = job["course"]["steps"]
    step = min(steps, math.floor(trained / script.running_s * steps + 1e-9)) if script.running_s else steps
    is_failed = reported[-1].status == "Failed"
    return Seen(
        phases=reported, reason=_reason(script) if is_failed else None, step=step if spans else 0,
        lines=tuple(_lines(job, script, spans, now)) if spans else (),
    )  # fmt: skip


def _reason(script: Script) -> str:
    code = "InternalServerError" if script.error_code == "server_error" else script.error_code
    return f"{code}: {script.error_message}"[:1024]


def _phases(job: dict[str, Any], script: Script) -> list[Phase]:
    """All phases, with stops and limits."""
    created = job["created"]
    free = _undisturbed(job, script)
    ends: list[tuple[float, str]] = []
    condition = job["request"].get("StoppingCondition") or {}
    spans = _training(free)
    if spans and (limit := _when(spans, condition.get("MaxRuntimeInSeconds", DEFAULT_MAX_RUNTIME_S))) is not None:
        ends.append((limit, "MaxRuntimeExceeded"))
    if job["request"].get("EnableManagedSpotTraining") and condition.get("MaxWaitTimeInSeconds"):
        ends.append((created + condition["MaxWaitTimeInSeconds"], "MaxWaitTimeExceeded"))
    ends += [(at, "Stopped") for at, kind in job["acts"] if kind == "stop"]
    last = free[-1].at
    early = [end for end in ends if end[0] < last]
    if not early:
        return free
    at, how = min(early)
    kept = [phase for phase in free if phase.at <= at]
    stopping = [Phase(at, "Stopping", "Stopping")] if script.stopping_s else []
    return [*kept, *stopping, Phase(at + script.stopping_s, "Stopped", how)]


def _undisturbed(job: dict[str, Any], script: Script) -> list[Phase]:
    at = job["created"]
    going = "InProgress"
    phases = [Phase(at, going, "Starting")]
    at += script.validating_s
    phases.append(Phase(at, going, "Pending"))
    at += script.queued_s
    phases.append(Phase(at, going, "Downloading"))
    at += script.loading_s
    phases.append(Phase(at, going, "Training"))
    share = 1.0 if script.fail_at is None else script.fail_at
    left = script.running_s * share
    if job["request"].get("EnableManagedSpotTraining") and script.interrupt_at is not None:
        until = min(left, script.running_s * script.interrupt_at)
        at, left = at + until, left - until
        phases.append(Phase(at, going, "Interrupted"))
        at += script.interrupted_s
        phases += [Phase(at, going, "Starting"), Phase(at + script.loading_s, going, "Training")]
        at += script.loading_s
    at += left
    if script.fail_at is not None:
        return [*phases, Phase(at, "Failed", "Failed")]
    return [*phases, Phase(at, going, "Uploading"), Phase(at + script.uploading_s, "Completed", "Completed")]


def _training(phases: list[Phase]) -> list[tuple[float, float]]:
    """Intervals of training."""
    ends = [phase.at for phase in phases[1:]] + [math.inf]
    return [(phase.at, end) for phase, end in zip(phases, ends, strict=True) if phase.secondary == "Training"]


def _when(spans: list[tuple[float, float]], trained: float) -> float | None:
    """The time after that many seconds of training."""
    for begin, end in spans:
        if trained <= end - begin:
            return begin + trained
        trained -= end - begin
    return None


def _lines(
    job: dict[str, Any], script: Script, spans: list[tuple[float, float]], now: float
) -> list[tuple[float, str]]:
    steps, epochs = job["course"]["steps"], job["course"]["epochs"]
    stride = max(1, steps // MOST_LINES)
    found = []
    for step in range(1, steps + 1):
        if step % stride and step != steps:
            continue
        at = _when(spans, script.running_s * step / steps)
        if at is None or at > now:
            break
        found.append((at, _line(job, step, steps, epochs)))
        if job["course"]["has_validation"] and step == steps:
            found.append((at, _eval_line(job, step, steps, epochs)))
    return found


def figure(job: dict[str, Any], step: int, steps: int) -> float:
    """A loss that falls, with a little noise that is always the same for the same job and step."""
    digest = hashlib.sha256(f"{job['seed']}/{step}".encode()).digest()
    return round(0.3 + 2.2 * math.exp(-3 * step / steps) + (digest[0] / 255 - 0.5) * 0.1, 4)


def _line(job: dict[str, Any], step: int, steps: int, epochs: float) -> str:
    """A log line of Hugging Face's Trainer (transformers, ``trainer_callback.py``), or of the job's own program."""
    loss, epoch = figure(job, step, steps), round(step / steps * epochs, 4)
    if (form := job["course"].get("line")) is not None:
        return str(form.format(step=step, steps=steps, loss=loss, epoch=epoch))
    rate = round(job["course"].get("rate", 2e-4) * (1 - (step - 1) / steps), 10)
    return str({"loss": loss, "grad_norm": round(loss / 2, 4), "learning_rate": rate, "epoch": epoch})


def _eval_line(job: dict[str, Any], step: int, steps: int, epochs: float) -> str:
    return str({"eval_loss": round(figure(job, step, steps) + 0.1, 4), "epoch": float(epochs)})
