"""Files at the service: one upload, in one request or in parts; identified by name, size and purpose.

A file object has no hash or metadata, and the Uploads API has no get or list. Therefore the name contains the hash, and
the journal contains the upload's id and its parts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.backend import Absent, Done, Found, Intent, Journal, Probe
from cloudtune.errors import BackendError, InvalidRequest, InvalidResponse, JobNotFound
from cloudtune.state import JobRef
from cloudtune_providers.openai_dialect.sdk_client import Wire, plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloudtune.clock import Clock

_BAD = frozenset({"error", "failed", "deleted", "deleting", "cancelled", "canceled"})
_READY = frozenset({"processed", "succeeded"})
_WAITING = frozenset({"uploaded", "pending", "notrunning", "running", "processing"})
_EXPIRY_MARGIN_S = 120.0
_PAGE = 1000


class Files:
    """The files of one account. ``prefix`` as in `Jobs`."""

    def __init__(self, wire: Wire, backend: str, scope: str, clock: Clock, *, prefix: str = "") -> None:
        self._wire = wire
        self._backend = backend
        self._scope = scope
        self._prefix = prefix
        self._clock = clock
        self._names: dict[str, str] = {}

    def upload(self, request: dict[str, Any], journal: Journal) -> dict[str, Any]:
        """Upload the file that the request names; the output is its id."""
        if request["call"] == "uploads":
            return {"file": self._in_parts(request, journal)}
        return {"file": self.send(request["path"], request["body"]["filename"], request["timeout_s"])}

    def send(self, path: str, filename: str, timeout_s: float) -> str:
        """Upload a file under that name, in one request."""
        with Path(path).open("rb") as content, self._wire.asking("upload", missing=InvalidRequest):
            made = plain(
                self._wire.client.files.create(file=(filename, content), purpose="fine-tune", timeout=timeout_s)
            )
        return str(made["id"])

    def oldest(self, filename: str, size: int) -> str | None:
        """The oldest usable file of that name and size."""
        return next((str(file["id"]) for file in self._alike(filename, size)), None)

    def find(self, request: dict[str, Any], intent: Intent) -> Found:
        """The oldest usable file with the same rows. Newer ones of this submission are duplicates."""
        body = request["body"]
        good = self._alike(request["same"], request["bytes"])
        if not good:
            return Absent()
        spare = [file["id"] for file in good[1:] if file["filename"] == body["filename"]]
        return Done(
            outputs={"file": good[0]["id"]},
            duplicates=tuple(str(JobRef(self._backend, self._scope, f"{self._prefix}{file}")) for file in spare),
        )

    def spare(self, uploads: Sequence[Mapping[str, Any]]) -> list[str]:
        """Duplicate files of this submission. No other submission uses them, because the oldest is used."""
        return [
            file["id"]
            for upload in uploads
            for file in self._alike(upload["filename"], upload["bytes"])
            if file["id"] != upload["keep"]
        ]

    def _alike(self, beginning: str, size: int) -> list[dict[str, Any]]:
        """Usable files with that name prefix, oldest first."""
        call = self._wire.client.files.list
        listed = self._wire.each(call, "list of files", limit=_PAGE, purpose="fine-tune", order="desc")
        good = [
            file
            for file in listed
            if str(file.get("filename")).startswith(beginning)
            and file.get("bytes") == size
            and str(file.get("status", "")).lower() not in _BAD
        ]
        return sorted(good, key=lambda file: (file.get("created_at") or 0, file["id"]))

    def probe(self, request: dict[str, Any]) -> Probe:
        """Whether the file is usable. The status is deprecated: a file without one is ready."""
        with self._wire.asking(f"file {request['file']}", missing=InvalidRequest):
            file = plain(self._wire.client.files.retrieve(request["file"]))
        word = str(file.get("status") or "processed").lower()
        if word in _BAD:
            return Probe(state="failed", message=str(file.get("status_details") or f"the file is {word}"))
        state = "pending" if word in _WAITING else "ready"
        return Probe(state=state, outputs={"file": file["id"]}, message=word)  # type: ignore[arg-type]

    def name(self, file: str) -> str:
        """A file's name; empty if it no longer exists. Names never change, so each is read once."""
        if not self._names:
            entries = self._wire.each(self._wire.client.files.list, "list of files", limit=_PAGE, purpose="fine-tune")
            self._names |= {entry["id"]: str(entry.get("filename") or "") for entry in entries}
        if file not in self._names:
            try:
                with self._wire.asking(f"file {file}"):
                    self._names[file] = str(plain(self._wire.client.files.retrieve(file))["filename"])
            except JobNotFound:
                self._names[file] = ""
        return self._names[file]

    def content(self, file: str) -> bytes:
        """A file's bytes."""
        with self._wire.asking(f"file {file}", missing=InvalidRequest):
            answer = self._wire.client.files.content(file)
            if "text/html" in answer.response.headers.get("content-type", ""):
                raise InvalidResponse(f"file {file}: the response is a web page, not the file's content")
            return bytes(answer.content)

    def delete(self, file: str) -> None:
        """Delete a file. Succeeds if it does not exist."""
        try:
            with self._wire.asking(f"file {file}"):
                plain(self._wire.client.files.delete(file))
        except JobNotFound:
            return

    # -- in parts --------------------------------------------------------------------------------------------------

    def _in_parts(self, request: dict[str, Any], journal: Journal) -> str:
        upload, parts = self._opened(request, journal)
        with Path(request["path"]).open("rb") as content:
            content.seek(len(parts) * request["part_bytes"])
            while chunk := content.read(request["part_bytes"]):
                # It cannot be queried whether a part with a lost response counts: every send is noted.
                journal.note("parts_sent", len(parts) + 1)
                with self._wire.asking(f"part of {upload}", missing=BackendError):
                    part = plain(
                        self._wire.client.uploads.parts.create(upload, data=chunk, timeout=request["timeout_s"])
                    )
                parts.append(part["id"])
                journal.note("parts", parts)
        with self._wire.asking(f"completion of {upload}", missing=BackendError):
            done = plain(self._wire.client.uploads.complete(upload, part_ids=parts))
            return str(done["file"]["id"])

    def _opened(self, request: dict[str, Any], journal: Journal) -> tuple[str, list[str]]:
        """Return the unfinished upload if every sent part certainly arrived and it has not expired, or a new one."""
        notes = journal.notes
        if (begun := notes.get("upload")) is not None:
            parts = list(notes.get("parts", ()))
            in_time = self._clock.now().timestamp() < notes.get("expires_at", 0) - _EXPIRY_MARGIN_S
            if in_time and notes.get("parts_sent", 0) == len(parts):
                return str(begun), parts
            self._abandon(str(begun))
        body = request["body"]
        with self._wire.asking("upload", missing=InvalidRequest):
            made = plain(self._wire.client.uploads.create(**body))
        journal.note("parts", [])
        journal.note("parts_sent", 0)
        journal.note("expires_at", made.get("expires_at") or 0)
        journal.note("upload", made["id"])
        return str(made["id"]), []

    def _abandon(self, upload: str) -> None:
        try:
            with self._wire.asking(f"upload {upload}"):
                plain(self._wire.client.uploads.cancel(upload))
        except (JobNotFound, InvalidRequest):  # it has expired, or was completed
            return
