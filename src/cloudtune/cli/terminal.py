"""The one way to the terminal: control characters in foreign text are shown escaped, our own styling passes.

Rows, file names, settings and a vendor's words can hold escape sequences that clear the screen, set the clipboard or
reverse the order of letters. `write` escapes them all, in a pipe too, since what is piped is often shown later.
"""

from __future__ import annotations

import re
import secrets
import sys
from typing import Any

import click

_HIDDEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and newline, DEL, C1
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # bidirectional, invisible
    "\U000e0000-\U000e007f"  # tags
)
_CONTROLS = re.compile(f"[{_HIDDEN}]|(?<![^\x00-\x7f])[\u200c\u200d]")
"""Joiners after a letter of another script, or after an emoji, are part of ordinary text."""
_JSON_CONTROLS = re.compile(f"[{_HIDDEN}\u200c\u200d]")
_STYLING = f"\x00{secrets.token_hex(8)}"
"""Stands for the ESC of our own styling until `write`. Random, so that no foreign text can hold it."""
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escaped(text: str) -> str:
    r"""The text with control characters shown as ``\x1b`` or ``\u202e``; newlines and tabs stay."""
    return _CONTROLS.sub(lambda found: _shown(found.group()), text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """The text as one line of a table: newlines and tabs are shown escaped too."""
    return escaped(re.sub("[\n\r\t]", lambda found: _NAMED[found.group()], text))


def indented(text: str, width: int) -> str:
    """The text with its later lines set in, so that none of them looks like a line of its own."""
    return text.replace("\r\n", "\n").replace("\n", "\n" + " " * width)


def json_escaped(document: str) -> str:
    """A JSON document with the characters escaped that JSON allows in strings and a terminal obeys. Lossless."""
    return _JSON_CONTROLS.sub(lambda found: _json(found.group()), document)


def styled(text: str, **style: Any) -> str:
    """The text, escaped, in that style (see `click.style`); it goes through `write`."""
    return click.style(escaped(text), **style).replace("\x1b", _STYLING)


def write(text: str, *, err: bool = False, end: str = "\n") -> None:
    """Print text, with everything escaped but our own styling."""
    shown = "\x1b".join(escaped(part) for part in text.split(_STYLING))
    click.echo(shown + end, err=err, nl=False)


def write_raw(text: str) -> None:
    """Print text as it is: JSON that is escaped already, or an answer for a file or a pipe."""
    sys.stdout.write(text)  # click would take escape sequences out
    sys.stdout.flush()


def _shown(character: str) -> str:
    code = ord(character)
    if character in _NAMED:
        return _NAMED[character]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json(character: str) -> str:
    code = ord(character)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
