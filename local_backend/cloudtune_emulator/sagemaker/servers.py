"""Model servers in place of containers: the trainer's own server, over models in S3.

A model's archive, or its folder, is downloaded once. A container for adapters (LMI's ``OPTION_ENABLE_LORA``) is the
trainer's server with a shared base: each adapter is loaded at its first request, and unloaded once no component uses
it.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import threading
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.errors import ArchiveError
from cloudtune.files.archives import extract_tar
from cloudtune_emulator.aws import buckets
from cloudtune_emulator.sagemaker.containers import Containers, fetch
from cloudtune_emulator.sagemaker.runtime import ModelError
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.quiet import quietly
from cloudtune_trainer.sagemaker import serving
from cloudtune_trainer.submit.run_folder import TUNED
from cloudtune_trainer.tuned import read_tuned

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.store import Store

_BROKEN = (buckets.NoSuch, ValueError, KeyError, OSError, ArchiveError, TrainingProblem)


class Servers:
    """The servers of one emulator. The last one used stays loaded. Thread-safe."""

    def __init__(self, folder: Path, store: Store, containers: Containers) -> None:
        self._folder = folder
        self._store = store
        self._containers = containers
        self._lock = threading.RLock()
        self._last: tuple[str, Any] | None = None

    def parts(self, context: EmulatorContext, model: Mapping[str, Any], body: dict[str, Any]) -> Iterator[bytes]:
        """The response, as it is generated. Errors are raised before the first chunk. Raises ModelError."""
        try:
            body = serving.read_body(json.dumps(body), "application/json")
        except serving.BadRequest as error:
            raise ModelError(str(error)) from error
        parts = _told(self._shared(context, model, body) if _is_shared(model) else self._alone(context, model, body))
        return chain([next(parts)], parts)

    def _alone(self, context: EmulatorContext, model: Mapping[str, Any], body: dict[str, Any]) -> Iterator[bytes]:
        uri = str(model.get("uri") or "")
        with _loading(uri):
            folder = self._brought(context, uri, model.get("beside") or {})
            server: serving.Server = self._opened(folder, serving.Server, trust_remote_code=_is_trusted(model))
        return server.parts(body)

    def _shared(self, context: EmulatorContext, model: Mapping[str, Any], body: dict[str, Any]) -> Iterator[bytes]:
        uri, adapter = str(model.get("uri") or ""), model.get("adapter")
        with _loading(uri):
            folder = self._brought(context, uri, {}, "config.json")
            server = self._opened(folder, serving.SharedServer)
            server.keep(model.get("adapters") or ())
        if adapter:
            with _loading(str(adapter)), quietly():
                # The base is the loaded one, whatever path the archive names.
                server.add(str(adapter), self._brought(context, str(adapter), {}))
        parts: Iterator[bytes] = server.parts(body, adapter)
        return parts

    def _opened(self, folder: Path, kind: Any, **options: bool) -> Any:
        key = f"{kind.__name__} {folder} {options}"
        with self._lock:
            if self._last is None or self._last[0] != key:
                self._last = None  # unload the old one first: two may not fit into memory
                with quietly():
                    self._last = (key, kind(folder, **options))
            return self._last[1]

    def _brought(self, context: EmulatorContext, uri: str, beside: Mapping[str, str], note: str = TUNED) -> Path:
        """The model's files, downloaded from S3 once; ``note`` is the file that describes the model."""
        folder = self._folder / hashlib.sha256(uri.encode()).hexdigest()[:24]
        with self._lock:
            if (folder / note).is_file():
                return folder
            aside = folder.with_name(f".{folder.name}")
            shutil.rmtree(aside, ignore_errors=True)
            if uri.endswith(".tar.gz"):
                extract_tar(io.BytesIO(buckets.get(context, buckets.parse(uri))), aside)
            else:
                fetch(context, uri, aside)
            for channel, source in beside.items():
                fetch(context, source, folder.with_name(f"{folder.name}-{channel}"))
            if note == TUNED:
                self._settle(aside, folder, uri, beside)
            aside.rename(folder)
        return folder

    def _settle(self, unpacked: Path, folder: Path, uri: str, beside: Mapping[str, str]) -> None:
        """Set the base model's path in the model's ``tuned.json``: within it, beside it, or in its job's channel."""
        tuned = read_tuned(unpacked)
        base = tuned["base"]
        if (unpacked / "base").is_dir():
            tuned["base_folder"] = str(folder / "base")
        elif beside and base["source"] == "folder":
            base["path"] = tuned["base_folder"] = str(folder.with_name(f"{folder.name}-{next(iter(beside))}"))
        elif base["source"] != "hub" and not Path(base["path"]).is_absolute():
            channel = next(
                (self._containers.folder(job) / "s3" / "model" for job in self._store.all("training_job")
                 if job.get("artefact") == uri), None,
            )  # fmt: skip
            if channel is not None and channel.is_dir():
                base["path"] = tuned["base_folder"] = str(channel)
        (unpacked / TUNED).write_text(json.dumps(tuned), encoding="utf-8")


def _is_trusted(model: Mapping[str, Any]) -> bool:
    return (model.get("environment") or {}).get(serving.TRUST_VARIABLE) == "1"


def _is_shared(model: Mapping[str, Any]) -> bool:
    return str((model.get("environment") or {}).get("OPTION_ENABLE_LORA")).lower() == "true"


def _told(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Convert the container's errors to the service's."""
    try:
        yield from parts
    except (TrainingProblem, ValueError, KeyError, TypeError) as error:
        raise ModelError(str(error)) from error


@contextmanager
def _loading(uri: str) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise ModelError(f"cannot load the model at {uri or 'no address'}: {error}", 500) from error
