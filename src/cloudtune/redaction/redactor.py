"""Removes secrets from external text: values in use, in any encoding, and known shapes.

A vendor's error can quote the request that caused it, with its credentials. `Redactor` is applied to everything that a
back end returns or raises (see ``boundary``), to log records and to what the command line prints.
"""

from __future__ import annotations

import base64
import html
import json
import logging
import re
import threading
import traceback
from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote, quote_plus

import msgspec

from cloudtune.redaction.masking import is_secret_name, url_password
from cloudtune.secret_shapes import MASK, mask_shapes
from cloudtune.state import JobRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

T = TypeVar("T")

SHORTEST = 4
"""Shorter values are too short to search for."""
WHOLE_WORD_BELOW = 8
"""Values shorter than this are masked only where no letter or digit is next to them."""
FUNCTIONAL_FIELDS = frozenset({"id", "cursor", "uri", "files", "scope", "backend", "ref"})
"""Fields of values that other calls need unchanged: only the back end's own secrets are masked in them."""
_SHORTEST_ENCODED = 12
_FOLD = re.compile(r"\\?(?:\r?\n|(?:\\r)?\\n)[ \t]*")
"""A line break within a value: in text, or escaped in JSON; with a backslash before it or spaces after it."""


class Redactor:
    """Masks the secrets that are in use and everything with the shape of a secret. Thread-safe."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._values: frozenset[str] = frozenset()
        self._search: _Search | None = None
        self.add(values)

    def add(self, values: Iterable[str]) -> None:
        """Mask these values from now on."""
        fresh = {value for value in values if len(value) >= SHORTEST}
        with self._lock:
            if fresh <= self._values:
                return
            self._values |= fresh
            self._search = _search(self._values)

    def values(self, text: str) -> str:
        """The text with the values in use masked, shapes untouched."""
        search = self._search
        if search is None:
            return text
        if search.may_match(text):
            text = search.pattern.sub(MASK, text)
        return _mask_folded(search, text) if _FOLD.search(text) else text

    def text(self, text: str) -> str:
        """The text with values in use and shapes masked."""
        return mask_shapes(self.values(text))

    def functional(self, value: T) -> T:
        """The value with the values in use masked, shapes untouched: for values that later calls need unchanged."""
        return _mapped(value, self.values)  # type: ignore[no-any-return]

    def data(self, value: T) -> T:
        """The value with all its text redacted, also within structs, lists and dicts. Unchanged values are reused."""
        return _mapped(value, self.text)  # type: ignore[no-any-return]

    def error(self, error: BaseException) -> None:
        """Redact the exception and everything it was raised from, in place.

        A cause that keeps its text where it cannot be changed is replaced by a `RedactedError`.
        """
        seen: set[int] = set()
        current: BaseException | None = error
        while current is not None and id(current) not in seen:
            seen.add(id(current))
            self._own(current)
            for name in ("__cause__", "__context__"):
                inner = getattr(current, name)
                if inner is not None and id(inner) not in seen:
                    self._own(inner)
                    if self._tells(inner):
                        _replace(current, name, RedactedError(self.text(_only(inner))))
            current = current.__cause__ or current.__context__

    def _own(self, error: BaseException) -> None:
        if isinstance(error, OSError) and isinstance(error.filename, str):
            error.filename = self.text(error.filename)
        if error.args:
            error.args = tuple(_mapped(one, self.text) for one in error.args)
        for name, value in list(vars(error).items()):
            redacted = _mapped(value, self.text)
            if redacted is not value:
                vars(error)[name] = redacted

    def _tells(self, error: BaseException) -> bool:
        shown = _only(error)
        return self.text(shown) != shown


class RedactedError(Exception):
    """Replaces an exception whose text contains a secret: its type and the redacted text."""


class RedactingFormatter(logging.Formatter):
    """Formats log records, tracebacks included, and redacts the result."""

    def __init__(self, redactor: Redactor, form: str) -> None:
        super().__init__(form)
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        return self._redactor.text(super().format(record))


def environment_secrets(environ: Mapping[str, str]) -> set[str]:
    """Values of the variables whose names indicate a secret."""
    return {
        value for name, value in environ.items()
        if value and (is_secret_name(name) or name.upper().startswith("AWS_BEARER_TOKEN") or name.endswith("PASSWORD"))
        and not (name.upper().endswith("CREDENTIALS") and not value.startswith("{"))  # the path of a file
    } | {password for value in environ.values() if (password := url_password(value))}  # fmt: skip


def setting_secrets(settings: Any) -> set[str]:
    """Secrets among the settings of a back end: a pydantic model, a dict or a list of them."""
    found: set[str] = set()
    for name, value in _fields(settings):
        if hasattr(value, "get_secret_value"):
            found.add(str(value.get_secret_value()))
        elif isinstance(value, str):
            found |= {value} if is_secret_name(name) else {password} if (password := url_password(value)) else set()
        else:
            found |= setting_secrets(value)
    return found


def _fields(settings: Any) -> list[tuple[str, Any]]:
    model = getattr(type(settings), "model_fields", None)
    if model is not None:
        return [(name, getattr(settings, name)) for name in model]
    if isinstance(settings, dict):
        return [(str(name), value) for name, value in settings.items()]
    return [("", value) for value in settings] if isinstance(settings, list | tuple) else []


class _Search(NamedTuple):
    """The patterns of values in use in a text."""

    pattern: re.Pattern[str]
    words: tuple[str, ...]
    """In lower case; a match contains one of them. Looking for them is faster than the pattern."""

    def may_match(self, text: str) -> bool:
        lowered = text.lower()
        return any(word in lowered for word in self.words)


def _search(values: Iterable[str]) -> _Search | None:
    forms: dict[str, str] = {}
    for value in values:
        if len(value) < WHOLE_WORD_BELOW:
            forms[value] = rf"(?<![A-Za-z0-9]){re.escape(value)}(?![A-Za-z0-9])"
        else:
            forms |= {form: re.escape(form) for form in _encoded(value)}
    if not forms:
        return None
    longest_first = sorted(forms, key=len, reverse=True)
    pattern = re.compile("|".join([forms[form] for form in longest_first]), re.IGNORECASE)
    return _Search(pattern, tuple({form.lower() for form in forms}))


def _mask_folded(search: _Search, text: str) -> str:
    """Mask the values that line breaks divide, such as base64 in lines of 76 characters."""
    joined = _FOLD.sub("", text)
    if not search.may_match(joined):
        return text
    folds = list(_FOLD.finditer(text))
    removed = list(accumulate((fold.end() - fold.start() for fold in folds), initial=0))
    places = [fold.start() - before for fold, before in zip(folds, removed, strict=False)]
    kept, done = [], 0
    for found in search.pattern.finditer(joined):
        start = found.start() + removed[bisect_right(places, found.start())]
        kept += [text[done:start], MASK]
        done = found.end() + removed[bisect_left(places, found.end())]
    return "".join([*kept, text[done:]])


def _encoded(value: str) -> set[str]:
    """The forms in which a value can be quoted. Case does not matter to the caller."""
    raw = value.encode("utf-8", "surrogateescape")
    dumped = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    forms = {value, quote(raw, safe=""), quote(raw), quote_plus(raw), html.escape(value), raw.hex(), repr(value)[1:-1]}
    forms |= dumped | {form.replace("/", "\\/") for form in dumped}
    forms |= {quote(quote(raw, safe=""), safe="")}
    for text in (raw, *(one.encode("utf-8", "surrogateescape") for one in dumped)):
        forms |= _in_base64(text)
    return {form for form in forms if len(form) >= SHORTEST}


def _in_base64(raw: bytes) -> set[str]:
    """Return its base64 forms within a longer text, such as ``user:password``, at any offset."""
    forms: set[str] = set()
    for offset in range(3):
        core = base64.b64encode(b"\0" * offset + raw)[(0, 2, 3)[offset] : (offset + len(raw)) * 8 // 6].decode()
        if len(core) >= _SHORTEST_ENCODED:
            forms |= {core, core.replace("+", "-").replace("/", "_"), quote(core, safe="")}
    return forms


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The value with every text in it changed; the same object if nothing changes."""
    if isinstance(value, str):
        changed = change(value)
        return value if changed == value else changed
    if isinstance(value, bytes):
        text = value.decode("latin-1")
        return value if change(text) == text else change(text).encode("latin-1", "replace")
    if isinstance(value, JobRef):
        return value
    if isinstance(value, msgspec.Struct):
        return _changed_struct(value, change)
    if isinstance(value, dict):
        items = {_mapped(key, change): _mapped(item, change) for key, item in value.items()}
        same = len(items) == len(value) and all(items.get(key) is item for key, item in value.items())
        return value if same else items
    if type(value) in (list, tuple):
        entries = [_mapped(item, change) for item in value]
        return value if all(a is b for a, b in zip(entries, value, strict=True)) else type(value)(entries)
    return value


def _changed_struct(value: msgspec.Struct, change: Callable[[str], str]) -> Any:
    changes = {}
    for name in value.__struct_fields__:
        if name in FUNCTIONAL_FIELDS:
            continue
        item = getattr(value, name)
        changed = _mapped(item, change)
        if changed is not item:
            changes[name] = changed
    return msgspec.structs.replace(value, **changes) if changes else value


def _only(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip() + repr(error)


def _replace(error: BaseException, name: str, inner: BaseException) -> None:
    suppressed = error.__suppress_context__
    setattr(error, name, inner)
    if name == "__context__":
        error.__suppress_context__ = suppressed
