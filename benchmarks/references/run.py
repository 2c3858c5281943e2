"""Train on real weights and data, and compare with a published or customary mark.

    python benchmarks/references/run.py [NAME ...]     QUICK=1: fewer rows

Every entry is one job of the local back end, through the public API, or two that are compared. An accuracy has its
Wilson interval of 95 %. The accuracy of another job is as uncertain: where it is the mark, the interval is that of the
difference, added to the mark. The result of each entry is written to ``results.json`` beside this file once it ends.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TQDM_DISABLE", "1")  # disables progress bars; read when transformers is imported

import results
from entries import ENTRIES

import cloudtune
from cloudtune.evaluation.statistics import t_quantile, wilson
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options

if TYPE_CHECKING:
    import sources
    from entries import Entry

QUICK = os.environ.get("QUICK") == "1"
THREADS = int(os.environ.get("OMP_NUM_THREADS", "0")) or None


def run(name: str) -> dict[str, Any]:
    """Train and test one entry."""
    entry = ENTRIES[name]
    count, tested = entry.quick if QUICK else entry.sizes
    train, test = entry.rows(0, count), entry.rows(count, count + tested)
    with tempfile.TemporaryDirectory(prefix="references-") as place:
        root = Path(place)
        model = entry.model(root)
        began = time.monotonic()
        found = [_trained(root, model, entry, train, test, entry.parts, seed) for seed in range(entry.seeds)]
        seconds = time.monotonic() - began
        others: list[float] = []
        if entry.mark is None:
            assert entry.other is not None
            rows = entry.control(train) if entry.control is not None else train
            others = [_trained(root, model, entry, rows, test, entry.other, seed) for seed in range(entry.seeds)]
    mark = fmean(others) if others else entry.mark(train, test) if callable(entry.mark) else entry.mark
    assert mark is not None
    value = fmean(found)
    # All words count: the trainer divides a long sentence instead of truncating it.
    units = sum(len(row["tokens"]) for row in test) if "tokens" in test[0] else len(test)
    if entry.seeds > 1:
        differences = [one - other for one, other in zip(found, others, strict=True)]
        half = t_quantile(0.975, entry.seeds - 1) * stdev(differences) / math.sqrt(entry.seeds)
        low, high = value - half, value + half
    elif others:
        low, high = (mark + end for end in _difference(round(value * units), round(mark * units), units))
    else:
        value, low, high = wilson(round(value * units), units)
    return {
        "metric": entry.metric, "mark": round(mark, 4), "mark_source": entry.source, "value": round(value, 4),
        "interval": [round(low, 4), round(high, 4)], "units": units, "seeds": entry.seeds, "train_rows": len(train),
        "test_rows": len(test), "seconds": round(seconds), "quick": QUICK, "threads": THREADS,
        "packages": [str(package) for package in entry.packages], "processor": _processor(),
        "cores": os.cpu_count(), "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip


def _difference(right: int, other: int, units: int) -> tuple[float, float]:
    """The interval of the difference of two accuracies on as many units (Newcombe, 1998, method 10)."""
    (a, low_a, high_a), (b, low_b, high_b) = wilson(right, units), wilson(other, units)
    return a - b - math.hypot(a - low_a, high_b - b), a - b + math.hypot(high_a - a, b - low_b)


def _trained(
    root: Path, model: Path, entry: Entry, train: sources.Rows, test: sources.Rows, parts: dict[str, Any], seed: int
) -> float:
    """The metric on the test rows."""
    for split, rows in {"train": train, "test": test}.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (root / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    client = cloudtune.Client(LocalBackend(Options(root=root / "runs")), ledger=f"sqlite:///{root}/ledger.db")
    spec = cloudtune.JobSpec.model_validate({
        "model": str(model), "method": entry.method, "seed": seed,
        "data": {"train": str(root / "train.jsonl"), "test": str(root / "test.jsonl")},
        "overrides": {"local": {"threads": THREADS}} if THREADS else {}, **parts,
        "hyperparameters": entry.hyperparameters | parts.get("hyperparameters", {}),
    })  # fmt: skip
    job = client.submit(spec, trust_reward=True)
    job.wait()
    (tested,) = [metric.values for metric in job.metrics() if metric.split == "test"]
    return float(tested[entry.metric])


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def main() -> None:
    """Run the entries that are named, or all."""
    names = sys.argv[1:] or list(ENTRIES)
    if unknown := set(names) - ENTRIES.keys():
        raise SystemExit(f"no entry {', '.join(sorted(unknown))}; there are {', '.join(ENTRIES)}")
    for name in names:
        found = run(name)
        results.store(name, found)
        low, high = found["interval"]
        print(f"{name}: {found['metric']} {found['value']:.3f} [{low:.3f}, {high:.3f}], mark {found['mark']:.3f} "
              f"({found['mark_source']}): {results.verdict(found)}; {found['seconds']} s")  # fmt: skip


if __name__ == "__main__":
    main()
