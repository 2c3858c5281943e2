"""Hints name the source of this copy: a name on the package index can be another project's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cloudtune import install_command as module
from cloudtune.install_command import install_command
from cloudtune.plugins import STORES

ROOTS = [Path(__file__).resolve().parents[2] / root for root in ("src", "providers", "local_backend")]
PROGRAM = "from cloudtune.install_command import install_command; print(install_command('aws'))"


class Installed:
    """The metadata of a distribution."""

    def __init__(self, url: str | None) -> None:
        self._url = url

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self._url is None else json.dumps({"url": self._url, "dir_info": {}})


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The module in a folder that is no checkout, as in site-packages."""
    monkeypatch.setattr(module, "__file__", str(tmp_path / "site-packages" / "cloudtune" / "install_command.py"))
    return tmp_path


def test_a_checkout_is_named() -> None:
    checkout = ROOTS[0].parent
    assert install_command("aws,openai") == f"pip install -e '{checkout}[aws,openai]'"
    assert STORES.plugins["s3"].command == f"pip install -e '{checkout}[aws]'"


@pytest.mark.parametrize("kind", ["wheel", "folder"])
def test_the_source_of_an_installed_copy_is_named(copied: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    source = copied / ("cloudtune-0.1.0-py3-none-any.whl" if kind == "wheel" else "my checkout")
    source.write_bytes(b"") if kind == "wheel" else source.mkdir()
    monkeypatch.setattr("importlib.metadata.distribution", lambda _: Installed(source.as_uri()))
    command = f"cloudtune[local] @ {source.as_uri()}" if kind == "wheel" else f"-e '{source}[local]'"
    assert command in install_command("local")


@pytest.mark.parametrize("url", [None, "https://example.com/cloudtune.whl", "file:///no/such/folder"])
def test_a_copy_from_the_index_is_named(copied: Path, monkeypatch: pytest.MonkeyPatch, url: str | None) -> None:
    monkeypatch.setattr("importlib.metadata.distribution", lambda _: Installed(url))
    assert install_command("local") == 'pip install "cloudtune[local]"'


def test_no_other_module_writes_the_line() -> None:
    found = [
        path.name
        for root in ROOTS
        for path in root.rglob("*.py")
        if re.search(r"pip install[^\n]*cloudtune\[", path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_the_line_works_in_a_new_process(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("pip install ")
