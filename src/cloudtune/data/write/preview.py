"""A record as the model sees it: trained text, context and truncated text."""

from __future__ import annotations

from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Literal, NamedTuple

from cloudtune.data.records import Chat, Record
from cloudtune.data.rules import texts
from cloudtune.data.write.pages import policy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloudtune.data.checks.tokens import Counter

Fate = Literal["learnt", "read", "cut"]


class Piece(NamedTuple):
    """A piece of text with one status."""

    text: str
    fate: Fate


class View(NamedTuple):
    """One record, in pieces; together they are the text for the model."""

    pieces: list[Piece]
    tokens: int | None
    learnt: int | None
    cut: int | None
    """Tokens; None without a tokenizer."""


def view(record: Record, counter: Counter | None = None, max_tokens: int | None = None) -> View:
    """The record in pieces: rendered by the tokenizer's chat template, or turn by turn where there is none."""
    if counter is None:
        return View(_turns(record), None, None, None)
    text, spans = counter.spans(record)
    limit = len(spans) if max_tokens is None else max_tokens
    fates: list[Fate] = ["read"] * len(text)
    cut_from = spans[limit].start if limit < len(spans) else len(text)
    for span in spans[:limit]:
        if span.learnt:
            fates[span.start : span.end] = ["learnt"] * (span.end - span.start)
    fates[cut_from:] = ["cut"] * (len(text) - cut_from)
    pieces, at = [], 0
    for fate, run in groupby(fates):
        length = sum(1 for _ in run)
        pieces.append(Piece(text[at : at + length], fate))
        at += length
    learnt = sum(span.learnt for span in spans[:limit])
    return View(pieces, len(spans), learnt, max(len(spans) - limit, 0))


def _turns(record: Record) -> list[Piece]:
    if not isinstance(record, Chat):
        return [Piece(f"{field}: {words}\n", "learnt") for field, _, words in texts(record)]
    pieces = []
    for message in record.messages:
        pieces.append(Piece(f"{message.role}: ", "read"))
        learnt = message.role == "assistant" and message.weight != 0
        calls = "".join(f" [{call.function.name}({call.function.arguments})]" for call in message.tool_calls or ())
        pieces.append(Piece(f"{message.text}{calls}", "learnt" if learnt else "read"))
        pieces.append(Piece("\n", "read"))
    return pieces


_STYLE = """\
body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#1b1b1b;background:#fff}
pre{white-space:pre-wrap;word-break:break-word;background:#f6f6f4;padding:1em;border-radius:6px}
.learnt{background:#d9f2dd}.read{color:#8a8a8a}.cut{color:#b00020;text-decoration:line-through}
h2{font-size:1em;margin:2em 0 .3em}.note{color:#666}
@media(prefers-color-scheme:dark){body{color:#e8e8e8;background:#161616}pre{background:#222}.learnt{background:#1f4a2a}}
"""


_LEGEND = (
    "<span class=learnt>trained</span>",
    "<span class=read>context</span>",
    "<span class=cut>truncated</span>",
)


def html_page(views: Iterable[tuple[str, View]], title: str) -> str:
    """One self-contained page: the views under their headings."""
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8>{policy(_STYLE)}",
        "<meta name=viewport content='width=device-width'>",
        f"<title>{escape(title)}</title><style>{_STYLE}</style><h1>{escape(title)}</h1>",
        f"<p class=note>{' &middot; '.join(_LEGEND)}</p>",
    ]
    for heading, one in views:
        parts.append(f"<h2>{escape(heading)}</h2><p class=note>{escape(summary(one))}</p><pre>")
        parts += [f"<span class={piece.fate}>{escape(piece.text)}</span>" for piece in one.pieces]
        parts.append("</pre>")
    return "".join(parts) + "</html>\n"


def summary(one: View) -> str:
    """The number of tokens, as one line."""
    if one.tokens is None:
        return ""
    return f"{one.tokens:,} tokens, {one.learnt:,} trained" + (f", {one.cut:,} truncated" if one.cut else "")
