"""The boundary to back ends: every call of a back end, and all text from vendors, passes through this module.

Results, messages of errors and their causes pass through a `Redactor` that knows the secrets in use. Two kinds of text
are not changed: a plan, which is created from the user's own spec, and the answers of a model.

Back ends of services read external documents. An error while reading one, because a field is missing or has another
type, becomes `InvalidResponse`, so that the request is treated as one that may have been executed. A back end that
works on this machine (``Capabilities.remote`` is false) reads no such document: its errors pass unchanged.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, cast

from cloudtune.backend import Backend
from cloudtune.errors import CloudtuneError, InvalidResponse
from cloudtune.optional import (
    BatchStatus,
    CatalogReader,
    Closeable,
    DataRules,
    Exporter,
    Generator,
    HoldsSecrets,
    Host,
    Importer,
    InPlaceImporter,
    Pausable,
    PerJobCapabilities,
    Predictor,
    Preflight,
    Priced,
    PricedAnswers,
    Scorer,
    SetupDocuments,
    ToolCaller,
)
from cloudtune.redaction.redactor import Redactor, environment_secrets, setting_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloudtune.backend import Journal

PROTOCOLS: Final[tuple[type, ...]] = (
    Backend, BatchStatus, CatalogReader, Closeable, DataRules, Exporter, Generator, HoldsSecrets, Host, Importer,
    InPlaceImporter, Pausable, PerJobCapabilities, Predictor, Preflight, Priced, PricedAnswers, Scorer, SetupDocuments,
    ToolCaller,
)  # fmt: skip
VENDOR_TEXT: Final = frozenset({
    "get", "get_many", "list", "events", "metrics", "checkpoints", "probe", "model", "deployments", "preflight",
    "read_catalog",
})  # fmt: skip
"""Calls whose results are shown and stored as text: values in use and shapes are masked."""
FUNCTIONAL: Final = frozenset({"do", "find", "resolve", "resolve_import", "locate", "scope"})
"""Calls whose results later calls need unchanged: only the back end's own secrets are masked."""
LOCAL: Final = frozenset(
    {
        "check",
        "plan",
        "capabilities_of",
        "check_import",
        "close",
        "data_target",
        "target_for",
        "secrets",
        "estimate",
        "usage",
        "why_no_tools",
        "answer_price",
    }
)
"""Calls that make no request."""
UNREADABLE: Final = (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError)
"""The exceptions of reading a document of another shape. JSON that is nested too deeply is a `RecursionError`."""


def guarded(backend: Backend, settings: Mapping[str, Any] | None = None) -> Backend:
    """The back end with everything that it returns and raises redacted. It implements the same protocols.

    ``settings`` are those that it was made from: the secrets among them are masked too.
    """
    if isinstance(backend, _Guarded):
        return backend
    return cast("Backend", _class_of(type(backend))(backend, setting_secrets(settings)))


class _Guarded:
    """The base of the generated classes. Attributes outside the protocols are the back end's own."""

    def __init__(self, backend: Backend, own: set[str]) -> None:
        self._backend = backend
        self._own = Redactor(own)
        self._all = Redactor(own | environment_secrets(os.environ))

    def __repr__(self) -> str:
        return self._all.text(repr(self._backend))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_backend":
            raise AttributeError(name)
        return getattr(self._backend, name)

    def _learn(self) -> None:
        """Credentials are loaded at the first request, and some of them change."""
        if isinstance(self._backend, HoldsSecrets):
            values = list(self._backend.secrets())
            self._own.add(values)
            self._all.add(values)

    def _call(self, name: str, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        if name == "do":
            step, journal = arguments
            arguments = (step, _Journal(journal, self._own, self._learn))
        try:
            found = getattr(self._backend, name)(*arguments, **options)
        except Exception as error:
            masked = self._told(error, name)
            if masked is error:
                raise
            raise masked from masked.__cause__
        if isinstance(found, Iterator):
            return self._each(found, name)
        return self._result(name)(found)

    def _each(self, found: Iterator[Any], name: str) -> Iterator[Any]:
        try:
            while True:
                try:
                    item = next(found)
                except StopIteration:
                    return
                except Exception as error:
                    masked = self._told(error, name)
                    if masked is error:
                        raise
                    raise masked from masked.__cause__
                yield self._result(name)(item)
        finally:
            close = getattr(found, "close", None)
            if close is not None:
                close()

    def _result(self, name: str) -> Callable[[Any], Any]:
        if name in VENDOR_TEXT:
            self._learn()
            return self._all.data
        if name in FUNCTIONAL:
            self._learn()
            return self._own.functional
        return _same

    def _told(self, error: Exception, name: str) -> Exception:
        """The error for the caller."""
        self._learn()
        if self._is_unreadable(error, name):
            message = f"{self._backend.name}: cannot read the response ({type(error).__name__}: {error})"
            invalid = InvalidResponse(
                message, hint="check that the endpoint is the vendor's API; run with -vv for details"
            )
            invalid.__cause__ = error
            error = invalid
        self._all.error(error)
        return error

    def _is_unreadable(self, error: Exception, name: str) -> bool:
        """Whether the error comes from reading a service's response."""
        if name in LOCAL or isinstance(error, CloudtuneError) or not isinstance(error, UNREADABLE):
            return False
        return self._backend.capabilities.remote


class _Journal:
    """A step's notes are stored in the ledger."""

    def __init__(self, journal: Journal, redactor: Redactor, learn: Callable[[], None]) -> None:
        self._journal = journal
        self._redactor = redactor
        self._learn = learn

    def note(self, name: str, value: Any) -> None:
        """See `Journal`."""
        self._learn()
        self._journal.note(name, self._redactor.functional(value))

    @property
    def notes(self) -> Mapping[str, Any]:
        """See `Journal`."""
        return self._journal.notes


@functools.cache
def _class_of(cls: type) -> type[_Guarded]:
    """A class with the methods of exactly the back end's protocols."""
    members: dict[str, Any] = {"__doc__": _Guarded.__doc__}
    for protocol in PROTOCOLS:
        names = _names(protocol)
        if all(hasattr(cls, name) for name in names):
            members |= {name: _member(cls, name) for name in names}
    return type(f"Guarded{cls.__name__}", (_Guarded,), members)


def _names(protocol: type) -> list[str]:
    own = {name: value for name, value in vars(protocol).items() if not name.startswith("_")}
    return [*own, *(name for name in getattr(protocol, "__annotations__", {}) if not name.startswith("_"))]


def _member(cls: type, name: str) -> Any:
    found = getattr(cls, name)
    if isinstance(found, property):
        return property(lambda self: getattr(self._backend, name))
    if isinstance(found, type) or not callable(found):
        return found

    @functools.wraps(found)
    def method(self: _Guarded, *arguments: Any, **options: Any) -> Any:
        return self._call(name, arguments, options)

    return method


def _same(value: Any) -> Any:
    return value
