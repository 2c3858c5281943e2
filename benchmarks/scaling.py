"""Strong scaling: tokens per second of the same job with one and with two processes, each with one thread.

The runs alternate, so that other work on the machine affects both alike. Run: python benchmarks/scaling.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from cloudtune.client import Client
from cloudtune.spec import JobSpec
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options
from cloudtune_trainer.tiny import write_tiny_model

WARM_UP = 3


def speed(client: Client, document: dict[str, Any], number: int) -> float:
    """The median of the tokens per second of a job's steps."""
    job = client.submit(JobSpec.model_validate({**document, "name": f"scaling-{number}"}))
    job.wait()
    return statistics.median(metric.values["tokens_per_s"] for metric in list(job.metrics())[WARM_UP:])


def main() -> None:
    """Print the medians, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, help="a model's folder; by default a model with random weights")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        model = options.model or root / "model"
        if options.model is None:
            write_tiny_model(model, model={"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 6})
        rows = [{"prompt": f"What is {n} plus {n}?", "completion": f"{2 * n}. " * 20} for n in range(200)]
        (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        client = Client(LocalBackend(Options(root=root / "runs")), ledger=f"sqlite:///{root}/ledger.db")
        document = {
            "model": str(model), "data": {"train": str(root / "rows.jsonl")}, "adapter": "full",
            "hyperparameters": {"max_steps": options.steps, "batch_size": 16, "precision": "fp32"},
            "overrides": {"local": {"device": "cpu", "threads": 1}},
        }  # fmt: skip
        found: dict[int, list[float]] = {1: [], 2: []}
        for turn in range(options.rounds):
            for count, speeds in found.items():
                speeds.append(speed(client, {**document, "distributed": {"processes": count}}, 2 * turn + count))
        one, two = (statistics.median(found[count]) for count in (1, 2))
        print(f"1 process: {one:.0f} tokens/s, 2 processes: {two:.0f} tokens/s, ratio {two / one:.2f}")


if __name__ == "__main__":
    main()
