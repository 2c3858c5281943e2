"""Bringing a model that was trained elsewhere to a back end that answers from it: one import is one job.

A folder's files are hashed, checked against the back end's rules all at once, uploaded, and the job that imports them
is made by the same executor and ledger as any other; it is followed, listed and cleared as any other. A model that lies
within the back end's reach already is looked at there, and handed over by its address.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.backend import Elsewhere, Importer, ImportRequest, InPlace, InPlaceImporter, ModelFile
from cloudtune.errors import InputError, JobNotFound, Problem, UnsupportedError
from cloudtune.execute import Executor
from cloudtune.identity import job_token
from cloudtune.retry import reading
from cloudtune.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloudtune.backend import Backend, Plan, Resolved
    from cloudtune.clock import Clock
    from cloudtune.execute import StepUpdate
    from cloudtune.ledger import Ledger
    from cloudtune.state import JobRef, JobState, TunedModel

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

    def locate(self, source: str | TunedModel) -> InPlace | Elsewhere:
        """Whether the back end can take a model from where it lies: an address, or what an ended job left."""
        if isinstance(self._backend, InPlaceImporter):
            return reading(self._clock, self._backend.locate, source)
        reason = f"{self._backend.name} takes models from folders only"
        return Elsewhere(reason=reason, fix="fetch the model into a folder, and name that")

    def plan(
        self, source: Path | str | InPlace, *, name: str | None = None, again: bool = False,
        notes: Sequence[Problem] = (),
    ) -> Plan:  # fmt: skip
        """Everything that `submit` would do, checked, with nothing sent. Raises InputError with all its problems.

        ``source`` is a folder, an address, or what `locate` found. The same name and files are the same import;
        ``again`` plans a new attempt if the last one has ended. ``notes`` are shown among the plan's warnings.
        """
        if isinstance(source, str):
            source = self._at(source) if is_address(source) else Path(source)
        if isinstance(source, InPlace):
            problems: Sequence[Problem] = source.problems
            called = source.name
        else:
            source = source.expanduser()
            if not source.is_dir():
                raise InputError([Problem(code="no_folder", message="there is no such folder", file=str(source))])
            problems, called = self._importer.check_import(source), source.resolve().name
        if any(problem.severity == "error" for problem in problems):
            raise InputError(problems)
        resolved = reading(self._clock, self._importer.resolve_import)
        plan = self._importer.plan_import(self._request(source, name_of(name or called), resolved, again=again))
        return msgspec.structs.replace(plan, warnings=(*notes, *problems, *plan.warnings))

    def _at(self, address: str) -> InPlace:
        found = self.locate(address)
        if isinstance(found, Elsewhere):
            raise InputError([Problem(code="not_in_place", file=address, message=found.reason, fix=found.fix)])
        return found

    def _request(self, source: Path | InPlace, name: str, resolved: Resolved, *, again: bool) -> ImportRequest:
        in_place = source if isinstance(source, InPlace) else None
        files = () if isinstance(source, InPlace) else tuple(_file(source, path) for path in _paths(source))
        identity = in_place.identity if in_place else {"files": [[file.name, file.sha256] for file in files]}
        key = _key(name, identity, self._backend.name, resolved.scope)
        attempt = self._attempt(key, again=again)
        return ImportRequest(
            name=name, folder="" if in_place else str(source), files=files, in_place=in_place, resolved=resolved,
            key=key, attempt=attempt, token=job_token(key, attempt),
        )  # fmt: skip

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


def is_address(text: str) -> bool:
    """Whether this names a place at a vendor, and not a folder here or a job."""
    return bool(re.match(r"[a-z0-9]+://|arn:", text))


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


def _key(name: str, identity: dict[str, Any], backend: str, scope: str) -> str:
    document = {"import": name, "backend": backend, "scope": scope} | identity
    return hashlib.sha256(msgspec.json.encode(document, order="deterministic")).hexdigest()[:32]
