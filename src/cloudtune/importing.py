"""Import a model that was trained elsewhere. One import is one job.

The files of a folder are hashed, checked against the back end's rules, all problems at once, and uploaded. The runner
submits the import like any other job, so it is followed, listed and cleared like one. A model that the back end can
already reach is checked where it is and imported by its address, without an upload.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.errors import InputError, Problem, UnsupportedError
from cloudtune.files.model_files import links_outside
from cloudtune.files.private_files import narrow, private_folder
from cloudtune.files.regular_file import open_regular
from cloudtune.optional import Elsewhere, Importer, ImportRequest, InPlace, InPlaceImporter, ModelFile
from cloudtune.retry import reading
from cloudtune.runner import job_token

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloudtune.execute import StepUpdate
    from cloudtune.job import Job
    from cloudtune.plan import Plan, Resolved
    from cloudtune.runner import Runner
    from cloudtune.state import JobRef, TunedModel

LONGEST_NAME = 40
_CHUNK = 8 * 1024 * 1024


class Importing:
    """Imports into one back end. Raises UnsupportedError if it imports no models."""

    def __init__(self, runner: Runner) -> None:
        backend = runner.backend
        if not isinstance(backend, Importer):
            raise UnsupportedError(f"{backend.name} cannot import models")
        self._runner = runner
        self._importer: Importer = backend
        self._exports = runner.ledger.folder.resolve() / "exports"

    def locate(self, source: str | TunedModel) -> InPlace | Elsewhere:
        """Whether the back end can import from an address, or from what an ended job left, without an upload."""
        backend = self._runner.backend
        if isinstance(backend, InPlaceImporter):
            return reading(self._runner.clock, backend.locate, source)
        reason = f"{backend.name} imports models from folders only"
        return Elsewhere(reason=reason, fix="download the model to a folder, and import that")

    def plan(
        self, source: Path | str | InPlace, *, name: str | None = None, again: bool = False,
        notes: Sequence[Problem] = (),
    ) -> Plan:  # fmt: skip
        """Check a model and return everything that `submit` would do. Sends nothing. Raises InputError.

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
                raise InputError([Problem(code="no_folder", message="no such folder", file=str(source))])
            problems, called = self._importer.check_import(source), source.resolve().name
            problems = [*links_outside(source, _paths(source)), *problems]
        if any(problem.severity == "error" for problem in problems):
            raise InputError(problems)
        resolved = reading(self._runner.clock, self._importer.resolve_import)
        plan = self._importer.plan_import(self._request(source, name_of(name or called), resolved, again=again))
        return msgspec.structs.replace(plan, warnings=(*notes, *problems, *plan.warnings))

    def plan_of_job(
        self, job: Job, *, name: str | None = None, again: bool = False,
        on_export: Callable[[Path], None] | None = None,
    ) -> Plan:  # fmt: skip
        """As `plan`, for the model of an ended job: in place, or merged and exported next to the ledger.

        ``on_export`` is called with the folder before an export starts.
        """
        name = name or job.snapshot().name or "model"
        found = self.locate(job.model())
        if isinstance(found, InPlace):
            return self.plan(found, name=name, again=again)
        folder = self._exports / hashlib.sha256(str(job.ref).encode()).hexdigest()[:16]
        if not folder.is_dir():
            private_folder(folder.parent)
            if on_export is not None:
                on_export(folder)
            partial = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")  # a folder of that name is complete
            job.export(partial, merged=True)
            partial.replace(folder)
            narrow(folder)
        message = f"the weights are exported and uploaded: {found.reason}"
        note = Problem(code="brought_here", severity="info", message=message)
        return self.plan(folder, name=name, again=again, notes=(note,))

    def submit(self, plan: Plan, on_step: Callable[[StepUpdate], None] | None = None) -> JobRef:
        """Create the import job, or find it if it was submitted before. Removes what `plan_of_job` exported for it."""
        ref = self._runner.submit(plan, None, on_step)
        for step in plan.steps:
            path = Path(str(step.request.get("path") or "/"))
            if self._exports in path.parents:
                shutil.rmtree(self._exports / path.relative_to(self._exports).parts[0], ignore_errors=True)
        return ref

    def _at(self, address: str) -> InPlace:
        found = self.locate(address)
        if isinstance(found, Elsewhere):
            raise InputError([Problem(code="not_in_place", file=address, message=found.reason, fix=found.fix)])
        return found

    def _request(self, source: Path | InPlace, name: str, resolved: Resolved, *, again: bool) -> ImportRequest:
        in_place = source if isinstance(source, InPlace) else None
        files = () if isinstance(source, InPlace) else tuple(_file(source, path) for path in _paths(source))
        identity = in_place.identity if in_place else {"files": [[file.name, file.sha256] for file in files]}
        key = _key(name, identity, self._runner.backend.name, resolved.scope)
        attempt, _ = self._runner.next_attempt(key, again=again)
        return ImportRequest(
            name=name, folder="" if in_place else str(source), files=files, in_place=in_place, resolved=resolved,
            key=key, attempt=attempt, token=job_token(key, attempt),
        )  # fmt: skip


def is_address(text: str) -> bool:
    """Whether this is an address at a vendor, and not a local folder or a job."""
    return bool(re.match(r"[a-z0-9]+://|arn:", text))


def name_of(text: str) -> str:
    """Return a valid job name: letters, digits and single hyphens, at most 40 characters."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:LONGEST_NAME].strip("-") or "model"


def _paths(folder: Path) -> list[Path]:
    """Return all files except hidden files and cache leftovers, sorted by name."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _file(folder: Path, path: Path) -> ModelFile:
    found = hashlib.sha256()
    with open_regular(path) as content:
        while chunk := content.read(_CHUNK):
            found.update(chunk)
    name = path.relative_to(folder).as_posix()
    return ModelFile(name=name, path=str(path.resolve()), bytes=path.stat().st_size, sha256=found.hexdigest())


def _key(name: str, identity: dict[str, Any], backend: str, scope: str) -> str:
    document = {"import": name, "backend": backend, "scope": scope} | identity
    return hashlib.sha256(msgspec.json.encode(document, order="deterministic")).hexdigest()[:32]
