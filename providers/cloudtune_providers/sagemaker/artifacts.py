"""Tuned models that were trained in the cloud: downloaded and unpacked once, then used in this process.

Generating needs the extra ``local``: torch and the packages that build on it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.errors import ArchiveError, InvalidRequest, JobNotFound
from cloudtune.files.archives import extract_tar
from cloudtune.files.model_files import read_json_object
from cloudtune.files.private_files import private_folder
from cloudtune_trainer.submit import inference
from cloudtune_trainer.submit.run_folder import TUNED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloudtune.optional import GenerateOptions, Prompt
    from cloudtune.state import Generation, TunedModel
    from cloudtune_providers.sagemaker.training import Training

_ARCHIVE = "model.tar.gz"


class Artifacts:
    """Models under one local folder, each by its job's name."""

    def __init__(self, root: Path, training: Training) -> None:
        self._root = root / "models"
        self._training = training
        self._lock = threading.Lock()
        self._answering: inference.Answering | None = None

    def generate(
        self, model: TunedModel, prompts: Sequence[Prompt], options: GenerateOptions | None
    ) -> Iterator[Generation]:
        """Inference in this process."""
        here = self.here(model)
        with self._lock:
            if self._answering is None:
                self._answering = inference.Answering()
        return self._answering.generate(here, prompts, options)

    def export(self, model: TunedModel, to: Path, *, merged: bool) -> Sequence[Path]:
        """Export the adapter, or the merged weights, to a new folder."""
        return inference.export(self.here(model), to, merged=merged)

    def here(self, model: TunedModel) -> TunedModel:
        """The same model with its files on this machine; downloaded if needed."""
        folder = self._root / model.id
        with self._lock:
            if not (folder / TUNED).is_file():
                self._bring(model, folder)
        return msgspec.structs.replace(model, uri=str(folder))

    def forget(self, name: str) -> None:
        """Delete the downloaded files."""
        shutil.rmtree(self._root / name, ignore_errors=True)

    def _bring(self, model: TunedModel, folder: Path) -> None:
        if not model.uri:
            raise JobNotFound(f"{model.id} has no artifact")
        aside = self._root / f".{model.id}.{os.getpid()}.{secrets.token_hex(4)}"
        private_folder(self._root)
        private_folder(aside)
        try:
            if model.uri.endswith(_ARCHIVE):
                self._training.fetch(model.uri, aside / _ARCHIVE)
                extract_tar(aside / _ARCHIVE, aside / "model")
            else:
                self._training.fetch_all(model.uri, aside / "model")
            _settle(aside / "model", folder, model)
            try:
                (aside / "model").rename(folder)
            except OSError:
                if not (folder / TUNED).is_file():  # else another process was faster
                    raise
        except ArchiveError as error:
            raise ArchiveError(f"cannot unpack {model.uri}: {error}") from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _note(path: Path, model: TunedModel) -> dict[str, Any]:
    """The trainer's ``tuned.json`` beside the model, validated against the job's own record."""
    try:
        tuned = read_json_object(path)
    except FileNotFoundError as error:
        raise InvalidRequest(f"{model.uri} was not created by cloudtune's trainer: it has no {TUNED}") from error
    except ValueError as error:
        raise ArchiveError(f"{model.uri}: {TUNED} is damaged: {error}") from error
    base = tuned.get("base")
    if not isinstance(base, dict) or base.get("source") not in ("folder", "gguf", "hub", "config"):
        raise ArchiveError(f"{model.uri}: {TUNED} names no base model")
    if base.get("path") != model.base:
        raise ArchiveError(
            f"{model.uri}: {TUNED} names a different base model than the job, {model.base}",
            hint="the files have been modified; train the model again",
        )
    return tuned


def _settle(unpacked: Path, folder: Path, model: TunedModel) -> None:
    """Set the local path of the base model in ``tuned.json``."""
    tuned = _note(unpacked / TUNED, model)
    shutil.rmtree(unpacked / "code", ignore_errors=True)  # the inference code of an endpoint
    base = tuned["base"]
    if base["source"] != "hub" and not str(base["path"]).startswith("s3://"):
        base["path"] = str(Path(base["path"]).expanduser().absolute())
    if base["source"] == "config":
        tuned["base_folder"] = str(folder / "base")
    elif base["source"] == "folder":
        tuned["base_folder"] = base["path"]
    else:
        tuned["base_folder"] = str(folder / "base")
    (unpacked / TUNED).write_text(json.dumps(tuned), encoding="utf-8")
