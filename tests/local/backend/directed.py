"""The local back end as the contract suite sees it: real run folders, real workers, and a trainer that takes orders."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import os
import struct
import sys
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from tests.local.backend.submitting import kill_all, wait_state, wait_until
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from cloudtune.clock import SystemClock
from cloudtune.methods import DEFAULT_METHOD, METHODS
from cloudtune.spec import JobSpec
from cloudtune.state import JobState
from cloudtune.testing.world import Recipe
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options
from cloudtune_trainer.folder import STATES, read_json, write_json
from cloudtune_trainer.tiny import write_tiny_model
from cloudtune_trainer.worker import processes
from cloudtune_trainer.worker.run import Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune.backend import Backend
    from cloudtune.clock import Clock
    from cloudtune.plan import Resolved
    from cloudtune.state import JobRef

SECRET = "hf_directed_5d41402abc4b2a76"
PROCESSORS: dict[str, dict[str, Any]] = {
    "image_label": {"image_processor_type": "ViTImageProcessor"},
    "speech": {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 16_000},
}
MODELS = {"pair": "pairs", **{name: name for name in PROCESSORS}}
"""Kind of rows -> the folder of its model."""
ORDERS = {
    JobState.PREPARING: "prepare", JobState.RUNNING: "run", JobState.SUCCEEDED: "succeed", JobState.FAILED: "fail",
    JobState.EXPIRED: "expire",
}  # fmt: skip
MANY = 1000
"""Slots: no job waits for another here. The queue has tests of its own."""


class DirectedBackend(LocalBackend):
    """The local back end, whose trainer is the one that takes orders."""

    def _python(self, spec: JobSpec) -> str:
        super()._python(spec.model_copy(update={"adapter": None}))  # `make test` has no package for qlora
        return str(self.root.parent / "directed-python")

    def resolve(self, spec: JobSpec) -> Resolved:
        resolved = super().resolve(spec)  # with all its other checks
        resolved.facts["gpus"] = 0
        return resolved


def open_directed(root: str) -> tuple[Backend, Clock]:
    """The recipe."""
    return DirectedBackend(Options(root=Path(root), slots=MANY, grace=5.0)), SystemClock()


class LocalWorld:
    """Implements `cloudtune.testing.world.World`."""

    def __init__(self, root: Path, trained: Path) -> None:
        self.root = root
        self.clock: Clock = SystemClock()
        self.secrets = (SECRET,)
        self.words = STATES
        self.sdk_modules = ("torch", "transformers", "peft", "accelerate", "safetensors")
        self.runs, self.stage = root / "runs", root / "stage"
        self.folders = (self.runs,)
        self.list_lag_s = 0.0
        nobody = "there is no vendor between: a question is a read of a folder, a request a write into one"
        self.lacks = dict.fromkeys(
            ("wire", "lost_reply", "throttle", "server_error", "forbidden", "lost_contact"), nobody
        )
        self.stage.mkdir()
        self._model("tiny", {"model_type": "llama", "max_position_embeddings": 512})
        self._model("pairs", {"model_type": "t5", "is_encoder_decoder": True})
        for name, processor in PROCESSORS.items():
            self._model(name, {"model_type": "vit" if name == "image_label" else "wav2vec2"})
            (self.root / name / "preprocessor_config.json").write_text(json.dumps(processor))
        self._python(trained)

    def _model(self, name: str, config: dict[str, Any]) -> None:
        """A folder that looks like a model: its content, and so its fingerprint, is the same on every machine."""
        head = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
        folder = self.root / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(16))
        words = Tokenizer(WordLevel({"?": 0}, unk_token="?"))  # one token a word
        words.pre_tokenizer = WhitespaceSplit()
        words.save(str(folder / "tokenizer.json"))
        template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))

    def _python(self, trained: Path) -> None:
        program = Path(__file__).parent / "directed_trainer.py"
        paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)
        script = self.root / "directed-python"
        script.write_text(
            f'#!/bin/sh\nPYTHONPATH="{paths}" exec "{sys.executable}" "{program}" "{self.stage}" "{trained}" "$@"\n'
        )
        script.chmod(0o755)

    def backend(self) -> Backend:
        return self.recipe().make()[0]

    def recipe(self) -> Recipe:
        return Recipe(target="tests.local.backend.directed:open_directed", arguments={"root": str(self.runs)})

    def spec(self, variant: int = 0, **changes: Any) -> JobSpec:
        kind = METHODS[changes.get("method", {}).get("name", DEFAULT_METHOD)].kinds[0]
        rows = [self._row(f"What is {n} plus {variant}?", n + variant, kind) for n in range(12)]
        held_out = [self._row(f"And {n} times {variant}?", n * variant, kind) for n in range(3)]
        mark = "" if kind == "chat" else f"{kind}-"
        document = {
            "name": f"small-{variant}",
            "model": str(self.root / MODELS.get(kind, "tiny")),
            "adapter": "lora",
            "data": {
                "train": self._rows(f"{mark}train-{variant}", rows),
                "validation": self._rows(f"{mark}v-{variant}", held_out),
            },
        }
        if METHODS[changes.get("method", {}).get("name", DEFAULT_METHOD)].teacher:
            document["overrides"] = {self.backend().name: {"teacher": str(self.root / "tiny")}}
        return JobSpec.model_validate(document | changes)

    def _row(self, question: str, answer: int, kind: str) -> dict[str, Any]:
        if kind == "speech":
            return {"audio": _recording(self.root, answer), "transcript": question}
        return _row(question, answer, kind)

    def _rows(self, name: str, rows: list[dict[str, Any]]) -> str:
        path = self.root / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    def too_long(self) -> tuple[JobSpec, int]:
        rows = [{"prompt": f"What is {n}?", "completion": "one " * (600 if n == 6 else 3)} for n in range(12)]
        return self.spec(data={"train": self._rows("long", rows)}), 7

    def reach(self, ref: JobRef, state: JobState, *, message: str = "") -> None:
        backend, run = self.backend(), self._run(ref)
        self._wait_for_start(ref)
        if state is JobState.CANCELLED:
            backend.cancel(ref)
        elif state is JobState.PAUSED:
            backend.pause(ref)
        elif state in ORDERS and backend.get(ref).state is not state:
            self._order(ref, f"{ORDERS[state]} {message}".strip())
        if state is not JobState.QUEUED:
            wait_state(self.near(), ref, state.value)
        if state.is_terminal:
            self._wait_for_end(run)

    def _wait_for_start(self, ref: JobRef) -> None:
        run = self._run(ref)
        wait_until(lambda: "trainer" in (read_json(run.worker) or {}) and self._done(ref) is not None)

    def _wait_for_end(self, run: Run) -> None:
        worker = read_json(run.worker)
        wait_until(lambda: not processes.is_alive(worker), what="the worker's end")

    def settle(self, ref: JobRef) -> None:
        backend, run = self.near(), self._run(ref)
        if run.requested("cancel"):
            wait_until(lambda: backend.get(ref).state.is_terminal, what="the cancelled job's end")
            self._wait_for_end(run)
        else:
            paused = run.requested("pause")
            wait_until(lambda: (backend.get(ref).state is JobState.PAUSED) is paused, what="what was asked for")

    def near(self) -> Backend:
        """The back end by which the world itself waits."""
        return self.backend()

    def _run(self, ref: JobRef) -> Run:
        return Run(self.runs / ref.id)

    def _done(self, ref: JobRef) -> int | None:
        path = self.stage / f"{ref.id}.done"
        text = path.read_text() if path.exists() else ""
        return int(text) if text else None

    def _order(self, ref: JobRef, order: str) -> None:
        if order == "run" and self._ordered(ref, "run"):
            return  # it was paused, and goes on by itself
        with (self.stage / ref.id).open("a") as file:
            file.write(order + "\n")
        count = len((self.stage / ref.id).read_text().splitlines())
        wait_until(lambda: (self._done(ref) or 0) >= count, what=f"the order {order}")

    def _ordered(self, ref: JobRef, order: str) -> bool:
        path = self.stage / ref.id
        return path.exists() and order in path.read_text().splitlines()

    def show(self, ref: JobRef, word: str) -> None:
        run = self._run(ref)
        write_json(run.status, {**read_json(run.status), "state": word})

    def fail(self, call: str, fault: object) -> None:
        raise NotImplementedError(self.lacks["wire"])

    def heal(self) -> None:
        pass

    def jobs(self) -> Sequence[str]:
        runs = [Run(path.parent) for path in self.runs.glob("*/job.json")]
        return [run.slug for run in sorted(runs, key=lambda run: read_json(run.job)["number"])]

    def uploads(self) -> Sequence[str]:
        return sorted(str(path) for path in self.runs.glob("*/data/*.jsonl"))

    def calls(self, call: str | None = None) -> int:
        return 0

    def received(self) -> Sequence[Any]:
        return []

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for path in sorted(self.runs.rglob("*")):
            digest.update(str(path).encode())
            if path.is_file():
                digest.update(path.read_bytes())
        return digest.hexdigest()

    def close(self) -> None:
        kill_all(self.runs)


def _row(question: str, answer: int, kind: str) -> dict[str, Any]:
    if kind == "preference":
        return {"prompt": question, "chosen": f"{answer}", "rejected": f"{answer + 1}"}
    if kind == "rated":
        return {"prompt": question, "completion": f"{answer}", "label": answer % 4 == 0}
    if kind == "item":
        return {"messages": [{"role": "user", "content": question}], "reference_answer": f"{answer}"}
    if kind == "text_label":
        return {"text": question, "label": str(answer % 2)}
    if kind == "tags":
        words = question.split()
        return {"tokens": words, "tags": ["B-ASK", *["O"] * (len(words) - 1)]}
    if kind == "question":
        return {"question": question, "context": f"It is {answer}.", "answers": {"text": ["It"], "answer_start": [0]}}
    if kind == "contrastive":
        return {"anchor": question, "positive": f"It is {answer}.", "negative": f"It is {answer + 1}."}
    if kind == "image_label":
        return {"image": _data_uri(answer), "label": str(answer % 2)}
    if kind == "pair":
        return {"source": question, "target": f"{answer}"}
    return {"prompt": question, "completion": f"{answer}"}


def _data_uri(number: int) -> str:
    """An image of its own for each number."""
    content = io.BytesIO()
    image = Image.new("RGB", (16, 16), (number % 256, 90, 30))
    image.putpixel((number % 16, number // 16 % 16), (255, 255, 255))
    image.save(content, "png")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def _recording(folder: Path, number: int) -> str:
    """A tone of its own for each number, half a second long."""
    path = folder / f"tone-{number}.wav"
    samples = [round(9000 * math.sin(n * (200 + number) / 2546)) for n in range(8000)]
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, len(samples), "NONE", "not compressed"))
        file.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    return str(path)


def trained_run(folder: Path) -> Path:
    """A run folder that the real trainer has filled: a tiny model, a few steps, a checkpoint, a tuned model."""
    from cloudtune.client import Client

    write_tiny_model(folder / "base")
    rows = [{"prompt": f"What is {n} plus {n}?", "completion": f"{2 * n}"} for n in range(16)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"train": str(folder / "rows.jsonl"), "validation": 0.2}
    spec = JobSpec.model_validate({
        "name": "trained", "model": str(folder / "base"), "data": data,
        "overrides": {"local": {"device": "cpu"}},
    })  # fmt: skip
    client = Client(LocalBackend(Options(root=folder / "runs")), ledger=f"sqlite:///{folder}/ledger.db")
    job = client.submit(spec)
    job.wait(timeout=110)
    return Path(job.ref.scope) / job.ref.id
