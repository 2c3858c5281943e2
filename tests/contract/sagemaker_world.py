"""The worlds of the SageMaker back end: boto3 over HTTP against the emulator, and the container on this machine.

What a scripted job leaves in S3 is a scripted note; here its place is taken by what a real run of the trainer left.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.contract.emulated_aws import BUCKET, REGION, ROLE, chat, connected
from tests.contract.emulated_sagemaker import TrainingWorld
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from cloudtune.methods import DEFAULT_METHOD, METHODS
from cloudtune.spec import JobSpec
from cloudtune.state import JobState
from cloudtune.testing.clock import FakeClock
from cloudtune_emulator.aws import buckets
from cloudtune_providers.aws.training_responses import MODEL_VARIABLE
from cloudtune_trainer.folder import SPEC_VERSION
from cloudtune_trainer.tiny import write_tiny_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune.backend import Backend
    from cloudtune.clock import Clock
    from cloudtune.state import JobRef
    from cloudtune_trainer.submit.bundle import Bundle

LINE = (
    '[cloudtune] metrics {{"time": "2026-11-21T00:00:00+00:00", "step": {step}, "total_steps": 9, "epoch": {epoch}, '
    '"train:loss": {loss}}}'
)


def code() -> Bundle:
    """The same code whatever becomes of the trainer: no job is run here."""
    from cloudtune_trainer.submit.bundle import Bundle

    content = b"the trainer"
    return Bundle(content, hashlib.sha256(content).hexdigest())


def open_sagemaker(url: str, clock: str, home: str, **options: Any) -> tuple[Backend, Clock]:
    """The recipe: a new back end object, on the clock whose hands lie in that file."""
    from cloudtune_providers.sagemaker.backend import SageMakerBackend
    from cloudtune_providers.sagemaker.options import SageMakerOptions

    hands = FakeClock(path=Path(clock))
    given = {"region": REGION, "bucket": BUCKET, "role_arn": ROLE, "root": home} | options
    settings = SageMakerOptions.model_validate(given)
    made = SageMakerBackend(settings, factory=connected(url, given["region"]).client, clock=hands, code=code)
    return made, hands


class SageMakerWorld(TrainingWorld):
    """Jobs with our own trainer. ``trained`` is a run folder that the real one has filled."""

    recipe_target = "tests.contract.sagemaker_world:open_sagemaker"

    def __init__(self, root: Path, trained: Path, **more: Any) -> None:
        super().__init__(root, **{"home": str(root / "home")} | more)
        self.lacks = {"paused": "training jobs cannot be paused"}
        self.trained = trained
        self.folders = (root / "home",)
        self._model()

    def _model(self) -> None:
        """A folder that looks like a model: its content, and so its fingerprint, is the same on every machine."""
        head = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
        folder = self.root / "tiny"
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 512}')
        (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(16))
        words = Tokenizer(WordLevel({"?": 0}, unk_token="?"))  # one token a word
        words.pre_tokenizer = WhitespaceSplit()
        words.save(str(folder / "tokenizer.json"))
        template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))

    def spec(self, variant: int = 0, **changes: Any) -> JobSpec:
        kind = METHODS[changes.get("method", {}).get("name", DEFAULT_METHOD)].kinds[0]
        row, mark = _BY_KIND.get(kind, chat), f"{kind}-" if kind in _BY_KIND else ""
        rows = [row(n, variant) for n in range(12)]
        held_out = [row(n, variant + 100) for n in range(3)]
        document: dict[str, Any] = {"name": f"small-{variant}", "model": str(self.root / "tiny"), "adapter": "lora"}
        document["data"] = {
            "train": self.rows(f"{mark}train-{variant}", rows),
            "validation": self.rows(f"{mark}held-{variant}", held_out),
        }  # fmt: skip
        return JobSpec.model_validate(document | changes)

    def too_long(self) -> tuple[JobSpec, int]:
        rows = [{"prompt": f"What is {n}?", "completion": "one " * (600 if n == 6 else 3)} for n in range(12)]
        return self.spec(data={"train": self.rows("long", rows)}), 7

    # -- what a real job would leave ---------------------------------------------------------------------------------

    def reach(self, ref: JobRef, state: JobState, *, message: str = "") -> None:
        if state in (JobState.RUNNING, JobState.SUCCEEDED, JobState.FAILED):
            self.change(ref, course={"line": LINE})
        super().reach(ref, state, message=message)
        self._leave(ref, state)

    def _leave(self, ref: JobRef, state: JobState) -> None:
        request = self.job(ref)["request"]
        if state is JobState.RUNNING:
            self._put(request["CheckpointConfig"]["S3Uri"], self.trained / "checkpoints")
        if state in (JobState.SUCCEEDED, JobState.EXPIRED):
            self.emulator.settle()
            buckets.put(
                self.emulator.context, buckets.parse(self.job(ref)["artefact"]), _packed(self.trained / "model")
            )
            # The weights are those of another run, and the job's record has to name that run's base model.
            base = {MODEL_VARIABLE: str(self.trained / "base")}
            self.change(ref, request={"Environment": request["Environment"] | base})

    def _put(self, uri: str, folder: Path) -> None:
        for path in folder.rglob("*"):
            if path.is_file():
                place = buckets.parse(uri).under(path.relative_to(folder).as_posix())
                buckets.put(self.emulator.context, place, path.read_bytes())

    def object(self, reported: Mapping[str, Any]) -> dict[str, Any]:
        found = super().object(reported)
        if "/code/" in reported["Key"]:
            del found["path"]
        if "/models/" in reported["Key"]:  # many files make one model
            name = reported["Key"].rpartition("/")[2]
            content = (self.root / "tiny" / name).read_bytes()
            assert base64.b64decode(reported["x-amz-checksum-sha256"]) == hashlib.sha256(content).digest()
            return {"path": str(self.root / "tiny" / name), "bytes": reported["bytes"]}
        return found


QWEN = "huggingface-reasoning-qwen3-8b"


class ServerlessWorld(TrainingWorld):
    """Jobs of AWS's own trainers, on an ungated model of the hub."""

    recipe_target = "tests.contract.sagemaker_world:open_sagemaker"

    def __init__(self, root: Path, **more: Any) -> None:
        super().__init__(
            root, **{"home": str(root / "home"), "compute": "serverless", "base_endpoint": "the-base"} | more
        )
        self.lacks = {**self.lacks, "expired": "no limit stops a serverless job"}
        store, made = self.emulator.store, {"created": 0.0, "changed": 0.0, "deleting": None, "counts": {}}
        variant = {"VariantName": "AllTraffic", "ModelName": "the-base", "InstanceType": "ml.g5.2xlarge"}
        container = {"PrimaryContainer": {"Image": "an/image:1"}}
        for kind, request in (
            ("sm_model", container), ("sm_config", {"ProductionVariants": [variant]}), ("sm_endpoint", {}),
        ):  # fmt: skip
            thing = {
                "id": "the-base",
                "arn": f"arn:aws:sagemaker:{REGION}:123456789012:{kind}/the-base",
                "request": request,
                "config": "the-base",
            } | made
            store.add(kind, self.api, thing)

    def spec(self, variant: int = 0, **changes: Any) -> JobSpec:
        method = changes.get("method", {}).get("name", "sft")
        rows = [_ROWS.get(method, chat)(n, variant) for n in range(12)]
        document: dict[str, Any] = {"name": f"small-{variant}", "model": QWEN, "adapter": "lora"}
        document["data"] = {"train": self.rows(f"train-{method}-{variant}", rows)}
        return JobSpec.model_validate(document | changes)

    def object(self, reported: Mapping[str, Any]) -> dict[str, Any]:
        found = super().object(reported)
        below, sha256, name = found.pop("key").rsplit("/", 2)
        assert sha256 == found["sha256"]
        return found | {"below": below, "name": name}

    def packages(self) -> int:
        """How many groups and versions there are."""
        return self.emulator.store.count("package_group") + self.emulator.store.count("package")


