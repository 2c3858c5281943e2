"""The example in docs/lr_find.md, run as a reader would run it."""

from __future__ import annotations

import json
import math
import re
import runpy
from pathlib import Path

import pytest
from click.testing import CliRunner

from cloudtune.cli.main import cli
from cloudtune.learning_rates import FIRST, LAST, RateSuggestion

STEP = math.log(LAST / FIRST) / 59
"""From one rate to the next, as a logarithm."""
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "lr_find.md").read_text(encoding="utf-8")


def _block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found.group(1)


@pytest.mark.timeout(300)
@pytest.mark.starts_trainer
def test_the_page_shows_what_the_command_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("CLOUDTUNE_HOME", str(tmp_path / "home"))
    (tmp_path / "make_rows.py").write_text(_block("python"))
    runpy.run_path("make_rows.py")
    spec = json.dumps({"overrides": {"local": {"device": "cpu", "threads": 1}}})[1:-1]
    (tmp_path / "job.yaml").write_text(_block("yaml") + f"{spec}\n")
    done = CliRunner().invoke(cli, ["lr-find", "job.yaml", "--steps", "60", "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    shown = re.search(r"falls fastest at (\S+); it diverged at (\S+)\nsuggested learning_rate: (\S+)", PAGE)
    assert shown is not None
    names = ("steepest", "diverged", "suggestion")
    # Another rounding of another processor moves the rates by a step or two of the sixty.
    steps = [math.log(found[name] / float(text)) / STEP for name, text in zip(names, shown.groups(), strict=True)]
    assert max(map(abs, steps)) < 3, found
    first = re.search(r"1\.00e-07 +(\S+)", PAGE)
    assert first is not None
    assert found["points"][0]["loss"] == pytest.approx(float(first.group(1)), rel=1e-3)
    assert list((tmp_path / "temporary").iterdir()) == []
    assert not (tmp_path / "home").exists()


def test_a_loss_that_is_never_finite_gives_no_suggestion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.jsonl").touch()
    (tmp_path / "job.yaml").write_text("model: m\ndata: {train: rows.jsonl}\n")
    found = RateSuggestion((), None, 1e-7, None)
    monkeypatch.setattr("cloudtune.learning_rates.range_test", lambda *_, **__: found)
    done = CliRunner().invoke(cli, ["lr-find", str(tmp_path / "job.yaml")], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout.startswith("no suggestion: the loss is not a finite number")
