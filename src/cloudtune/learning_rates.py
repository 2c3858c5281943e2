"""Learning-rate range test: train for some steps at growing rates on this machine, and suggest a rate.

The test is a job of the local back end in a temporary folder that is deleted at the end. No job, model or checkpoint
remains, and the base model is not changed.
"""

from __future__ import annotations

import math
import tempfile
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from cloudtune.client import Client
from cloudtune.errors import CloudtuneError, InputError
from cloudtune.registry import open_backend
from cloudtune.spec import JobSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloudtune.config.config import Config
    from cloudtune.state import Metric
    from cloudtune.watch import Update

BACKEND = "local"
FIRST, LAST, STEPS = 1e-7, 1.0, 100


class RangePoint(NamedTuple):
    """One step of the test."""

    learning_rate: float
    loss: float
    smoothed: float
    """Exponential moving average of the loss."""


class RateSuggestion(NamedTuple):
    """The result of the test."""

    points: tuple[RangePoint, ...]
    steepest: float | None
    """The rate at which the loss falls fastest; None if it never falls."""
    diverged: float | None
    """The rate at which the loss diverged; None if it did not within the range."""
    suggestion: float | None
    """The steepest rate, but at most a tenth of the rate of divergence."""


def range_test(
    spec: JobSpec, *, first: float = FIRST, last: float = LAST, steps: int = STEPS, config: Config | None = None,
    trust_remote_code: bool = False, on_update: Callable[[Update], None] | None = None,
) -> RateSuggestion:  # fmt: skip
    """Train for up to ``steps`` steps at rates that grow exponentially from ``first`` to ``last``.

    The model, rows, method, adapter, batch size and seed are those of the spec. The same spec gives the same result on
    the same machine.

    Raises:
        InputError: ``steps`` is less than 10, or ``first`` is not lower than ``last``.
        SpecError, DataError: The spec cannot be trained on this machine, or its loss does not show what it learns.
        JobFailed: The training failed.

    """
    if steps < 10 or not 0 < first < last < math.inf:
        raise InputError("a range test needs at least 10 steps, from a positive rate to a higher one")
    with tempfile.TemporaryDirectory(prefix="cloudtune-lr-") as folder:
        settings = dict(config.settings(BACKEND)) if config is not None else {}
        backend = open_backend(BACKEND, settings | {"root": str(Path(folder) / "runs")})
        with Client(backend, config=config, ledger=f"sqlite:///{folder}/ledger.db") as client:
            plan = client.plan(_test_of(spec, first, last, steps))
            job = client.submit(plan, trust_remote_code=trust_remote_code)
            try:
                for update in job.watch():
                    if on_update is not None:
                        on_update(update)
            finally:
                with suppress(CloudtuneError):
                    job.cancel()
                    for _ in job.watch():  # it uses the folder until it has ended
                        pass
            return suggested(job.metrics(), steps)


def _test_of(spec: JobSpec, first: float, last: float, steps: int) -> JobSpec:
    """The spec of the test: training rows only, and no limits. Shares that are held out stay held out."""
    document = spec.model_dump(exclude_unset=True)
    for part in ("validation", "evaluation", "checkpoints", "limits", "backend"):
        document.pop(part, None)
    document["data"] = {key: value for key, value in document["data"].items()
                        if key not in ("validation", "test") or isinstance(value, float)}  # fmt: skip
    hyper = document.get("hyperparameters", {})
    unused = ("epochs", "warmup_steps", "warmup_ratio", "scheduler")
    document["hyperparameters"] = {key: value for key, value in hyper.items() if key not in unused}
    document["hyperparameters"]["max_steps"] = steps
    own = document.get("overrides", {}).get(BACKEND, {}) | {"learning_rate_range": {"first": first, "last": last}}
    document["overrides"] = {BACKEND: own}
    return JobSpec.model_validate(document)


def suggested(metrics: Sequence[Metric], steps: int) -> RateSuggestion:
    """Find the suggestion in the metrics of a test of ``steps`` steps."""
    rows = [metric.values for metric in metrics if "learning_rate" in metric.values]
    names = ("learning_rate", "loss", "smoothed_loss")
    points = tuple(RangePoint(*(row[name] for name in names)) for row in rows if row.keys() >= set(names))
    has_diverged = len(rows) > len(points) or len(points) < steps
    diverged = rows[-1]["learning_rate"] if rows and has_diverged else None
    lowest = min(range(len(points)), key=lambda i: points[i].smoothed, default=0)
    near = max(3, steps // 10)  # the steps are even in log(rate)
    falls = {
        i: fmean(point.loss for point in points[i - near : i]) - fmean(point.loss for point in points[i : i + near])
        for i in range(near, min(lowest, len(points) - near) + 1)
    }
    best = max(falls, key=falls.__getitem__, default=None)
    steepest = points[best].learning_rate if best is not None and falls[best] > 0 else None
    found = [rate for rate in (steepest, None if diverged is None else diverged / 10) if rate is not None]
    return RateSuggestion(points, steepest, diverged, min(found) if steepest is not None else None)
