"""HTML from values: everything that is not `Html` is escaped, so text from rows and models never becomes markup."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and newline
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"  # invisible, or they reorder the text around them
    "\ud800-\udfff]"  # halves of characters, which UTF-8 cannot encode
)


class Html(str):
    """Markup."""

    __slots__ = ()


def visible(text: str) -> str:
    r"""The text with hidden characters shown as ``\u202e``."""
    return _HIDDEN.sub(lambda found: f"\\u{ord(found.group()):04x}", text.replace("\r\n", "\n"))


def html(value: object) -> Html:
    """The value as markup."""
    return value if isinstance(value, Html) else Html(escape(visible(str(value))))


def joined(parts: Iterable[object]) -> Html:
    """The values one after the other."""
    return Html("".join(map(html, parts)))


def tag(name: str, *parts: object, **attributes: object) -> Html:
    """An element. ``class_`` is the attribute class, ``aria_label`` is aria-label; None and False leave one out."""
    given = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{html(value)}"')
        for key, value in attributes.items() if value is not None and value is not False
    )  # fmt: skip
    return Html(f"<{name}{given}>{joined(parts)}</{name}>")


def clipped(text: str, most: int) -> str:
    """The first ``most`` characters of the text, and its length if that is not all."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"
