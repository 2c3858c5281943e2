"""The build matches the source tree: sdist -> wheel -> a clean environment that imports every module."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
COMPILED = "cloudtune/data/_conversations"
ROOTS = ("src", "providers", "local_backend")
PACKAGES = ("cloudtune", "cloudtune_emulator", "cloudtune_local", "cloudtune_providers", "cloudtune_trainer")

IMPORT_EVERYTHING = """
import importlib, json, pkgutil, sys
found = {}
for package in sys.argv[1:]:
    top = importlib.import_module(package)
    found[package] = top.__file__
    for module in pkgutil.walk_packages(top.__path__, package + "."):
        if not module.name.endswith(".__main__"):
            found[module.name] = importlib.import_module(module.name).__file__
print(json.dumps(found))
"""


def _run(*command: object, cwd: Path | None = None) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _files_under(root: str) -> set[str]:
    """The files of one source root, as paths inside the wheel."""
    top = REPOSITORY / root
    return {
        path.relative_to(top).as_posix()
        for package in PACKAGES
        for path in (top / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
    }


def _source_files() -> set[str]:
    return set().union(*(_files_under(root) for root in ROOTS))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from that sdist."""
    out = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, REPOSITORY)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment whose cloudtune can only come from the wheel.

    What cloudtune depends on is borrowed from this environment: its folder is appended to the path, where no ``.pth``
    file is read, so that this environment's editable cloudtune stays out of sight.
    """
    place = tmp_path_factory.mktemp("clean")
    venv.create(place, with_pip=False, symlinks=True)
    python = place / "bin" / "python"
    _run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    site = Path(_run(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").strip())
    (site / "borrowed.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n", encoding="utf-8")
    return python


def test_the_sdist_holds_what_a_contributor_needs(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for wanted in (
        "Makefile",
        "constraints.txt",
        "requirements/all.txt",
        "SECURITY.md",
        ".ci/run",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "README.es.md",
        "README.md",
    ):
        assert wanted in names
    assert {f"{root}/{name}" for root in ROOTS for name in _files_under(root)} <= names
    assert not [name for name in names if ".venv" in name or "/.cache/" in name]


def test_the_wheel_holds_every_file_and_no_other(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == _source_files() | {f"{COMPILED}.abi3.so"}


def test_the_wheel_is_for_the_system_that_it_was_compiled_for(wheel: Path) -> None:
    assert wheel.stem.endswith(sysconfig.get_platform().replace("-", "_").replace(".", "_"))


def test_the_wheel_imports_every_module(clean: Path, tmp_path: Path) -> None:
    found = json.loads(_run(clean, "-c", IMPORT_EVERYTHING, *PACKAGES, cwd=tmp_path))
    modules = {
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in _source_files()
        if name.endswith(".py") and not name.endswith("__main__.py")
    }
    assert set(found) == modules | {COMPILED.replace("/", ".")}
    elsewhere = {name: path for name, path in found.items() if not Path(path).is_relative_to(clean.parents[1])}
    assert not elsewhere


def test_the_wheel_is_typed(clean: Path, tmp_path: Path) -> None:
    script = "import importlib.resources as r, sys; print([(r.files(p) / 'py.typed').is_file() for p in sys.argv[1:]])"
    assert _run(clean, "-c", script, *PACKAGES, cwd=tmp_path).strip() == str([True] * len(PACKAGES))


def test_the_wheel_brings_the_command(clean: Path, tmp_path: Path) -> None:
    assert "Usage: cloudtune" in _run(clean.with_name("cloudtune"), "--help", cwd=tmp_path)
