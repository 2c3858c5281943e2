"""Every error that cloudtune raises, in one tree.

::

    CloudtuneError                       exit code
    ├── InputError (ValueError)                  2   all problems at once, each with its location
    │   ├── SpecError                                the job's file
    │   │   └── UnsupportedError                     the back end cannot do what the spec asks
    │   ├── DataError                                the rows
    │   └── ConfigError                              settings, profiles, environment references
    ├── UnknownBackend (LookupError)             2
    ├── BackendNotInstalled (ImportError)        2
    ├── PolicyRefused                            7   refused by a limit, a policy or the user
    ├── LedgerError                              1   the ledger cannot be read or written
    ├── Conflict                                 1   the name belongs to something cloudtune did not create
    ├── BackendError                             1   the vendor or the machine refused or failed
    │   ├── CredentialsError                     2
    │   ├── PermissionDenied                     2
    │   ├── InvalidRequest                       2
    │   ├── JobNotFound (LookupError)            2
    │   ├── ArchiveError                         1   a downloaded archive is damaged or not allowed
    │   ├── QuotaExceeded                        7
    │   └── TransientError                       6   retried by core; raised when retries are exhausted
    │       ├── RateLimited
    │       └── Unavailable                          no response, or a 5xx: the request may have taken effect
    │           └── InvalidResponse                  a response that does not match the API
    └── JobEnded                                     the ways in which waiting ends without success
        ├── JobFailed                            3
        │   └── JobInterrupted                   9   a signal or a lost machine ended it; it can be resumed
        ├── JobCancelled                         4
        ├── WaitTimeout (TimeoutError)           5   the job is still running
        ├── LostContact                          6   the job may still be running
        ├── JobExpired                           8   stopped by a limit; a usable model may exist
        └── OutcomeUnknown                      10   it has ended in a state that this version does not know

To add an error, subclass the nearest class above (and a builtin where callers expect one), set ``exit_code`` if it
differs, keep it picklable, add it to the tree above, and list it in ``cloudtune.__all__`` if users should catch it.
The vendor's exception is always the ``__cause__``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloudtune.state import JobRef, JobSnapshot

Severity = Literal["error", "warning", "info"]


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One problem: what is wrong, where, and how to fix it."""

    code: str
    """Stable and machine-readable, e.g. ``unknown_key``."""
    message: str
    severity: Severity = "error"
    file: str | None = None
    line: int | None = None
    """Line number, starting at 1."""
    row: int | None = None
    """Record number in its source, starting at 1, if it differs from the line."""
    field: str | None = None
    """Dotted path, e.g. ``hyperparameters.learning_rate``."""
    fix: str | None = None
    """How to fix it, in the imperative."""

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        if self.row is not None and self.line is None:
            place = f"{place} row {self.row}".strip()
        head = ": ".join(part for part in (place, self.field) if part)
        text = f"{head}: {self.message}" if head else self.message
        return f"{text} ({self.fix})" if self.fix else text


class CloudtuneError(Exception):
    """Root of the tree. ``hint`` is the recommended action; ``exit_code`` is the exit code of the command line."""

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
    """The input is invalid. ``problems`` has every problem, not only the first one."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem] | str, *, hint: str | None = None) -> None:
        if isinstance(problems, str):
            problems = (Problem(code="invalid", message=problems),)
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems), hint=hint)


class SpecError(InputError):
    """The job spec is invalid."""


class UnsupportedError(SpecError):
    """The back end does not support what the spec requires. Nothing was sent."""


class DataError(InputError):
    """The data is invalid. Nothing was sent."""


class ConfigError(InputError):
    """A setting, a profile or an environment reference is invalid."""


class UnknownBackend(CloudtuneError, LookupError):
    """No back end with that name is built in or installed."""

    exit_code = 2


class BackendNotInstalled(CloudtuneError, ImportError):
    """The back end is known, but its packages are not installed. The message has the pip command."""

    exit_code = 2


class PolicyRefused(CloudtuneError):
    """A limit, a policy or the user refused. Nothing was sent."""

    exit_code = 7


class LedgerError(CloudtuneError):
    """The ledger cannot be opened, read or written."""


class Conflict(CloudtuneError):
    """The required name belongs to something that cloudtune did not create."""


class BackendError(CloudtuneError):
    """The vendor or the machine refused or failed. The vendor's exception is the cause."""


class CredentialsError(BackendError):
    """No credentials, or the vendor rejects them."""

    exit_code = 2


class PermissionDenied(BackendError):
    """The credentials are valid, but lack permission."""

    exit_code = 2


class InvalidRequest(BackendError):
    """The vendor rejects the request as malformed or not allowed. Do not retry it."""

    exit_code = 2


class JobNotFound(BackendError, LookupError):
    """No job, model or deployment with that id exists in that scope."""

    exit_code = 2


class ArchiveError(BackendError):
    """An archive is damaged, too large, or contains something other than regular files and folders. Nothing is kept."""


class QuotaExceeded(BackendError):
    """A quota of the account or the machine is exhausted. Retrying soon does not help."""

    exit_code = 7


class TransientError(BackendError):
    """A temporary error. Core retries it within limits."""

    exit_code = 6


class RateLimited(TransientError):
    """Too many requests. The request took no effect. ``retry_after`` is in seconds, if the vendor gave it."""

    def __init__(self, message: str, *, retry_after: float | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class Unavailable(TransientError):
    """No response, a reset or a 5xx. Unless ``acted`` is False, the request may have taken effect."""

    def __init__(self, message: str, *, acted: bool | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.acted = acted


class InvalidResponse(Unavailable):
    """A response that does not match the API: a login page, an empty body, JSON of another shape.

    The request may have taken effect, so core looks for its effect before it sends anything again.
    """


class JobEnded(CloudtuneError):
    """Waiting ended without success. ``ref`` is always set; ``snapshot`` is the last known state."""

    def __init__(self, message: str, *, ref: JobRef, snapshot: JobSnapshot | None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.ref = ref
        self.snapshot = snapshot


class JobFailed(JobEnded):
    """The job failed. The message comes from the vendor."""

    exit_code = 3


class JobInterrupted(JobFailed):
    """A signal from outside or a lost machine ended the job. It can be resumed from its newest checkpoint."""

    exit_code = 9


class JobCancelled(JobEnded):
    """The job was cancelled."""

    exit_code = 4


class WaitTimeout(JobEnded, TimeoutError):
    """The wait timed out, or the job is paused and does not continue by itself. The job still exists."""

    exit_code = 5


class LostContact(JobEnded):
    """The back end has not responded for longer than allowed. The job may still be running."""

    exit_code = 6


class JobExpired(JobEnded):
    """A limit stopped the job. Its best checkpoint may be usable."""

    exit_code = 8


class OutcomeUnknown(JobEnded):
    """The job has an end time, but the vendor's state is not known to this version. It may have a usable model."""

    exit_code = 10
