"""Rows that would make a job fail hours later: too long ones, and what Nova's jobs refuse. Read once, before upload."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloudtune.data.preparing import sources
from cloudtune.data.records import Chat, canonical
from cloudtune.errors import Problem
from cloudtune_providers.bedrock.answers import NAME
from cloudtune_providers.bedrock.rules import family_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.catalog import Catalog
    from cloudtune.data.records import Record
    from cloudtune.spec import JobSpec

# docs.aws.amazon.com/nova/latest/userguide/fine-tune-prepare-data-understanding.html, seen 2026-11-21.
FORBIDDEN = ("User:", "Bot:", "Assistant:", "System:", "<image>", "<video>", "[EOS]")
_RAW = tuple(word.encode() for word in FORBIDDEN)
# No known tokenizer makes one token of two words; three digits are the most in one of Llama's.
_LEAST = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?|\d{1,3}")
MOST_TOLD = 100


def problems(spec: JobSpec, catalog: Catalog, longest: int) -> list[Problem]:
    """Faults of single rows, with their places; no more than a hundred. ``longest`` is the longest row's length."""
    model, method = family_of(spec.model_for(NAME) or ""), spec.method.name
    limit = catalog.limit("row.tokens.max", model, method)
    is_nova = model.startswith("amazon.nova-") and method == "sft"
    has_long = limit is not None and longest > limit.value  # a token has a character at least
    if not (is_nova or has_long):
        return []
    cited = catalog.cite(limit.source) if limit else ""
    found: list[Problem] = []
    for origin, file, line, record in _records(spec):
        text = canonical(record)
        if has_long and limit is not None and len(text) > limit.value:
            found += _too_long(text.decode(), int(limit.value), cited, origin, file, line)
        if is_nova and isinstance(record, Chat):
            found += _nova(record, text, origin, file, line)
        if len(found) >= MOST_TOLD:
            return found[:MOST_TOLD]
    return found


def _records(spec: JobSpec) -> Iterator[tuple[str, str, int, Record]]:
    from cloudtune.data.faults import Faults
    from cloudtune.data.reading import read

    sent = {origin: where for origin, where in sources(spec.data).items() if origin != "test"}
    for origin, where in sent.items():
        for batch in read(where, Faults()):
            for line, record in zip(batch.lines, batch.records, strict=True):
                yield origin, str(batch.file), line, record


def _too_long(text: str, most: int, cited: str, origin: str, file: str, line: int) -> Iterator[Problem]:
    if len(text) <= most:
        return
    least = sum(1 for _ in _LEAST.finditer(text))
    surely = least > most
    count = f"{least:,} tokens at the very least" if surely else f"up to {len(text):,} tokens"
    yield Problem(
        code="row_too_long", severity="error" if surely else "warning", file=file, line=line, field=f"data.{origin}",
        message=f"{count}, and a row may have {most:,} ({cited})", fix="shorten it or leave it out",
    )  # fmt: skip


def _nova(record: Chat, raw: bytes, origin: str, file: str, line: int) -> Iterator[Problem]:
    faults = list(_turns([message.role for message in record.messages]))
    if any(word in raw for word in _RAW):
        faults += _words(record)
    for code, message, fix in faults:
        yield Problem(code=code, file=file, line=line, field=f"data.{origin}", message=message, fix=fix)


def _turns(roles: list[str]) -> Iterator[tuple[str, str, str]]:
    turns = roles[1:] if roles and roles[0] in ("system", "developer") else roles
    if not turns or turns[0] != "user" or turns[-1] != "assistant":
        yield "turns", "Nova wants a user's turn first and the assistant's last", "mend or leave out the row"
    elif any(role == turns[number + 1] for number, role in enumerate(turns[:-1])) or set(turns) - {"user", "assistant"}:
        yield "turns", "Nova wants turns of user and assistant that alternate", "join turns of the same role"


def _words(record: Chat) -> Iterator[tuple[str, str, str]]:
    for message in record.messages:
        if message.role == "assistant":
            continue
        text = message.text
        for word in FORBIDDEN:
            if word in text:
                said = f"a job of Nova fails where a {message.role}'s words hold {word!r}"
                yield "forbidden_words", said, "write it otherwise"
