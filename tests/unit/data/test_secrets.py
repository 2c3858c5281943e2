"""Secrets in rows are found by the same list of shapes that redaction uses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.unit.test_redactor import HARMLESS, SHAPES

from cloudtune.data.dataset import Dataset
from cloudtune.data.report import check
from cloudtune.secret_shapes import is_token

if TYPE_CHECKING:
    from collections.abc import Sequence

ISSUED = [text for text, _ in SHAPES.values() if is_token(text)]
"""Keys that are secret wherever they stand. ``password=...`` also stands in ordinary examples of code."""


def rows_of(texts: Sequence[str], folder: Path) -> str:
    path = folder / "rows.jsonl"
    rows = [{"prompt": f"What is row {n}?", "completion": f"It says {text} here."} for n, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_every_issued_key_in_a_row_is_an_error(tmp_path: Path) -> None:
    report = check(rows_of(ISSUED, tmp_path), private=True)
    found = [problem.line for problem in report.problems if problem.code == "secret"]
    assert len(ISSUED) > 25
    assert found == list(range(1, len(ISSUED) + 1))
    assert not any(text in problem.message for problem in report.problems for text in ISSUED)


def test_ordinary_text_holds_no_secret(tmp_path: Path) -> None:
    prose = Path(__file__).parents[3].joinpath("README.md").read_text(encoding="utf-8").splitlines()
    report = check(rows_of([*HARMLESS, *prose], tmp_path), private=True)
    assert [problem for problem in report.problems if problem.code == "secret"] == []


@pytest.mark.parametrize("text", ISSUED)
def test_redacting_covers_every_issued_key(text: str, tmp_path: Path) -> None:
    (row,) = Dataset.read(rows_of([text], tmp_path)).redact()
    assert "[SECRET]" in str(row)
    assert text not in str(row)
