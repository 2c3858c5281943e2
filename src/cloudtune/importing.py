"""Bringing a model that was trained elsewhere to a back end that answers from it: one import is one job.

The folder's files are hashed, checked against the back end's rules all at once, uploaded, and the job that imports them
is made by the same executor and ledger as any other; it is followed, listed and cleared as any other.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.backend import Importer, ImportRequest, ModelFile
from cloudtune.errors import InputError, JobNotFound, Problem, UnsupportedError
from cloudtune.execute import Executor
from cloudtune.identity import job_token
from cloudtune.retry import reading
from cloudtune.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cloudtune.backend import Backend, Plan
    from cloudtune.clock import Clock
    from cloudtune.execute import StepUpdate
    from cloudtune.ledger import Ledger
    from cloudtune.state import JobRef, JobState

LONGEST_NAME = 40
_CHUNK = 8 * 1024 * 1024


class Importing:
    """Imports into one back end. Raises UnsupportedError if it takes no models from elsewhere."""

    def __init__(
        self, backend: Backend, ledger: Ledger, clock: Clock, trace: Callable[[str], None] | None = None
    ) -> None:
        if not isinstance(backend, Importer):
            raise UnsupportedError(f"{backend.name} takes no models that were trained elsewhere")
        self._backend = backend
        self._importer: Importer = backend
        self._ledger = ledger
        self._clock = clock
        self._trace = trace

    def plan(self, folder: Path, *, name: str | None = None, again: bool = False) -> Plan:
        """Everything that `submit` would do, checked, with nothing sent. Raises InputError with all its problems.

        The same name and files are the same import; ``again`` plans a new attempt if the last one has ended.
        """
        folder = folder.expanduser()
        if not folder.is_dir():
            raise InputError([Problem(code="no_folder", message="there is no such folder", file=str(folder))])
        name = name_of(name or folder.resolve().name)
        problems = list(self._importer.check_import(folder))
        if any(problem.severity == "error" for problem in problems):
            raise InputError(problems)
        resolved = reading(self._clock, self._importer.resolve_import)
        files = tuple(_file(folder, path) for path in _paths(folder))
        key = _key(name, files, self._backend.name, resolved.scope)
        attempt = self._attempt(key, again=again)
        request = ImportRequest(
            name=name, folder=str(folder), files=files, resolved=resolved, key=key, attempt=attempt,
            token=job_token(key, attempt),
        )  # fmt: skip
        plan = self._importer.plan_import(request)
        return msgspec.structs.replace(plan, warnings=(*problems, *plan.warnings))

    def submit(self, plan: Plan, on_step: Callable[[StepUpdate], None] | None = None) -> JobRef:
        """Make the import, or find it if it was made before. After a crash the same call goes on where it stopped."""
        attempt = self._ledger.begin(plan)
        if attempt.ref is not None:
            return attempt.ref
        spool = Spool(self._ledger.folder / "spool")
        executor = Executor(
            self._backend, self._ledger, self._clock, spool=spool, trace=self._trace, on_step=on_step
        )  # fmt: skip
        return executor.run(attempt.plan, None)

    def _attempt(self, key: str, *, again: bool) -> int:
        last = self._ledger.latest(key)
        if last is None:
            return 1
        if last.gone_at is not None:
            return last.attempt + 1
        if last.ref is None or not again:
            return last.attempt
        return last.attempt + 1 if self._has_ended(last.ref) else last.attempt

    def _has_ended(self, ref: JobRef) -> bool:
        try:
            state: JobState = reading(self._clock, self._backend.get, ref).state
        except JobNotFound:
            return True
        return state.is_terminal


def name_of(text: str) -> str:
    """As a job's name: letters, digits and single hyphens, at most forty."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:LONGEST_NAME].strip("-") or "model"


def _paths(folder: Path) -> list[Path]:
    """All files, hidden ones and what a cache left behind aside, in the order of their names."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _file(folder: Path, path: Path) -> ModelFile:
    found = hashlib.sha256()
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK):
            found.update(chunk)
    name = path.relative_to(folder).as_posix()
    return ModelFile(name=name, path=str(path.resolve()), bytes=path.stat().st_size, sha256=found.hexdigest())


def _key(name: str, files: tuple[ModelFile, ...], backend: str, scope: str) -> str:
    document: dict[str, Any] = {
        "import": name, "files": [[file.name, file.sha256] for file in files], "backend": backend, "scope": scope,
    }  # fmt: skip
    return hashlib.sha256(msgspec.json.encode(document, order="deterministic")).hexdigest()[:32]
