"""The documentation site: built strictly, complete, and without requests to other servers."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cloudtune import errors
from cloudtune.cli.main import COMMANDS
from cloudtune.data.checks.record_checks import GENERAL
from cloudtune.registry import BUILT_IN
from cloudtune.spec import spec_features

if TYPE_CHECKING:
    from collections.abc import Mapping

REPOSITORY = Path(__file__).resolve().parents[2]
LOADS = {"script": ("src",), "link": ("href",), "img": ("src", "srcset"), "iframe": ("src",), "source": ("src",),
         "form": ("action",), "object": ("data",), "video": ("src",), "audio": ("src",)}  # fmt: skip


@pytest.fixture(scope="module")
def reference() -> Mapping[str, str]:
    """The generated pages."""
    return runpy.run_path(str(REPOSITORY / ".ci" / "reference.py"))["pages"]()  # type: ignore[no-any-return]


def test_the_reference_has_every_command(reference: Mapping[str, str]) -> None:
    found = re.findall(r"^## cloudtune (\S+)$", reference["cli.md"], re.MULTILINE)
    assert found == list(COMMANDS)
    assert "### cloudtune data check" not in found
    assert "## cloudtune data check" in reference["cli.md"]


def test_the_reference_has_every_field_and_setting(reference: Mapping[str, str]) -> None:
    names = {name.rpartition(".")[2] for name in spec_features() if "." in name}
    assert len(names) > 50
    assert [name for name in names if f"| `{name}` |" not in reference["spec.md"]] == []
    assert [name for name in BUILT_IN if f"\n## {name}\n" not in reference["settings.md"]] == []
    assert "/" + str(REPOSITORY).strip("/") not in "".join(reference.values())


def test_the_reference_has_every_error_and_code(reference: Mapping[str, str]) -> None:
    tree = [name for name in dir(errors) if isinstance(getattr(errors, name), type) and name in (errors.__doc__ or "")]
    assert len(tree) > 25
    assert [name for name in tree if f"| `{name}` |" not in reference["errors.md"]] == []
    codes = set(re.findall(r"^\| `(\w+)` \|", reference["problem_codes.md"], re.MULTILINE))
    assert {"empty_file", "last_not_assistant", "unknown_cost", "out_of_memory", "diverged", "untrusted"} <= codes
    assert set(GENERAL) <= codes | set(re.findall(r"`(\w+)`", reference["data_rules.md"]))
    assert len(re.findall(r"^\| \d+ \|", reference["exit_codes.md"], re.MULTILINE)) == 11


class _Loaded(HTMLParser):
    """What a page loads without a click."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See `HTMLParser`."""
        given: dict[str, Any] = dict(attrs)
        if tag == "link" and given.get("rel") in ("canonical", "prev", "next"):
            return
        self.addresses += [given[name] for name in LOADS.get(tag, ()) if given.get(name)]


def test_the_site_is_complete_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    sources = {path.relative_to(REPOSITORY / "docs").with_suffix("") for path in (REPOSITORY / "docs").rglob("*.md")}
    assert sources <= {page.relative_to(tmp_path / "site").with_suffix("") for page in pages}
    outside = set()
    for page in pages:
        parser = _Loaded()
        parser.feed(page.read_text(encoding="utf-8"))
        outside |= {address for address in parser.addresses if re.match(r"([a-z]+:)?//", address)}
    styles = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("*.css"))
    outside |= set(re.findall(r"url\([\"']?((?:https?:)?//[^)\"']+)", styles))
    assert outside == set()
    assert "fonts.googleapis" not in "".join(page.read_text(encoding="utf-8") for page in pages)


def test_no_page_installs_the_name_from_the_package_index() -> None:
    """It is not this project's: whoever registers it would get these installations."""
    pages = [REPOSITORY / "README.md", REPOSITORY / "README.es.md", *(REPOSITORY / "docs").rglob("*.md")]
    pages += [
        path for folder in ("examples", "providers", "local_backend") for path in (REPOSITORY / folder).rglob("*.md")
    ]
    found = [page for page in pages if re.search(r"pip install [^`\n]*cloudtune", page.read_text(encoding="utf-8"))]
    assert found == []


def test_every_page_is_in_the_navigation() -> None:
    listed = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    docs = REPOSITORY / "docs"
    pages = [page.relative_to(docs).as_posix() for page in docs.rglob("*.md")]
    assert [page for page in pages if f": {page}\n" not in listed] == []
