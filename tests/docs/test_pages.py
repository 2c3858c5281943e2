"""A reader who follows a page in an empty folder gets what the page shows."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from tests.docs.pages import DOCS, blocks, run_page

HOW_TO = sorted((DOCS / "howto").glob("*.md"))
TRAINED = ("getting-started.md",)
"""Pages that train in `make test`. The others do so in `make soak`."""
PAGES = [*sorted(DOCS.glob("**/getting-started.md")), *HOW_TO, *sorted((DOCS / "concepts").glob("*.md"))]


def _trains(page: Path) -> bool:
    return bool(
        re.search(
            r"^\$ (cloudtune (run|submit)|python (service|-m pytest))", page.read_text(encoding="utf-8"), re.MULTILINE
        )
    )


def _params() -> list[object]:
    return [
        pytest.param(
            page,
            id=page.relative_to(DOCS).as_posix(),
            marks=[pytest.mark.starts_trainer, pytest.mark.timeout(900)]
            + ([pytest.mark.soak] if page.relative_to(DOCS).as_posix() not in TRAINED else [])
            if _trains(page)
            else [],
        )
        for page in PAGES
    ]


@pytest.mark.parametrize("page", _params())
def test_the_page_shows_what_happens(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "OPENAI_", "CLOUDTUNE_"))]:
        monkeypatch.delenv(name)
    folder = tmp_path / "work"
    folder.mkdir()
    for name in ("HOME", "XDG_CONFIG_HOME", "CLOUDTUNE_HOME"):
        monkeypatch.setenv(name, str(folder / ".cloudtune"))
    monkeypatch.setenv("PYTHON_WARM_ALL", "1")
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.chdir(folder)
    assert run_page(page, folder) == []


@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.stem)
def test_every_program_is_a_file_that_runs(page: Path) -> None:
    programs = [block for block in blocks(page) if block.kind == "python"]
    assert [block.text for block in programs if block.file is None] == []
    used = "".join(block.text for block in blocks(page) if block.kind in ("console", "yaml"))
    assert [block.file for block in programs if block.file and Path(block.file).stem not in used] == []
