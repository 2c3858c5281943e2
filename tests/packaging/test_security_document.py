"""SECURITY.md names tests that exist, and a row for every area that is covered."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = (REPOSITORY / "SECURITY.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if re.match(r"\| \d+ \|", line)
]
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(test_\w+)`", TEXT)))


@cache
def functions_in(file: str) -> set[str]:
    path = REPOSITORY / "tests" / file
    if not path.is_file():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_named_test_exists(file: str, name: str) -> None:
    assert name in functions_in(file)


def test_every_row_names_a_test_and_every_area_has_a_row() -> None:
    assert {int(row[0]) for row in ROWS} == set(range(1, 15))
    assert all(len(row) == 5 for row in ROWS)
    assert [row[1] for row in ROWS if "::test_" not in row[4]] == []


def test_every_named_module_exists() -> None:
    roots = ("", "src", "providers", "local_backend")
    named = [place.strip("` ") for row in ROWS for place in row[3].split(",")]
    missing = [place for place in named if not any((REPOSITORY / root / place).exists() for root in roots)]
    assert missing == []
