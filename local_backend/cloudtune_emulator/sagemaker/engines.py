"""Engines run training jobs and serve their models: the interface of both engines, and the scripted one."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from cloudtune.errors import ArchiveError
from cloudtune.files.archives import read_tar
from cloudtune_emulator.aws import buckets
from cloudtune_emulator.engines import ScriptEngine, Spoken
from cloudtune_emulator.sagemaker import job_timeline, rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.engines import Sampling
    from cloudtune_emulator.sagemaker.job_timeline import Seen

SCRIPTED = "scripted.json"
"""The file in a scripted job's model.tar.gz that names the job. There are no weights."""


class Trainer(Protocol):
    """Runs jobs. A job is a document in the store."""

    def begin(self, context: EmulatorContext, job: dict[str, Any]) -> None:
        """Start a new job; may modify the document before it is stored."""

    def seen(self, context: EmulatorContext, job: dict[str, Any], now: float) -> Seen:
        """The job's current state."""

    def advance(self, context: EmulatorContext, job: dict[str, Any]) -> None:
        """Perform the periodic work of an active job."""

    def stop(self, context: EmulatorContext, job: dict[str, Any], now: float) -> None:
        """Stop a job; may modify the document."""

    def artefact(self, context: EmulatorContext, job: dict[str, Any]) -> bytes | None:
        """model.tar.gz of an ended job, or None if it has none."""

    def serve(self, context: EmulatorContext, model: Mapping[str, Any], body: dict[str, Any]) -> Iterator[bytes] | None:
        """The container's response to a body, in chunks as they arrive; None if ``answer`` provides it."""

    def answer(
        self, context: EmulatorContext, model: Mapping[str, Any], messages: Sequence[Any], sampling: Sampling
    ) -> Spoken:
        """The answer of a model behind an endpoint. ``model`` is its container: an image, environment, ModelDataUrl."""

    def close(self) -> None:
        """Stop or detach the running jobs."""


class ScriptTrainer:
    """Jobs progress with the clock; nothing is trained. A model answers the questions of its training rows."""

    def begin(self, context: EmulatorContext, job: dict[str, Any]) -> None:
        """See `Trainer.begin`: the job keeps the current script."""
        assert isinstance(context.engine, ScriptEngine)
        job["script"] = msgspec.to_builtins(context.engine.script)

    def seen(self, context: EmulatorContext, job: dict[str, Any], now: float) -> Seen:
        """See `Trainer.seen`."""
        return job_timeline.seen(job, now)

    def advance(self, context: EmulatorContext, job: dict[str, Any]) -> None:
        """See `Trainer.advance`: nothing."""

    def stop(self, context: EmulatorContext, job: dict[str, Any], now: float) -> None:
        """See `Trainer.stop`."""
        job["acts"].append([now, "stop"])

    def artefact(self, context: EmulatorContext, job: dict[str, Any]) -> bytes | None:
        """See `Trainer.artefact`."""
        note = {"job": job["id"], "note": "simulated job: nothing was trained", "channels": rows.channels(job)}
        return packed({SCRIPTED: json.dumps(note).encode()})

    def serve(self, context: EmulatorContext, model: Mapping[str, Any], body: dict[str, Any]) -> Iterator[bytes] | None:
        """See `Trainer.serve`: there is no container."""
        return None

    def answer(
        self, context: EmulatorContext, model: Mapping[str, Any], messages: Sequence[Any], sampling: Sampling
    ) -> Spoken:
        """See `Trainer.answer`."""
        prompt = rows.last_words(messages)
        known = next((answer for question, answer in self._learnt(context, model) if question == prompt), None)
        text = known if known is not None else f"{model.get('name', 'the model')} received: {prompt}"
        words = text.split(" ")
        said = [word if index == 0 else f" {word}" for index, word in enumerate(words[: sampling.max_tokens])]
        return Spoken(
            pieces=tuple(said), finish_reason="length" if len(said) < len(words) else "stop",
            prompt_tokens=len(prompt) // 4 + 4, completion_tokens=len(said),
        )  # fmt: skip

    def _learnt(self, context: EmulatorContext, model: Mapping[str, Any]) -> list[tuple[str, str]]:
        note = _note(context, str(model.get("adapter") or model.get("uri") or ""))
        uri = note.get("channels", {}).get("train")
        return rows.pairs(context, uri) if uri else []

    def close(self) -> None:
        """See `Trainer.close`."""


def _note(context: EmulatorContext, uri: str) -> dict[str, Any]:
    """Read the file that names the scripted job, in an archive or in a folder."""
    try:
        place = buckets.parse(uri)
        if uri.endswith(".tar.gz"):
            files = read_tar(io.BytesIO(buckets.get(context, place)))
            return next((dict(json.loads(content.read())) for name, content in files if name == SCRIPTED), {})
        return dict(json.loads(buckets.get(context, place.under(SCRIPTED))))
    except (ValueError, KeyError, TypeError, RecursionError, buckets.NoSuch, ArchiveError):
        return {}


def packed(files: Mapping[str, bytes]) -> bytes:
    """A tar.gz of these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), mtime=0)  # equal files give equal archives
