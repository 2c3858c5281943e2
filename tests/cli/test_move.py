"""``cloudtune move``: options that do not fit together, and what a rehearsal asks before it runs anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloudtune.cli import rehearse

if TYPE_CHECKING:
    from tests.cli.conftest import Desk

SPEC = """
backend: openai
model: gpt-4.1-mini-2025-04-14
data: {train: rows.jsonl, test: 0.2}
"""
WORDS = ("move", "openai.yaml", "--to", "local", "--model", "org/some-model")


def test_options_that_would_be_ignored_are_refused(desk: Desk) -> None:
    job = desk.submit()
    refused = desk.run("move", job, "--to", "local", "--model", "org/some-model", "--set", "seed=7")
    assert (refused.code, "--set changes a spec file" in refused.err) == (2, True)
    Path("openai.yaml").write_text(SPEC)
    Path("models.json").write_text("{}")
    refused = desk.run(*WORDS, "--models", "models.json")
    assert (refused.code, "--models requires --rehearse" in refused.err) == (2, True)


@pytest.mark.parametrize(
    ("field", "flag"),
    [
        ("evaluation: {metrics: [score.py:good]}", "--trust-reward"),
        ("overrides: {local: {trust_remote_code: true}}", "--trust-remote-code"),
    ],
)
def test_a_rehearsal_runs_no_code_without_confirmation(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, field: str, flag: str
) -> None:
    Path("openai.yaml").write_text(SPEC + field)
    Path("score.py").write_text("def good(answer, expected):\n    return 1.0\n")
    started: list[object] = []
    monkeypatch.setattr(rehearse, "opened", lambda *settings: started.append(settings) or pytest.skip("confirmed"))
    refused = desk.run(*WORDS, "--rehearse")
    assert (refused.code, flag in refused.err, started) == (7, True, [])
