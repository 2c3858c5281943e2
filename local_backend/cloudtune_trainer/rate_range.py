"""A learning-rate range test: the rate grows exponentially from step to step until the loss diverges.

It writes metrics only: no checkpoint and no model.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cloudtune_trainer.micro_batches import step_gradients
from cloudtune_trainer.optimizer import set_rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune_trainer.job import Job

SMOOTHING = 0.9
"""Share of the earlier losses in the smoothed loss, an exponential moving average without its initial bias."""
_DIVERGED = 4.0
_FALLEN = 0.9


def range_test(job: Job) -> tuple[str, str]:
    """Run the test. Returns the outcome and its message."""
    test, devices, report, schedule = job.spec.learning_rate_range, job.devices, job.report, job.schedule
    assert test is not None
    total, average, curve = schedule.total_steps, 0.0, list[float]()
    report.state("training", step=0, total_steps=total)
    job.model.train()
    for step in range(total):
        request = "cancelled" if job.run.requested("cancel") else "interrupted" if job.stopping() else None
        if (request := devices.agree(request)) is not None:
            return request, f"at step {step}"
        rate = test.first * (test.last / test.first) ** (step / max(1, total - 1))
        set_rate(job.optimizer, rate)
        trained = job.layers.trained_at(step)
        sums = step_gradients(job, job.train, schedule.sequences_of(step))
        loss = sums.loss / sums.count
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smoothed = average / (1 - SMOOTHING ** (step + 1))
        values = {"loss": loss, "smoothed_loss": smoothed, "learning_rate": rate}
        report.metrics(step + 1, schedule.epoch_at(step + 1), "train", values)
        report.progress(step=step + 1)
        job.layers.discard_other_gradients()
        norm = devices.finish_gradients(trained, job.spec.hyperparameters.max_grad_norm, job.optimizer)
        has_overflowed = devices.scaler is None and not math.isfinite(norm)
        curve.append(smoothed)
        if has_overflowed or has_diverged(curve):
            report.event("message", f"the loss diverged at a learning rate of {rate:.3g}", learning_rate=rate)
            break
        devices.step(job.optimizer)
        job.optimizer.zero_grad(set_to_none=True)
    return "succeeded", ""


def has_diverged(curve: Sequence[float]) -> bool:
    """Whether the last smoothed loss is not finite, or far above the lowest one.

    Far above is four times as high; or, once the loss has fallen by a tenth, halfway back to the first one.
    """
    first, lowest, last = curve[0], min(curve), curve[-1]
    if not math.isfinite(last) or last > _DIVERGED * lowest:
        return True
    return lowest < _FALLEN * first and last > (first + lowest) / 2
