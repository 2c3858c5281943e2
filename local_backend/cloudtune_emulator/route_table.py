"""The paths of an API and their handlers, matched by werkzeug's router."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from werkzeug.exceptions import NotFound
from werkzeug.routing import Map, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cloudtune_emulator.route import Handler


class Entry(NamedTuple):
    """One call of an API."""

    method: str
    path: str
    """``/jobs/<job>``: a name in angle brackets matches one segment."""
    name: str
    """Faults are selected by it."""
    handler: Handler


def path_map(entries: Iterable[tuple[str, str, object]]) -> Map:
    """A router for methods and paths. One trailing slash makes no difference; more do."""
    rules = []
    for method, path, endpoint in entries:
        rule = Rule(path, methods=[method], endpoint=endpoint)
        rule.methods = {method}  # werkzeug adds HEAD to GET; the vendors respond with 405
        rules.append(rule)
    return Map(rules, strict_slashes=False, merge_slashes=False)


class RouteTable:
    """The calls of an API. ``ignore_case`` applies to the fixed parts of paths; values keep their case."""

    def __init__(self, *entries: tuple[str, str, str, Handler], ignore_case: bool = False) -> None:
        self._entries = tuple(Entry(*entry) for entry in entries)
        self._ignore_case = ignore_case
        pairs = [(one.method, one.path.lower() if ignore_case else one.path, one) for one in self._entries]
        self._router = path_map(pairs).bind("emulator")

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def match(self, method: str, path: str) -> tuple[Entry, dict[str, str]]:
        """The call and the values of its names. Raises werkzeug's NotFound or MethodNotAllowed."""
        if path.startswith("//"):
            raise NotFound  # werkzeug would remove one of the slashes
        entry: Entry
        entry, ids = self._router.match(path.lower() if self._ignore_case else path, method)
        if self._ignore_case:
            segments = zip(entry.path.split("/"), path.split("/"), strict=False)
            ids = {name[1:-1]: value for name, value in segments if name.startswith("<")}
        return entry, dict(ids)

    def named(self, name: str) -> Entry | None:
        """The call of that name."""
        return next((entry for entry in self._entries if entry.name == name), None)