def _pair(n: int, variant: int) -> dict[str, Any]:
    return {"prompt": f"{n} + {variant}?", "chosen": f"{n + variant}", "rejected": f"{n - variant - 1}"}


def _item(n: int, variant: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"{n} + {variant}?"}], "reference_answer": f"{n + variant}"}


def _rated(n: int, variant: int) -> dict[str, Any]:
    return {"prompt": f"{n} + {variant}?", "completion": f"{n + variant}", "label": n % 2 == 0}


_BY_KIND = {"preference": _pair, "rated": _rated}
_ROWS = {"sft": chat, "dpo": _pair, "rft": _item}


def trained_run(folder: Path) -> Path:
    """A run folder that the real trainer has filled: a tiny model, a few steps, a checkpoint, a tuned model."""
    write_tiny_model(folder / "base")
    rows = [{"messages": [{"role": "user", "content": f"{n} + {n}?"}, {"role": "assistant", "content": f"{2 * n}"}]}
            for n in range(8)]  # fmt: skip
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = {
        "version": SPEC_VERSION, "model": {"source": "folder", "path": str(folder / "base")}, "device": "cpu",
        "threads": 1, "data": {"train": "rows.jsonl", "validation": "rows.jsonl"},
    }  # fmt: skip
    (folder / "spec.json").write_text(json.dumps(spec))
    subprocess.run([sys.executable, "-m", "cloudtune_trainer", str(folder)], check=True, timeout=110)
    return folder


def _packed(folder: Path) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, arcname=path.name)
    return held.getvalue()
