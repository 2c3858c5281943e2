"""Reads and controls jobs whose state is their run folder, on this machine or on another one."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.errors import InvalidRequest, JobNotFound
from cloudtune.state import JobRef, TunedModel
from cloudtune_providers.run_folders.access import Folders
from cloudtune_providers.run_folders.machine import HOST, SshMachine
from cloudtune_providers.run_folders.results import FetchedModels
from cloudtune_trainer.submit import snapshots
from cloudtune_trainer.submit.run_reading import no_checkpoint
from cloudtune_trainer.worker.run import UNREADABLE, RunStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import IO

    from cloudtune.state import Checkpoint, Event, JobSnapshot, Metric
    from cloudtune_trainer.submit.bundle import Bundle

Document = dict[str, Any]


class RunFolderJobs:
    """The jobs of one back end. The scope of a job is the root folder, with the machine's name in front: HOST:/ROOT."""

    def __init__(self, name: str, *, python: str, ssh_config: str | None, code: Callable[[], Bundle]) -> None:
        self.name = name
        self.code = code
        """The archive of the trainer that the machine gets."""
        self._python = python
        self._ssh_config = ssh_config
        self.models = FetchedModels(self.folders)
        self.correct: Callable[[Folders, Mapping[str, Document]], Mapping[str, RunStatus]] = _as_recorded
        """Corrects recorded statuses by what the back end's scheduler says."""

    def folders(self, scope: str) -> Folders:
        """The folders of a scope. Raises JobNotFound for text that is no scope."""
        host, colon, root = scope.rpartition(":")
        if not root.startswith("/") or (colon and not HOST.fullmatch(host)):
            raise JobNotFound(f"{scope!r} is not a scope of {self.name}: expected a folder, or HOST:/FOLDER")
        return Folders(root, SshMachine(host, config=self._ssh_config) if colon else None, self._python)

    # -- reading -----------------------------------------------------------------------------------------------------

    def statuses(self, scope: str, runs: Sequence[str] | None) -> dict[str, RunStatus]:
        """The current statuses of these runs, or of all."""
        folders = self.folders(scope)
        names = None if runs is None else [name for name in runs if _may_exist(name)]
        found = folders.call("statuses", root=folders.root, runs=names)["runs"]
        return dict(self.correct(folders, found))

    def status(self, ref: JobRef) -> RunStatus:
        """The current status. Raises JobNotFound."""
        found = self.statuses(ref.scope, [ref.id])
        if ref.id not in found:
            raise JobNotFound(f"no run {ref.id!r} in {ref.scope}")
        return found[ref.id]

    def get(self, ref: JobRef) -> JobSnapshot:
        """See `cloudtune.backend.Backend`."""
        return snapshots.to_snapshot(ref, self.status(ref))

    def get_many(self, refs: Sequence[JobRef]) -> dict[JobRef, JobSnapshot]:
        """See `cloudtune.optional.BatchStatus`."""
        found: dict[JobRef, JobSnapshot] = {}
        for scope in {ref.scope for ref in refs}:
            wanted = [ref for ref in refs if ref.scope == scope]
            known = self.statuses(scope, [ref.id for ref in wanted])
            found |= {ref: snapshots.to_snapshot(ref, known[ref.id]) for ref in wanted if ref.id in known}
        return found

    def listed(self, scope: str, limit: int | None) -> list[JobSnapshot]:
        """The runs under the root, newest first."""
        known = sorted(
            self.statuses(scope, None).items(), key=lambda pair: (int(pair[1].job.get("number", 0)), pair[0])
        )
        return [snapshots.to_snapshot(JobRef(self.name, scope, name), status) for name, status in known[::-1][:limit]]

    def events(self, ref: JobRef, after: str | None) -> list[Event]:
        """The events after that line."""
        status = self.status(ref)  # before the events, so that the end is either among them or derived
        line = snapshots.to_line(after)
        reply = self._of(ref, "lines", file="events", after=line)
        return snapshots.with_end(reply["lines"], status, line, lambda: int(reply["count"]))

    def metrics(self, ref: JobRef, after: str | None) -> list[Metric]:
        """The metrics after that line."""
        self.status(ref)
        return snapshots.to_metrics(self._of(ref, "lines", file="metrics", after=snapshots.to_line(after))["lines"])

    def checkpoints(self, ref: JobRef) -> Sequence[Checkpoint]:
        """Complete checkpoints, oldest first."""
        self.status(ref)
        return snapshots.to_checkpoints(self._of(ref, "list_checkpoints")["checkpoints"])

    def _of(self, ref: JobRef, act: str, **arguments: Any) -> Document:
        folders = self.folders(ref.scope)
        return folders.call(act, root=folders.root, run=ref.id, **arguments)

    # -- steps of a submission ---------------------------------------------------------------------------------------

    def starting_checkpoint(self, parent: JobRef) -> Document:
        """The newest valid checkpoint of an ended job. Raises InvalidRequest."""
        self.status(parent)
        found = self._of(parent, "newest_checkpoint")
        if not found:
            raise no_checkpoint(parent)
        return found

    def upload(self, scope: str, request: Mapping[str, Any]) -> Document:
        """Store rows, the trainer's code, or a model's files, unless they are there."""
        folders = self.folders(scope)
        if "files" in request:
            return self._upload_model(folders, request)
        name = f"{request['folder']}/{request['sha256']}"
        if not folders.call("has_files", root=folders.root, names=[name])["found"]:
            if request["folder"] == "code":
                content = self.code().content
                _put(folders, name, io.BytesIO(content), len(content), request["sha256"])
            else:
                with Path(request["path"]).open("rb") as rows:
                    _put(folders, name, rows, request["bytes"], request["sha256"])
        if request["folder"] == "code":
            return folders.call("unpack_code", root=folders.root, name=name)
        return {"path": f"{folders.root}/.files/{name}"}

    def _upload_model(self, folders: Folders, request: Mapping[str, Any]) -> Document:
        """Upload the files that are missing. A file that has another size than in the plan is refused."""
        source, sizes = Path(request["path"]), {file["name"]: file["bytes"] for file in request["files"]}
        names = {name: f"{request['folder']}/{name}" for name in sizes}
        found = folders.call("has_files", root=folders.root, names=list(names.values()))["found"]
        for name, size in sizes.items():
            if found.get(names[name]) == size:
                continue
            path = source if source.is_file() else source / name
            if path.stat().st_size != size:
                raise InvalidRequest(f"{path} has changed since the plan", hint="submit again")
            with path.open("rb") as content:
                _put(folders, names[name], content, size, None)
        return {"path": f"{folders.root}/.files/{request['folder']}"}

    def is_uploaded(self, scope: str, request: Mapping[str, Any]) -> Document | None:
        """The outputs of an upload that has happened."""
        folders = self.folders(scope)
        if "files" in request:
            sizes = {f"{request['folder']}/{file['name']}": file["bytes"] for file in request["files"]}
            done = folders.call("has_files", root=folders.root, names=list(sizes))["found"] == sizes
            return {"path": f"{folders.root}/.files/{request['folder']}"} if done else None
        name = f"{request['folder']}/{request['sha256']}"
        wanted = f"{name}.d" if request["folder"] == "code" else name
        if wanted not in folders.call("has_files", root=folders.root, names=[wanted])["found"]:
            return None
        return {"path": f"{folders.root}/.files/{wanted}"}

    def create(self, scope: str, request: Mapping[str, Any]) -> JobRef:
        """Create the run, and start its worker if the request says so."""
        folders = self.folders(scope)
        wanted = {name: request[name] for name in ("run", "spec", "job", "start")}
        folders.call("create_run", root=folders.root, **wanted)
        return JobRef(self.name, scope, request["run"])

    # -- control -----------------------------------------------------------------------------------------------------

    def ask(self, ref: JobRef, request: str, *, withdraw: bool = False) -> bool:
        """Make or withdraw a request. Returns whether the run has a worker."""
        return bool(self._of(ref, "ask", request=request, withdraw=withdraw)["worker"])

    def end(self, ref: JobRef, state: str, message: str, problem: Document | None = None) -> None:
        """Record the end, or the pause, of a run without a worker."""
        self._of(ref, "end_run", state=state, message=message, problem=problem)

    def start(self, ref: JobRef) -> None:
        """Start a worker for a run that has none."""
        self._of(ref, "start_worker")

    def delete(self, ref: JobRef) -> None:
        """Delete an ended job with its checkpoints and its model. A missing job counts as deleted."""
        try:
            status = self.status(ref)
        except JobNotFound:
            return
        if not status.is_final and status.state != UNREADABLE:
            raise InvalidRequest(f"{ref} has not ended ({status.state})", hint="cancel it first")
        others = self.statuses(ref.scope, None).items()
        children = [name for name, other in others if other.job.get("parent") == str(ref) and not other.is_final]
        if children:
            message = f"{', '.join(children)} started from a checkpoint of {ref} and has not ended"
            raise InvalidRequest(message, hint="wait for it, or cancel it first")
        self._of(ref, "delete_run")
        self.models.forget(ref)

    # -- the model ---------------------------------------------------------------------------------------------------

    def model(self, ref: JobRef) -> TunedModel:
        """The job's model. Raises InvalidRequest while there is none."""
        status, folders = self.status(ref), self.folders(ref.scope)
        found = self._of(ref, "model_of")
        if not found:
            raise InvalidRequest(f"{ref} has no model; its state is {status.state}")
        host = f"ssh://{folders.machine.host}" if folders.machine is not None else ""
        return TunedModel(
            id=ref.id,
            base=str(status.job.get("model") or found["tuned"]["base"]["path"]),
            backend=ref.backend,
            scope=ref.scope,
            ref=ref,
            call="in_process",
            adapter=found["tuned"]["adapter"],
            uri=f"{host}{found['path']}",
            files=tuple(sorted(found["files"])),
            raw={
                **found["tuned"],
                "sizes": found["files"],
                "base": status.job.get("base"),
                "trained_on": found["tuned"]["base"],
            },
        )


def _put(folders: Folders, name: str, content: IO[bytes], size: int, sha256: str | None) -> None:
    folders.call("put_file", content, root=folders.root, name=name, size=size, sha256=sha256)


def _may_exist(name: str) -> bool:
    return bool(name) and "/" not in name and not name.startswith(".")


def to_run_status(document: Mapping[str, Any]) -> RunStatus:
    """The status in a reply."""
    return RunStatus(**{field: document[field] for field in RunStatus._fields})


def _as_recorded(_: Folders, documents: Mapping[str, Document]) -> Mapping[str, RunStatus]:
    return {name: to_run_status(document) for name, document in documents.items()}
