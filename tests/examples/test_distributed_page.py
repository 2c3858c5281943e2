"""The program of docs/distributed.md, with the spec of that page, on a tiny model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cloudtune_trainer.tiny import write_tiny_model

PAGE = Path(__file__).resolve().parents[2] / "docs" / "distributed.md"
pytestmark = [pytest.mark.starts_trainer, pytest.mark.timeout(400)]


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def test_the_program_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny_model(tmp_path / "model")
    rows = [{"prompt": f"What is {n} plus {n}?", "completion": f"{2 * n}"} for n in range(40)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    Path("job.yaml").write_text(block("yaml") + "overrides: {local: {device: cpu, threads: 1}}\n", encoding="utf-8")
    exec(compile(block("python"), str(PAGE), "exec"), {})
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    curves = [[float(word) for word in line.rpartition("}")[2].split()] for line in lines]
    assert [len(curve) for curve in curves] == [8, 8, 8]
    assert curves[1] == pytest.approx(curves[0], rel=0, abs=2e-5)
    assert curves[2] == pytest.approx(curves[1], rel=0, abs=2e-5)
    print("\n".join(lines))
