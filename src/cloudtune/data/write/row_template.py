"""Writes rows from their texts: what comes between two texts depends only on the roles and positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class Weave(NamedTuple):
    """The parts of a format before each text, which is JSON with its quotes, and after the last one of a row."""

    first_system: bytes
    first_user: bytes
    after_system: bytes
    again: bytes
    answered: bytes
    end: bytes

    def row(self, turns: Iterable[tuple[str, bytes]]) -> bytes:
        """One row with its line end, from roles and texts."""
        parts, before = [], ""
        for role, text in turns:
            if role == "user":
                parts.append({"": self.first_user, "system": self.after_system}.get(before, self.again))
            else:
                parts.append(self.first_system if role == "system" else self.answered)
            parts.append(text)
            before = role
        return b"".join([*parts, self.end])


_ROW = b'{"messages":['
_SYSTEM, _USER, _ASSISTANT = (b'{"role":"%s","content":' % role for role in (b"system", b"user", b"assistant"))
_NEXT = b"},"
CANONICAL = Weave(_ROW + _SYSTEM, _ROW + _USER, _NEXT + _USER, _NEXT + _USER, _NEXT + _ASSISTANT, b"}]}\n")
