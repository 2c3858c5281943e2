"""Creates a job exactly once without idempotency tokens: each request has its own training file.

A create request without a response can take effect at any time, even after a second one was sent. If a service stores
neither a token nor metadata, two jobs are possible. A job requires its training file. Therefore the earlier file is
deleted before another request is sent, and the new request uses a new file with the same rows: the service then
rejects the earlier request. A job that it created just before is found by its file, and cancelled.

OpenAI rejects jobs whose file does not exist; Bedrock does not document it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cloudtune.backend import Absent, Done, Probe
from cloudtune.errors import RateLimited, TransientError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cloudtune.backend import Found, Intent, Journal
    from cloudtune_providers.openai_dialect.files import Files
    from cloudtune_providers.openai_dialect.jobs import Jobs

SENT_WITH = "sent_with"
"""Note of a step: the files of the create requests that were sent, the latest last."""
REMOVED = "removed"
"""Note of a step: how many of them are, or may be, deleted."""


def is_fenced(request: Mapping[str, Any]) -> bool:
    """Whether a create step requires this."""
    return "fence" in request


class Fence:
    """Creates jobs this way in one account."""

    def __init__(self, jobs: Jobs, files: Files) -> None:
        self._jobs = jobs
        self._files = files

    def create(self, request: Mapping[str, Any], journal: Journal) -> dict[str, Any]:
        """Send the create request, with a new file if an earlier request may still be executed."""
        body = dict(request["body"])
        sent = list(journal.notes.get(SENT_WITH, ()))
        if sent:
            journal.note(REMOVED, len(sent))  # a job that appears with these files from now on is a duplicate
            with _nothing_sent():
                body["training_file"] = self._fresh(request["fence"], sent)
        # Saved even if the send fails: the next one must know this file.
        journal.note(SENT_WITH, [*sent, body["training_file"]])
        try:
            made = self._jobs.create(body)
        except TransientError as error:
            if isinstance(error, RateLimited) or getattr(error, "acted", None) is False:
                journal.note(SENT_WITH, sent)
            raise
        return made | _outputs(request, [*sent, body["training_file"]])

    def find(self, request: Mapping[str, Any], intent: Intent) -> Found:
        """The job on the last file; those on earlier ones are duplicates, because their files were deleted."""
        sent = list(intent.notes.get(SENT_WITH, ())) or [request["body"]["training_file"]]
        if intent.notes.get(REMOVED, 0) >= len(sent):
            return Absent()
        found = self._jobs.find({"training_file": sent[-1]}, intent)
        if not isinstance(found, Done):
            return Absent()
        spare = self._jobs.find({"training_file": sent[:-1]}, intent) if sent[1:] else Absent()
        doomed = (spare.outputs["ref"], *spare.duplicates) if isinstance(spare, Done) else ()
        return Done(outputs=found.outputs | _outputs(request, sent), duplicates=(*found.duplicates, *doomed))

    def confirm(self, request: Mapping[str, Any]) -> Probe:
        """As `Jobs.confirm`: the job on the last file is kept."""
        *earlier, last = request["files"]
        probe = self._jobs.confirm({**request, "marks": {"training_file": last}})
        if probe.state != "ready" or not earlier:
            return probe
        duplicates = [
            *probe.outputs["duplicates"],
            *self._jobs.alive({"training_file": earlier}, request["created_at"]),
        ]
        return Probe(state="ready", outputs=probe.outputs | {"duplicates": duplicates})

    def _fresh(self, fence: Mapping[str, Any], sent: Sequence[str]) -> str:
        """A file with the same rows that no request has used yet, once the earlier one is deleted."""
        self._files.delete(sent[-1])
        name = _named(fence["filename"], len(sent))
        file = self._files.oldest(name, fence["bytes"])
        if file is None:
            file = self._files.send(fence["path"], name, fence["timeout_s"])
        probe = self._files.probe({"file": file})
        if probe.state == "pending":
            raise Unavailable(f"the file {name} is not processed yet: {probe.message}", acted=False)
        return file


@contextmanager
def _nothing_sent() -> Iterator[None]:
    """An error in this block means that no create request was sent."""
    try:
        yield
    except RateLimited:
        raise
    except TransientError as error:
        raise Unavailable(error.message, acted=False, hint=error.hint) from error


def _outputs(request: Mapping[str, Any], sent: list[str]) -> dict[str, Any]:
    """The outputs for later steps: all files, and those whose names a delayed upload may still create."""
    fence = request["fence"]
    uploads = [
        {"keep": file, "bytes": fence["bytes"], "filename": _named(fence["filename"], number)}
        for number, file in enumerate(sent) if number
    ]  # fmt: skip
    return {"files": sent, "uploads": uploads}


def _named(filename: str, number: int) -> str:
    """The name of the file for a send's number: it has two more digits of the token."""
    stem, _, ending = filename.rpartition(".")
    return f"{stem}{number:02x}.{ending}" if number else filename
