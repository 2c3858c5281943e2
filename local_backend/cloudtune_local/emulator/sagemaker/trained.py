"""The engine that really trains: shipped programs in containers, the hub's models by the local back end.

Jobs that bring their own program run it (``containers``). JumpStart's scripts and serverless recipes are AWS's own and
are not here: their rows and hyperparameters become a job of the local back end, on the model that stands for theirs.
Models answer from what lies in S3: the archive, or the folder, that an endpoint's model names.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.backend import GenerateOptions
from cloudtune.errors import CloudtuneError
from cloudtune.state import TunedModel
from cloudtune_local.emulator import trained
from cloudtune_local.emulator.aws import buckets
from cloudtune_local.emulator.engine import Spoken, text_of
from cloudtune_local.emulator.sagemaker import hubjobs
from cloudtune_local.emulator.sagemaker.containers import Containers, fetch
from cloudtune_local.emulator.sagemaker.runtime import ModelError
from cloudtune_local.results import TUNED, Answering

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloudtune_local.emulator.engine import Sampling
    from cloudtune_local.emulator.sagemaker.life import Seen
    from cloudtune_local.emulator.site import Site
    from cloudtune_local.emulator.store import Store

_PATIENCE_S = 20.0


class TrainTrainer:
    """See the module and `Trainer`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._folder = store.folder / "sagemaker"
        self._containers = Containers(self._folder / "jobs")
        self._starting = ThreadPoolExecutor(1, thread_name_prefix="cloudtune-emulator-container")
        self._answering = Answering()
        self._lock = threading.Lock()
        self._begun: set[str] = set()

    def begin(self, site: Site, job: dict[str, Any]) -> None:
        """See `Trainer.begin`."""
        if hubjobs.is_hubs(job):
            hubjobs.begin(site, job)
        else:
            self._start(site, job)

    def _start(self, site: Site, job: dict[str, Any]) -> None:
        """Once in this server's life; again in the next one's, if that one went down before the job had begun."""
        key = str(self._containers.folder(job))  # a name, and its ARN, may be another job's after a deletion
        with self._lock:
            if key in self._begun:
                return
            self._begun.add(key)
        self._starting.submit(self._containers.start, site, job)

    def seen(self, site: Site, job: dict[str, Any], now: float) -> Seen:
        """See `Trainer.seen`."""
        if hubjobs.is_hubs(job):
            return hubjobs.seen(site, job, now)
        if not self._containers.is_begun(job):
            self._start(site, job)
        found = self._containers.seen(job, now)
        self._containers.keep_checkpoints(site, job)
        return found

    def stop(self, site: Site, job: dict[str, Any], now: float) -> None:
        """See `Trainer.stop`."""
        job["acts"].append([now, "stop"])
        if hubjobs.is_hubs(job):
            hubjobs.stop(site, job, now)
        else:
            self._containers.stop(job)

    def artefact(self, site: Site, job: dict[str, Any]) -> bytes | None:
        """See `Trainer.artefact`."""
        if hubjobs.is_hubs(job):
            return hubjobs.artefact(site, job)
        self._containers.keep_checkpoints(site, job)
        return self._containers.artefact(job)

    # -- answering ---------------------------------------------------------------------------------------------------

    def answer(self, site: Site, model: Mapping[str, Any], messages: Sequence[Any], sampling: Sampling) -> Spoken:
        """See `Trainer.answer`. Raises ModelError."""
        uri = str(model.get("adapter") or model.get("uri") or "")
        try:
            folder = self._brought(site, uri, model.get("beside") or {})
        except (buckets.NoSuch, ValueError, KeyError, OSError, tarfile.TarError) as error:
            raise ModelError(f"the model at {uri or 'no address'} cannot be loaded: {error}", 500) from error
        tuned = TunedModel(id=folder.name, base="", backend="emulator", scope="", uri=str(folder))
        options = GenerateOptions(
            max_tokens=sampling.max_tokens, temperature=sampling.temperature, top_p=sampling.top_p or 1e-6,
            seed=sampling.seed, base=bool(model.get("base")),
        )  # fmt: skip
        prompt = [{"role": str(message["role"]), "content": text_of(message)} for message in messages]
        try:
            said = next(iter(self._answering.generate(tuned, [prompt], options)))
        except CloudtuneError as error:
            raise ModelError(str(error)) from error
        return Spoken(
            pieces=trained.pieces(said.text), finish_reason=said.finish_reason or "stop",
            prompt_tokens=said.prompt_tokens or 0, completion_tokens=said.completion_tokens or 0,
        )  # fmt: skip

    def _brought(self, site: Site, uri: str, beside: Mapping[str, str]) -> Path:
        """The model's files, brought out of S3 once."""
        folder = self._folder / "models" / hashlib.sha256(uri.encode()).hexdigest()[:24]
        with self._lock:
            if (folder / TUNED).is_file():
                return folder
            aside = folder.with_name(f".{folder.name}")
            shutil.rmtree(aside, ignore_errors=True)
            if uri.endswith(".tar.gz"):
                aside.mkdir(parents=True)
                with tarfile.open(fileobj=io.BytesIO(buckets.get(site, buckets.parse(uri)))) as archive:
                    archive.extractall(aside, filter="data")
            else:
                fetch(site, uri, aside)
            for channel, source in beside.items():
                fetch(site, source, folder.with_name(f"{folder.name}-{channel}"))
            self._settle(aside, folder, uri, beside)
            aside.rename(folder)
        return folder

    def _settle(self, unpacked: Path, folder: Path, uri: str, beside: Mapping[str, str]) -> None:
        """Let the model's own note say where its base is here: within it, beside it, or in its job's channel."""
        tuned = json.loads((unpacked / TUNED).read_text(encoding="utf-8"))
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

    def close(self) -> None:
        """Leave jobs of a kept store to themselves; stop the others."""
        self._starting.shutdown(wait=True, cancel_futures=True)
        if self._store.is_kept:
            return
        self._containers.close()
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline and self._containers.is_busy():
            time.sleep(0.1)
        shutil.rmtree(self._folder, ignore_errors=True)
