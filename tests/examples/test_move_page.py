"""The commands of docs/move.md print what the page shows. ``...`` in the page stands for any text."""

from __future__ import annotations

import doctest
import json
import os
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from cloudtune.catalog import current
from cloudtune.cli.main import cli

PAGE = Path(__file__).resolve().parents[2] / "docs" / "move.md"
ROWS = [{"prompt": f"How do I reset item {n}?", "completion": f"Hold button {n} for 5 seconds."} for n in range(120)]


def blocks(language: str) -> list[str]:
    """The code blocks of the page in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def output(command: str) -> str:
    """What a command of the page prints."""
    words = shlex.split(command)
    if words[0] == "cat":
        return Path(words[1]).read_text()
    while "=" in words[0]:
        words.pop(0)
    done = CliRunner().invoke(cli, words[1:])
    return f"{done.stderr}{done.stdout}"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "OPENAI_", "CLOUDTUNE_"))]:
        monkeypatch.delenv(name)
    for name in ("HOME", "XDG_CONFIG_HOME", "CLOUDTUNE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    openai, azure = blocks("yaml")
    Path("job.yaml").write_text(openai)
    Path("azure.yaml").write_text(azure)
    Path("rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS[:100]))
    Path("held-out.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS[100:]))


def test_the_users_own_catalog_chooses_the_model(tmp_path: Path) -> None:
    catalog = tmp_path / "home" / "cloudtune" / "catalog"
    catalog.mkdir(parents=True)
    (own,) = blocks("json")
    (catalog / "bedrock.json").write_text(own)
    (chosen, *others) = current("bedrock").substitutes
    assert (chosen.to, chosen.why) == ("amazon.nova-pro-v1:0:300k", "our choice")
    assert others  # the catalog's own follow


def test_the_page_shows_what_the_commands_print(monkeypatch: pytest.MonkeyPatch) -> None:
    for block in blocks("console"):
        command, _, expected = block.removeprefix("$ ").partition("\n")
        with monkeypatch.context() as patch:
            for word in shlex.split(command):
                name, equals, value = word.partition("=")
                if equals and name.isupper():
                    patch.setenv(name, value)
            printed = output(command)
        if os.environ.get("UPDATE_PAGE"):
            text = PAGE.read_text(encoding="utf-8")
            PAGE.write_text(
                text.replace(f"$ {command}\n{expected}```", f"$ {command}\n{printed}```", 1), encoding="utf-8"
            )
            continue
        matches = doctest.OutputChecker().check_output(expected, printed, doctest.ELLIPSIS)
        assert matches, f"$ {command}\n{printed}"
