"""Help, docs, messages, docstrings and comments use plain standard terms, and none of the words listed here."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from tests.syntax import nodes

from cloudtune.cli.main import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for root in ("src", "providers", "local_backend") for path in (REPOSITORY / root).rglob("*.py"))
DOCUMENTS = sorted(
    [
        *REPOSITORY.glob("*.md"),
        *(
            path
            for root in ("src", "providers", "local_backend", "benchmarks", "docs")
            for path in (REPOSITORY / root).rglob("*.md")
        ),
        *(path for path in (REPOSITORY / "examples").rglob("*") if path.suffix in {".md", ".py", ".yaml"}),
    ]
)
INTERNAL = ("local_backend/LOG.md",)
"""Follows `EVERYWHERE` only."""

EVERYWHERE = {
    r"of all that": "all",
    r"would be let": "would be accepted",
    r"said no": "declined",
    r"to rehearse on": "for development and tests",
    r"goes wrong what": "inject failures",
    r"liked better": "preferred",
    r"whole story": "see the log",
    r"want of": "because ... ran out",
    r"mend(s|ed)?": "fix, repair",
    r"storms?": "randomized faults",
    r"nursery|autopsy|sidedoor": "fork server, exit cause, admin API",
    r"colour|behaviour|licence|catalogue|optimiser|customisation": "the American spelling",
}
USERS_READ = EVERYWHERE | {
    r"(?<![.=])learnt(?!\{)": "trained on",
    r"stands? still": "pause",
    r"stands already": "exists",
    r"strangers?": "third party, untrusted",
    r"twins?": "duplicate",
    r"anew|afresh": "again",
    r"whoever|somebody": "name the role",
    r"(go|goes|going|went) on": "continue, resume, still run",
    r"(is|are|was|were|be) told": "is reported",
    r"(no longer|not) there( any more)?": "does not exist",
    r"(take|takes|taken|took) (it |them |.{1,20} )?down": "delete",
    r"make(s|d)? sense of": "interpret",
    r"at the most": "at most",
    r"as ours|of ours|if ours|not ours": "cloudtune's",
    r"can be had": "is available",
    r"looked at": "check",
}


@cache
def _any(words: frozenset[str]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(words)})\b", re.IGNORECASE)


def _found(words: dict[str, str], text: str) -> list[str]:
    flat = " ".join(text.split())
    if not _any(frozenset(words)).search(flat):
        return []
    return [
        f"{match.group()!r}: write {better}"
        for word, better in words.items()
        if (match := re.search(rf"\b(?:{word})\b", flat, re.IGNORECASE))
    ]


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    """String literals with a space, docstrings and comments, with their lines."""
    source = path.read_text(encoding="utf-8")
    for node in nodes(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _commands(command: click.Command, name: str = "cloudtune") -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from _commands(found, f"{name} {child}")


def test_help_uses_standard_terms() -> None:
    helps = {name: command.get_help(click.Context(command, info_name=name)) for name, command in _commands(cli)}
    assert len(helps) > 30
    assert {name: found for name, text in helps.items() if (found := _found(USERS_READ, text))} == {}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_documents_use_standard_terms(path: Path) -> None:
    words = EVERYWHERE if str(path.relative_to(REPOSITORY)).startswith(INTERNAL) else USERS_READ
    assert _found(words, path.read_text(encoding="utf-8")) == []


def test_sources_use_standard_terms() -> None:
    found = []
    for path in SOURCES:
        where = path.relative_to(REPOSITORY).as_posix()
        words = EVERYWHERE if where.startswith(INTERNAL) else USERS_READ
        found += [f"{where}:{line}: {one}" for line, text in _texts(path) for one in _found(words, text)]
    assert found == []
