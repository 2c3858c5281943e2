"""The rows of examples that a script writes."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*/make_rows.py"))
TEXTS = {"classification": lambda row: row["text"], "grpo": lambda row: row["messages"][0]["content"]}
"""The text that no two rows of an example share."""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.parent.name)
def test_the_rows_are_those_that_the_script_writes(script: Path) -> None:
    made = runpy.run_path(str(script))["rows"]()
    stored = {
        name: [json.loads(line) for line in (script.parent / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        for name in made
    }
    assert stored == made
    if text_of := TEXTS.get(script.parent.name):
        texts = [text_of(row) for rows in made.values() for row in rows]
        assert len(set(texts)) == len(texts)
