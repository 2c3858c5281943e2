"""Every error that cloudtune raises, in one tree.

::

    CloudtuneError                       exit code
    ├── InputError (ValueError)                  2   all problems at once, each with its place
    │   ├── SpecError                                the job's file
    │   │   └── UnsupportedError                     the back end cannot do what the spec asks
    │   ├── DataError                                the rows
    │   └── ConfigError                              settings, profiles, environment references
    ├── UnknownBackend (LookupError)             2
    ├── BackendNotInstalled (ImportError)        2
    ├── PolicyRefused                            7   a limit, a policy or the person said no
    ├── LedgerError                              1   the durable record cannot be read or written
    ├── Conflict                                 1   the name is taken by something that is not ours
    ├── BackendError                             1   the vendor, or the machine, said no
    │   ├── CredentialsError                     2
    │   ├── PermissionDenied                     2
    │   ├── InvalidRequest                       2
    │   ├── JobNotFound (LookupError)            2
    │   ├── ArchiveError                         1   a downloaded archive is damaged or not allowed
    │   ├── QuotaExceeded                        7
    │   └── TransientError                       6   retried by core; escapes only when retries are used up
    │       ├── RateLimited
    │       └── Unavailable                          no answer, or a 5xx: the request may have been acted on
    │           └── InvalidResponse                  an answer that is not what the API promises
    └── JobEnded                                     the six ways in which waiting ends, less success
        ├── JobFailed                            3
        ├── JobCancelled                         4
        ├── WaitTimeout (TimeoutError)           5   the job goes on
        ├── LostContact                          6   the job may go on
        └── JobExpired                           8   stopped by a limit; a usable model may exist

Adding an error: subclass the nearest class above (and a builtin where callers would expect one), set ``exit_code`` if
it differs, keep it picklable, draw it above, and list it in ``cloudtune.__all__`` if users should catch it.
The vendor's own exception is always the ``__cause__``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloudtune.state import JobRef, JobSnapshot

Severity = Literal["error", "warning", "info"]


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is wrong: what, where, and what to do about it."""

    code: str
    """Stable and machine readable, e.g. ``unknown_key``."""
    message: str
    severity: Severity = "error"
    file: str | None = None
    line: int | None = None
    """Counted from 1, as editors do."""
    row: int | None = None
    """Counted from 1: the record's place in its source, where that differs from the line."""
    field: str | None = None
    """Dotted path, e.g. ``hyperparameters.learning_rate``."""
    fix: str | None = None
    """What to do about it, as an imperative sentence."""

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        if self.row is not None and self.line is None:
            place = f"{place} row {self.row}".strip()
        head = ": ".join(part for part in (place, self.field) if part)
        text = f"{head}: {self.message}" if head else self.message
        return f"{text} ({self.fix})" if self.fix else text


class CloudtuneError(Exception):
    """Root of the tree. ``hint`` says what to do next; ``exit_code`` is what the command line returns."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        # Subclasses have keyword-only arguments: rebuild without calling __init__ and restore the attributes.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[CloudtuneError], args: tuple[object, ...], state: dict[str, object]) -> CloudtuneError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class InputError(CloudtuneError, ValueError):
    """What was handed in is wrong. ``problems`` holds every fault found, not the first one."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem] | str, *, hint: str | None = None) -> None:
        if isinstance(problems, str):
            problems = (Problem(code="invalid", message=problems),)
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems), hint=hint)


class SpecError(InputError):
    """The job's specification is wrong."""


class UnsupportedError(SpecError):
    """The back end cannot do what the spec asks; nothing was sent."""


class DataError(InputError):
    """The data cannot be used as they are; nothing was sent."""


class ConfigError(InputError):
    """Settings, a profile or an environment reference is wrong."""


class UnknownBackend(CloudtuneError, LookupError):
    """No back end of that name is built in or installed."""

    exit_code = 2


class BackendNotInstalled(CloudtuneError, ImportError):
    """The back end is known, but the packages it needs are not installed; the message has the pip line."""

    exit_code = 2


class PolicyRefused(CloudtuneError):
    """A limit, a policy or the person at the terminal said no; nothing was sent."""

    exit_code = 7


class LedgerError(CloudtuneError):
    """The durable record cannot be opened, read or written."""


class Conflict(CloudtuneError):
    """Something that cloudtune did not make stands under the name it needs."""


class BackendError(CloudtuneError):
    """The vendor, or the machine, refused or failed. The vendor's exception is the cause."""


class CredentialsError(BackendError):
    """No credentials, or they are not accepted."""

    exit_code = 2


class PermissionDenied(BackendError):
    """The credentials are good, but they may not do this."""

    exit_code = 2


class InvalidRequest(BackendError):
    """The vendor says that the request is malformed or not allowed; sending it again will not help."""

    exit_code = 2


class JobNotFound(BackendError, LookupError):
    """No job, model or deployment of that id exists in that scope."""

    exit_code = 2


class ArchiveError(BackendError):
    """An archive is damaged, too large, or holds something other than plain files and folders; none of it is kept."""


class QuotaExceeded(BackendError):
    """A quota of the account or the machine is used up; retrying soon will not help."""

    exit_code = 7


class TransientError(BackendError):
    """May pass by itself: core retries it within limits."""

    exit_code = 6


class RateLimited(TransientError):
    """Asked too often; the request was not acted on. ``retry_after`` is in seconds, where the vendor said it."""

    def __init__(self, message: str, *, retry_after: float | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class Unavailable(TransientError):
    """No answer, a reset or a 5xx. Unless ``acted`` is False the request may have been acted on."""

    def __init__(self, message: str, *, acted: bool | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.acted = acted


class InvalidResponse(Unavailable):
    """An answer that is not what the API promises: a login page, an empty body, JSON of another shape.

    The request may have been acted on, so that core looks for its effect before it sends anything again.
    """


class JobEnded(CloudtuneError):
    """Waiting ended, and not with success. ``ref`` is always set; ``snapshot`` is the last one seen."""

    def __init__(self, message: str, *, ref: JobRef, snapshot: JobSnapshot | None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.ref = ref
        self.snapshot = snapshot


class JobFailed(JobEnded):
    """The job failed; the message is the vendor's."""

    exit_code = 3


class JobCancelled(JobEnded):
    """The job was cancelled."""

    exit_code = 4


class WaitTimeout(JobEnded, TimeoutError):
    """The wait's own time ran out, or the job is paused and will not go on by itself; the job still exists."""

    exit_code = 5


class LostContact(JobEnded):
    """The back end stopped answering for longer than the watch tolerates; the job may still go on."""

    exit_code = 6


class JobExpired(JobEnded):
    """A limit stopped the job; its best checkpoint may be usable."""

    exit_code = 8
