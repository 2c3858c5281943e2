"""``cloudtune data``: what the commands print, write and return."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cloudtune.cli.main import cli


def call(*words: str, text: str | None = None) -> tuple[int, str]:
    """Exit code and standard output."""
    result = CliRunner().invoke(cli, ["data", *words], input=text)
    return result.exit_code, result.stdout


def call_json(*words: str, code: int = 0) -> dict[str, Any]:
    got, out = call(*words, "--json")
    assert got == code, out
    return json.loads(out)  # type: ignore[no-any-return]


@pytest.fixture
def rows(tmp_path: Path) -> str:
    path = tmp_path / "rows.jsonl"
    lines = [{"prompt": f"question {i % 110}", "completion": "yes" if i % 3 else "no"} for i in range(120)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_check_gives_what_scripts_need(rows: str, tmp_path: Path) -> None:
    found = call_json("check", rows, "--for", "openai")
    assert found["ok"] is True
    assert found["rows"] == 120
    assert {"code", "severity", "line", "field", "message"} <= set(found["problems"][0])
    bad = tmp_path / "bad.jsonl"
    bad.write_text(Path(rows).read_text() + '{"completion": ""}\n{"prompt": "", "completion": "x"}\n')
    found = call_json("check", str(bad), code=2)
    assert found["ok"] is False
    errors = [(p["code"], p["line"], p["field"]) for p in found["problems"] if p["severity"] == "error"]
    assert errors == [("missing_key", 121, "prompt"), ("blank", 122, "messages[0].content")]
    code, out = call("check", str(bad))
    assert code == 2
    assert f"{bad}:121" in out
    assert "failed" in out


def test_check_reads_standard_input(rows: str) -> None:
    code, out = call("check", "-", text=Path(rows).read_text())
    assert code == 0
    assert "120 chat" in out


def test_convert_refuses_losses_and_unknown_names(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"system": "s", "prompt": "a", "completion": "b"}\n')
    words = ["convert", str(path), "--to", "alpaca", "-o", str(tmp_path / "out.jsonl")]
    found = call_json(*words, code=2)
    first = found["problems"][0]
    assert (first["code"], first["line"], first["field"]) == ("loss", 1, "system")
    assert call_json(*words, "--allow-dropped", "system")["ok"] is True
    assert call(*words, "--allow-dropped", "sistem")[0] == 2
    words[3] = "alpca"
    result = CliRunner().invoke(cli, ["data", *words])
    assert result.exit_code == 2
    assert "alpaca" in result.stderr


def test_split_dedupe_balance_and_stats(rows: str, tmp_path: Path) -> None:
    files = call_json("split", rows, "--test", "0.2", "-o", str(tmp_path / "sides"))["files"]
    assert sum(one["rows"] for one in files.values()) == 120
    assert set(files) == {"train", "validation", "test"}
    found = call_json("dedupe", rows, "-o", str(tmp_path / "once.jsonl"))
    assert found["files"]["out"]["rows"] == 120 - found["left_out"]
    assert call_json("balance", rows, "-o", str(tmp_path / "even.jsonl"))["labels"] == {"no": 40, "yes": 40}
    stats = call_json("stats", rows)
    assert stats["rows"] == 120
    assert sum(count for _, count in stats["sizes"]) == 120
    assert stats["labels"] == {"yes": 80, "no": 40}
    assert "fingerprint" in call("stats", rows)[1]


def test_preview_and_profile(rows: str, tmp_path: Path) -> None:
    found = call_json("preview", rows, "--row", "2", "-n", "1")
    assert found["rows"][0]["place"].endswith(":2")
    assert {"text": "yes", "fate": "learnt"} in found["rows"][0]["pieces"]
    assert "question 1" in call("preview", rows)[1]
    nasty = tmp_path / "x.jsonl"
    nasty.write_text('{"prompt": "<script>alert(1)</script>", "completion": "</script>"}\n')
    assert call("preview", str(nasty), "--html", str(tmp_path / "p.html"))[0] == 0
    assert "<script>" not in (tmp_path / "p.html").read_text()
    assert call("profile", rows, "-o", str(tmp_path / "page.html"))[0] == 0
    page = (tmp_path / "page.html").read_text()
    assert "http:" not in page  # it needs nothing else
    assert "https:" not in page
    embedded = json.loads(page.split("id=report>")[1].split("</script>")[0])
    assert embedded["rows"] == 120
    assert call("preview", rows, "--row", "500")[0] == 2


def test_options_are_told_apart(rows: str) -> None:
    for words in (["check", rows, "--map", "nope"], ["check", rows, "--kind", "nope"], ["check"], ["chek", rows]):
        assert call(*words)[0] == 2
