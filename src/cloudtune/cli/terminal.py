"""Write text to the terminal. Control characters in untrusted text are escaped; the CLI's own styling is kept.

Rows, file names, settings and vendor messages can contain escape sequences that clear the screen, set the clipboard
or reverse the text direction. `write` escapes them, in a pipe too, because piped output is often displayed later.
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
"""Placeholder for the ESC of the CLI's own styling until `write`. Random, so untrusted text cannot contain it."""
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escaped(text: str) -> str:
    r"""The text with control characters shown as ``\x1b`` or ``\u202e``; newlines and tabs stay."""
    return _CONTROLS.sub(lambda found: _shown(found.group()), text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Return the text as one line, with newlines and tabs escaped too."""
    return escaped(re.sub("[\n\r\t]", lambda found: _NAMED[found.group()], text))


def indented(text: str, width: int) -> str:
    """Indent the lines after the first, so that they do not look like separate entries."""
    return text.replace("\r\n", "\n").replace("\n", "\n" + " " * width)


def json_escaped(document: str) -> str:
    """Escape the characters of a JSON document that JSON allows and a terminal interprets. Lossless."""
    return _JSON_CONTROLS.sub(lambda found: _json(found.group()), document)


def styled(text: str, **style: Any) -> str:
    """Return the escaped text in a style (see `click.style`), to pass to `write`."""
    return click.style(escaped(text), **style).replace("\x1b", _STYLING)


def write(text: str, *, err: bool = False, end: str = "\n") -> None:
    """Print text with everything escaped except the CLI's own styling."""
    shown = "\x1b".join(escaped(part) for part in text.split(_STYLING))
    click.echo(shown + end, err=err, nl=False)


def write_raw(text: str) -> None:
    """Print text unchanged: JSON that is already escaped, or model output for a file or pipe."""
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
