"""The layout of rows in a JSON file: one per line, or in an array or over several lines."""

from __future__ import annotations

import re

import msgspec

_BOM = b"\xef\xbb\xbf"


def sniff(head: bytes) -> tuple[str, bytes]:
    """The layout of a JSON file from its first bytes: ``jsonl`` or ``json`` (an array, or objects over several lines).

    Also returns the bytes without the byte order mark.
    """
    head = head.removeprefix(_BOM)
    start = head.lstrip()
    if start[:1] == b"[":
        return "json", head
    first, *more = start.split(b"\n")
    first = first.rstrip()
    if first.endswith(b"}") or not more or _is_object(first.removesuffix(b",")):
        return "jsonl", head
    # A damaged first line is not the beginning of an object over several lines if rows like it follow.
    key = _FIRST_KEY.match(first)
    rows = key is not None and any(line.startswith(key.group()) and _is_object(line) for line in more[:_LOOKED_AT])
    return ("jsonl" if rows else "json"), head


_FIRST_KEY = re.compile(rb'\{\s*"[^"\\]+"')
_LOOKED_AT = 20


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(line), dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
