"""Train on real weights and data, and compare with a published or customary mark.

    python benchmarks/references/run.py [NAME ...]     QUICK=1: fewer rows

Every entry is one job of the local back end, through the public API. An accuracy has its Wilson interval of 95 %. The
result of each entry is written to ``results.json`` beside this file as soon as it ends.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

os.environ.setdefault("TQDM_DISABLE", "1")  # disables progress bars; read when transformers is imported

import baselines
import results
import sources

import cloudtune
from cloudtune.evaluation.statistics import wilson
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable

QUICK = os.environ.get("QUICK") == "1"
THREADS = int(os.environ.get("OMP_NUM_THREADS", "0")) or None


class Entry(NamedTuple):
    """One result."""

    method: str
    metric: str
    rows: Callable[[int, int], sources.Rows]
    sizes: tuple[int, int]
    """Rows of training and test."""
    quick: tuple[int, int]
    packages: tuple[sources.Package, ...]
    mark: float | Callable[[sources.Rows, sources.Rows], float]
    """What is to be reached: a number, or a baseline on the same rows."""
    source: str
    hyperparameters: dict[str, Any]


_LEARN = {"batch_size": 16, "learning_rate": 1e-4, "warmup_ratio": 0.1, "precision": "fp32"}
ENTRIES: dict[str, Entry] = {
    "bbc-topics": Entry(
        "classification", "accuracy", sources.topics, (1500, 600), (480, 300), (sources.MINILM, sources.BBC), 0.95,
        "customary for BBC topics, on the first 128 tokens", _LEARN | {"epochs": 3, "max_length": 128},
    ),
    "imdb-reviews": Entry(
        "classification", "accuracy", sources.reviews, (1000, 1000), (1000, 300), (sources.MINILM, sources.IMDB),
        baselines.tf_idf_logistic_regression, "TF-IDF with logistic regression on the same rows",
        _LEARN | {"epochs": 3, "max_length": 256},
    ),
    "penn-parts-of-speech": Entry(
        "token_classification", "token_accuracy", sources.sentences, (3000, 900), (400, 200),
        (sources.MINILM, sources.PENN), baselines.most_frequent_tag, "each word's most frequent tag in training",
        _LEARN | {"epochs": 2, "max_length": 96, "learning_rate": 5e-4},
    ),
    "bbc-headlines-to-articles": Entry(
        "embedding", "recall@1", sources.headlines, (1500, 600), (160, 200), (sources.MINILM, sources.BBC),
        0.0, "the base model on the same rows", _LEARN | {"epochs": 1, "max_length": 128, "learning_rate": 3e-5},
    ),
}  # fmt: skip


def run(name: str) -> dict[str, Any]:
    """Train and test one entry."""
    entry = ENTRIES[name]
    count, tested = entry.quick if QUICK else entry.sizes
    train, test = entry.rows(0, count), entry.rows(count, count + tested)
    with tempfile.TemporaryDirectory(prefix="references-") as place:
        root = Path(place)
        for split, rows in {"train": train, "test": test}.items():
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (root / f"{split}.jsonl").write_text(lines, encoding="utf-8")
        model = sources.minilm(root)
        began = time.monotonic()
        values = _trained(root, model, entry, entry.hyperparameters)
        seconds = time.monotonic() - began
        if name == "bbc-headlines-to-articles":
            still = entry.hyperparameters | {"max_steps": 1, "learning_rate": 1e-12}
            mark = _trained(root, model, entry, still)[entry.metric]
        else:
            mark = entry.mark(train, test) if callable(entry.mark) else entry.mark
    # All words count: the trainer divides a long sentence instead of truncating it.
    units = sum(len(row["tokens"]) for row in test) if "tokens" in test[0] else len(test)
    found = wilson(round(values[entry.metric] * units), units)
    return {
        "metric": entry.metric, "mark": round(mark, 4), "mark_source": entry.source, "value": round(found.value, 4),
        "interval": [round(found.low, 4), round(found.high, 4)], "units": units, "train_rows": len(train),
        "test_rows": len(test), "seconds": round(seconds), "quick": QUICK, "threads": THREADS,
        "packages": [str(package) for package in entry.packages], "processor": _processor(),
        "cores": os.cpu_count(), "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip


def _trained(root: Path, model: Path, entry: Entry, hyperparameters: dict[str, Any]) -> dict[str, float]:
    """The metrics on the test rows."""
    backend = LocalBackend(Options(root=root / "runs"))
    client = cloudtune.Client(backend, ledger=f"sqlite:///{root}/ledger.db")
    spec = cloudtune.JobSpec.model_validate({
        "model": str(model), "method": entry.method, "adapter": "full", "seed": sources.SEED,
        "data": {"train": str(root / "train.jsonl"), "test": str(root / "test.jsonl")},
        "hyperparameters": hyperparameters, "overrides": {"local": {"threads": THREADS}} if THREADS else {},
    })  # fmt: skip
    job = client.submit(spec)
    job.wait()
    (tested,) = [metric.values for metric in job.metrics() if metric.split == "test"]
    return dict(tested)


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
        verdict = "reached" if found["value"] >= found["mark"] else "missed"
        print(f"{name}: {found['metric']} {found['value']:.3f} [{low:.3f}, {high:.3f}], mark {found['mark']:.3f} "
              f"({found['mark_source']}): {verdict}; {found['seconds']} s")  # fmt: skip


if __name__ == "__main__":
    main()
