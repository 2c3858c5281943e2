"""Seconds from the trainer's start to its first optimizer step, over the bare import and load.

The floor is a process that imports torch and transformers and loads the same model.

    python benchmarks/startup_training.py [--repeats 5] [--model FOLDER]

Without a model, a tiny one is built: its weights load in no time and its first step takes none, so what is compared is
the program's own start-up. The two take turns; ratios are of medians. ``begun`` is the time at which the first
step begins, ``done`` the time at which it is made.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

FLOOR = """
import sys
import torch
import transformers
from transformers import AutoModelForCausalLM
AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
"""
ROWS = [
    {"messages": [{"role": "user", "content": f"What is {i}?"}, {"role": "assistant", "content": f"A number: {i}."}]}
    for i in range(200)
]


def floor(model: Path, environment: dict[str, str]) -> float:
    begin = time.time()
    subprocess.run([sys.executable, "-c", FLOOR, str(model)], check=True, env=environment, stderr=subprocess.DEVNULL)
    return time.time() - begin


def start(model: Path, kind: str, environment: dict[str, str]) -> tuple[float, float]:
    """Seconds until the first step begins, and until it is done."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        (run / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        spec: dict[str, Any] = {
            "version": 2, "model": {"source": "folder", "path": str(model)}, "adapter": {"type": kind},
            "data": {"train": "rows.jsonl"}, "hyperparameters": {"max_steps": 1, "batch_size": 2, "max_length": 128},
        }  # fmt: skip
        (run / "spec.json").write_text(json.dumps(spec))
        begin = time.time()
        command = [sys.executable, "-m", "cloudtune_trainer", str(run)]
        subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)
        events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    begun = next(e for e in events if e["data"].get("state") == "training")
    done = next(e for e in events if e["message"].startswith("first optimizer step"))
    first, second = (datetime.fromisoformat(e["time"]).timestamp() - begin for e in (begun, done))
    return first, second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", type=Path)
    options = parser.parse_args()
    # both sides alike, bytecode and threads included
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_WAIT_POLICY": "PASSIVE"}
    with tempfile.TemporaryDirectory() as folder:
        model = options.model
        if model is None:
            from cloudtune_trainer.tiny import write_tiny_model

            model = write_tiny_model(Path(folder) / "model", vocab_texts=[json.dumps(row) for row in ROWS])
        floors: list[float] = []
        times: dict[str, list[tuple[float, float]]] = {"full": [], "lora": []}
        floor(model, environment)  # fills the page cache for both
        for _ in range(options.repeats):
            floors.append(floor(model, environment))
            for kind, found in times.items():
                found.append(start(model, kind, environment))
    bare = statistics.median(floors)
    print(f"bare import and load: {bare:.2f} s (from {min(floors):.2f} to {max(floors):.2f})")
    for kind, found in times.items():
        begun, done = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"{kind}: first step begun {begun:.2f} s = {begun / bare:.2f}, done {done:.2f} s = {done / bare:.2f}")


if __name__ == "__main__":
    main()
