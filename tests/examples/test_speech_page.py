"""The program of docs/speech.md, with the spec and the model of that page, and its output."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("soundfile")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "speech.md"


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


@pytest.mark.starts_trainer
@pytest.mark.timeout(400)
def test_the_program_of_the_page_prints_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("CLOUDTUNE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    Path("job.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    Path("model.json").write_text(blocks("json")[0], encoding="utf-8")
    exec(compile(blocks("python")[0], str(PAGE), "exec"), {})
    assert capsys.readouterr().out == blocks("")[0]
