"""Fingerprints that detect a changed base model of an adapter. Standard library only."""

from __future__ import annotations

import errno
import hashlib
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune_trainer.problems import TrainingProblem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloudtune_trainer.run_spec import ModelSource

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_SAMPLE = 1 << 20


def fingerprint(files: Iterable[Path]) -> str:
    """Hash names, sizes and contents. Of a file above 4 MiB, only four samples of 1 MiB are read.

    Raises:
        OSError: A file cannot be read, or it is not a regular file: reading a FIFO would block.

    """
    digest = hashlib.sha256()
    for file in files:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(file))
        size = found.st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as handle:
            if size <= 4 * _SAMPLE:
                digest.update(handle.read())
                continue
            for part in range(4):  # start, end and two places between
                handle.seek(part * (size - _SAMPLE) // 3)
                digest.update(handle.read(_SAMPLE))
    return digest.hexdigest()[:32]


def weights_fingerprint(folder: Path) -> str:
    """The fingerprint of the configuration and the weights in a model folder; other files are ignored."""
    weights = {file for pattern in WEIGHTS for file in folder.glob(pattern) if file.is_file()}
    return fingerprint([file for file in (folder / "config.json",) if file.is_file()] + sorted(weights))


def base_fingerprint(base: Path) -> str:
    """The fingerprint of a base model: a model folder, or a GGUF file."""
    return weights_fingerprint(base) if base.is_dir() else fingerprint([base])


def check_fingerprint(base: Path, expected: str | None, *, since: str) -> None:
    """Compare a base model with its recorded fingerprint. ``expected`` is None for a model without one.

    Raises:
        TrainingProblem: ``base_changed``, with both fingerprints.

    """
    if expected is None:
        return
    found = base_fingerprint(base)
    if found != expected:
        raise TrainingProblem(
            "base_changed",
            f"the base model {base} has changed since {since}: its fingerprint is {found}, and was {expected}",
            "Put the original model back, or train again with the new one.",
        )


def check_base(tuned: dict[str, Any], folder: Path) -> None:
    """Compare a base model with the fingerprint in ``tuned.json``. Raises ``base_changed``.

    Of a GGUF model, the file is compared, not the dequantized ``folder``: that depends on the version of transformers.
    """
    base = tuned["base"]
    place = Path(base["path"]) if base["source"] == "gguf" else folder
    check_fingerprint(place, base.get("fingerprint"), since="this adapter was trained on it")


def check_same_base(tuned: dict[str, Any], source: ModelSource, folder: Path) -> None:
    """Check that a job's base model is the one of the adapter from which it continues. Raises ``base_changed``.

    Models of the hub must have the same id and revision, other models the fingerprint in ``tuned.json``. ``folder`` is
    the folder that is loaded for ``source``.
    """
    base = tuned["base"]
    if "hub" not in (base["source"], source.source):
        place = Path(source.path) if source.source == "gguf" else folder
        check_fingerprint(place, base.get("fingerprint"), since="this adapter was trained on it")
        return
    trained_on = _described(base["source"], base["path"], base.get("revision"))
    found = _described(source.source, source.path, source.revision)
    if found != trained_on:
        what = f"the adapter was trained on {trained_on}, and the job's model is {found}"
        raise TrainingProblem("base_changed", what, "Use the base model of the adapter.")


def _described(source: str, path: str, revision: str | None) -> str:
    at = f" at revision {revision or 'main'}" if source == "hub" else ""
    return f"the {source} model {path}{at}"
