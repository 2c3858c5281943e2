"""Tuned models of another machine: fetched once, then used in this process."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.errors import ArchiveError
from cloudtune.files.archives import extract_tar
from cloudtune.files.model_files import read_json_object
from cloudtune.files.private_files import private_folder
from cloudtune_trainer.submit.run_folder import TUNED, write_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudtune.state import JobRef, TunedModel
    from cloudtune_providers.run_folders.access import Folders


def cache_folder() -> Path:
    """Where fetched models are: ``models`` under CLOUDTUNE_HOME, else under this user's cache folder."""
    home = os.environ.get("CLOUDTUNE_HOME")
    if home:
        return Path(home).expanduser().absolute() / "models"
    import platformdirs

    return platformdirs.user_cache_path("cloudtune").absolute() / "models"


class FetchedModels:
    """Models by their job."""

    def __init__(self, folders_of: Callable[[str], Folders]) -> None:
        self._folders_of = folders_of
        self._lock = threading.Lock()

    def here(self, model: TunedModel) -> TunedModel:
        """The same model with its files on this machine; fetched if needed."""
        if model.ref is None or self._folders_of(model.scope).machine is None:
            return model
        folder = self._folder(model.ref)
        with self._lock:
            if not (folder / TUNED).is_file():
                self._fetch(model, model.ref, folder)
        return msgspec.structs.replace(model, uri=str(folder))

    def forget(self, ref: JobRef) -> None:
        """Delete the fetched files."""
        shutil.rmtree(self._folder(ref), ignore_errors=True)

    def _folder(self, ref: JobRef) -> Path:
        place = hashlib.sha256(f"{ref.backend}:{ref.scope}".encode()).hexdigest()[:16]
        return cache_folder() / place / ref.id

    def _fetch(self, model: TunedModel, ref: JobRef, folder: Path) -> None:
        folders = self._folders_of(ref.scope)
        private_folder(folder.parent)
        aside = private_folder(folder.with_name(f".{folder.name}.{secrets.token_hex(4)}"))
        try:
            _extract(folders, ref.id, "model", aside / "model")
            tuned = _checked(aside / "model", model)
            if tuned["base"]["source"] == "config":
                _extract(folders, ref.id, "base", aside / "model" / "base")
                tuned["base_folder"] = "base"
            tuned["base"]["path"] = model.raw["base"]
            write_json(aside / "model" / TUNED, tuned)
            try:
                (aside / "model").rename(folder)
            except OSError:
                if not (folder / TUNED).is_file():  # else another process was faster
                    raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _extract(folders: Folders, run: str, name: str, to: Path) -> None:
    with tempfile.TemporaryFile(dir=to.parent) as archive:
        folders.fetch(run, name, archive)
        archive.seek(0)
        extract_tar(archive, to)


def _checked(folder: Path, model: TunedModel) -> dict[str, Any]:
    """The description of the fetched model; its files must be those that the machine listed."""
    sizes = {str(file.relative_to(folder)): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    if sizes != model.raw["sizes"]:
        raise ArchiveError(f"the files of {model.id} arrived incomplete or changed", hint="run the command again")
    tuned = read_json_object(folder / TUNED)
    if not isinstance(tuned.get("base"), dict) or tuned["base"].get("source") not in (
        "folder",
        "gguf",
        "hub",
        "config",
    ):
        raise ArchiveError(f"{TUNED} of {model.id} names no base model", hint="train the model again")
    return tuned
