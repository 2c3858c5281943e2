"""A tiny model, and runs of the real trainer over it: in this process where that will do, else as a program."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from cloudtune_trainer.folder import SPEC_VERSION, RunFolder, read_json, read_lines
from cloudtune_trainer.tiny import write_tiny_model

if TYPE_CHECKING:
    from collections.abc import Iterator

Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)  # tiny tensors: more threads only wait for one another


def sums(count: int, *, seed: int = 0) -> Rows:
    """Dialogues of one to three turns about sums."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        messages = []
        for _ in range(rng.randint(1, 3)):
            a, b = rng.randrange(30), rng.randrange(30)
            messages += [
                {"role": "user", "content": f"What is {a} plus {b}?"},
                {"role": "assistant", "content": f"{a} plus {b} is {a + b}."},
            ]
        rows.append({"messages": messages})
    return rows


def texts(count: int, *, seed: int = 0) -> Rows:
    """Texts of quite different lengths."""
    rng = random.Random(seed)
    return [{"text": " ".join(f"{rng.randrange(99)} follows." for _ in range(rng.randint(1, 9)))} for _ in range(count)]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = [json.dumps(row) for row in sums(50) + texts(50)]
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model", vocab_texts=words)


_DECODER = {
    "decoder_layers": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
    "decoder_start_token_id": 3, "max_position_embeddings": 256,
}  # fmt: skip
_T5 = {"num_decoder_layers": 2, "d_kv": 16, "d_ff": 64, "decoder_start_token_id": 3}
_LED = {"attention_window": 8, "max_encoder_position_embeddings": 256, "max_decoder_position_embeddings": 256}
SIZES: dict[str, dict[str, Any]] = {
    "bert": {"intermediate_size": 64}, "distilbert": {"hidden_dim": 64},
    "albert": {"intermediate_size": 64, "embedding_size": 16},
    "t5": _T5, "mt5": _T5, "longt5": _T5, "led": _DECODER | _LED,
    "bart": _DECODER | {"decoder_start_token_id": 2, "init_std": 0.2},
    "marian": _DECODER, "pegasus": _DECODER, "mbart": _DECODER, "m2m_100": _DECODER,
}  # fmt: skip
"""Settings of families besides the usual ones."""


def write_encoder(folder: Path, tiny_model: Path, kind: str = "bert", **more: Any) -> Path:
    """A random encoder, or encoder-decoder, with the tiny model's tokenizer."""
    from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    sizes = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }  # fmt: skip
    config = AutoConfig.for_model(kind, **sizes | SIZES.get(kind, {}) | more)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModel
    torch.manual_seed(0)
    auto.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class Runs:
    """Makes run folders and trains in them."""

    def __init__(self, root: Path, model: Path) -> None:
        self._root = root
        self.base = model
        self._started: list[subprocess.Popen[bytes]] = []

    def make(
        self, name: str = "run", *, rows: Rows | None = None, held_out: Rows | None = None, test: Rows | None = None,
        **spec: Any,
    ) -> RunFolder:  # fmt: skip
        run = RunFolder(self._root / name)
        run.data.mkdir(parents=True)
        data = {}
        for split, records in {"train": rows or sums(24), "validation": held_out, "test": test}.items():
            if records is not None:
                data[split] = f"data/{split}.jsonl"
                (run.path / data[split]).write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
        document: dict[str, Any] = {
            "version": SPEC_VERSION, "model": {"source": "folder", "path": str(self.base)}, "data": data,
            "device": "cpu", "hyperparameters": {}, "threads": 1,
            "checkpoints": {"every": 1000},  # tiny epochs: saving after each takes as long as training
        }  # fmt: skip
        hyper = {"batch_size": 2, "max_length": 96, "learning_rate": 5e-3, "precision": "fp32", "scheduler": "constant"}
        document |= spec
        document["hyperparameters"] = hyper | document["hyperparameters"]
        run.spec.write_text(json.dumps(document))
        return run

    def train(self, run: RunFolder, *, stop_after: int | None = None, stop_evaluating: int | None = None) -> str:
        """Train here. ``stop_after`` steps, or while that step is evaluated, the run is told to stop, as by SIGTERM."""
        from cloudtune_trainer.program import run_training
        from cloudtune_trainer.reporting import Report
        from cloudtune_trainer.run_spec import read_spec

        told = False

        def stopping() -> bool:
            nonlocal told
            done = metrics(run, "train")
            step = done[-1]["step"] if done else 0
            told = told or (step == stop_evaluating and report.state_word == "evaluating")
            return told or (stop_after is not None and bool(done) and step >= stop_after)

        report = Report(run)
        outcome, detail = run_training(run, read_spec(read_json(run.spec)), report, stopping)
        if outcome != "interrupted":  # the program reports that as a failure
            report.state(outcome, detail)
        return outcome

    def start(self, run: RunFolder, **options: Any) -> subprocess.Popen[bytes]:
        """Start the program, as the worker does."""
        with run.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "cloudtune_trainer", str(run.path)],
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                **options,
            )
        self._started.append(process)
        return process

    def end(self) -> None:
        """Leave no process behind, whatever the test came to."""
        for process in self._started:
            process.kill()
            process.wait()


@pytest.fixture
def runs(tmp_path: Path, tiny_model: Path) -> Iterator[Runs]:
    made = Runs(tmp_path, tiny_model)
    yield made
    made.end()


def metrics(run: RunFolder, split: str = "train") -> list[dict[str, Any]]:
    return [line for _, line in read_lines(run.metrics) if line["split"] == split]


def events(run: RunFolder, kind: str) -> list[dict[str, Any]]:
    return [line for _, line in read_lines(run.events) if line["type"] == kind]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def check_gradients(model: Any, expected: dict[str, torch.Tensor]) -> None:
    """The model's gradients are those, to 1e-5 of each tensor's norm; tensors near zero, of the largest one."""
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    largest = max(float(gradient.norm()) for gradient in expected.values())
    assert largest > 0
    for name, gradient in found.items():
        error, size = float((gradient - expected[name]).norm()), float(expected[name].norm())
        assert error <= 1e-5 * max(size, 0.01 * largest), name
