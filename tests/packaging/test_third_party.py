"""A back end from elsewhere: a distribution of its own, found by its entry point, and held to the same contract."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

PYPROJECT = """
    [build-system]
    requires = ["hatchling"]
    build-backend = "hatchling.build"

    [project]
    name = "tidy-clouds"
    version = "1.2"
    description = "A back end for cloudtune that its authors have never heard of"
    requires-python = ">=3.11"

    [project.entry-points."cloudtune.backends"]
    tidy = "tidy_clouds.backend:TidyBackend"
    halfway = "tidy_clouds.halfway:HalfwayBackend"
    furious = "tidy_clouds.furious:FuriousBackend"
    missing = "tidy_clouds.backend:NoSuchBackend"
    local = "tidy_clouds.backend:TidyBackend"

    [tool.hatch.build.targets.wheel]
    packages = ["tidy_clouds"]
"""

BACKEND = '''
    """The whole back end: somebody else's, on the scripted vendor, with a name and settings of its own."""

    from pydantic import BaseModel

    from cloudtune.testing import ScriptedBackend, ScriptedVendor


    class TidyOptions(BaseModel, extra="forbid"):
        store: str


    class TidyBackend(ScriptedBackend):
        name = "tidy"
        Options = TidyOptions

        def __init__(self, options=None, *, vendor=None):
            super().__init__(vendor=vendor or ScriptedVendor(options.store))
            self._key = self._vendor._api_key
'''

CONTRACT = """
    import pytest

    pytest.register_assert_rewrite("cloudtune.testing.contract")
    from cloudtune.testing.contract import BackendContract
    from cloudtune.testing.scripted_world import ScriptedWorld


    class TestTidy(BackendContract):
        expected_skips = 1

        @pytest.fixture
        def world(self, tmp_path):
            return ScriptedWorld(tmp_path, "unique_names", backend="tidy_clouds.backend:TidyBackend")
"""

CLAUSES = "00_skips or 01_plan_is_pure or 03 or 10 or 11 or 13_the_same or 14_every or 17 or 20"

USE = """
    import json, logging, sys
    logging.basicConfig(stream=sys.stderr)
    from cloudtune import registry
    from cloudtune.client import connect
    from cloudtune.errors import CloudtuneError
    from cloudtune.spec import JobSpec

    told = {"names": registry.backend_names(), "before": "tidy_clouds" in sys.modules}
    told["origins"] = {name: registry.describe(name).origin for name in registry.backend_names()}
    told["loadable"] = list(registry.loadable()) if "--load" in sys.argv else None
    told["errors"] = {}
    for name in ("halfway", "furious", "missing", "tidi"):
        try:
            registry.open_backend(name)
        except CloudtuneError as error:
            told["errors"][name] = [type(error).__name__, str(error), error.exit_code]
    try:
        registry.open_backend("tidy", {"shop": "x"})
    except CloudtuneError as error:
        told["errors"]["tidy"] = [type(error).__name__, str(error), error.exit_code]
    client = connect("tidy", store=sys.argv[1])
    rows = sys.argv[2]
    told["ref"] = str(client.submit(JobSpec(model="m", data={"train": rows}, backend="tidy")).ref)
    told["local"] = registry.describe("local").target
    print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the stranger's distribution was installed, as pip does it."""
    source = tmp_path_factory.mktemp("tidy-clouds")
    package = source / "tidy_clouds"
    package.mkdir()
    files = {
        source / "pyproject.toml": PYPROJECT,
        package / "__init__.py": "",
        package / "backend.py": BACKEND,
        package / "halfway.py": "import a_package_that_is_not_installed\n",
        package / "furious.py": "raise RuntimeError('not today')\n",
    }
    for file, text in files.items():
        file.write_text(dedent(text).lstrip(), encoding="utf-8")
    target = tmp_path_factory.mktemp("target")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    done = subprocess.run(
        [*pip, "--no-build-isolation", "--target", str(target), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


def _environment(target: Path, home: Path) -> dict[str, str]:
    paths = os.pathsep.join([str(target), *(path for path in sys.path if path)])
    return {**os.environ, "PYTHONPATH": paths, "HOME": str(home), "XDG_STATE_HOME": str(home)}


def _use(installed: Path, tmp_path: Path, *options: str) -> tuple[dict[str, object], str]:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"{n}", "completion": f"{n}!"}) + "\n" for n in range(5)))
    command = [sys.executable, "-c", dedent(USE), str(tmp_path / "store.db"), str(rows), *options]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env=_environment(installed, tmp_path)
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_a_stranger_is_found_opened_and_used(installed: Path, tmp_path: Path) -> None:
    told, _ = _use(installed, tmp_path)
    assert {"tidy", "halfway", "furious", "missing", "local"} <= set(told["names"])  # type: ignore[call-overload]
    assert told["before"] is False, "listing names must import nobody"
    assert told["origins"]["tidy"] == "tidy-clouds"  # type: ignore[index]
    assert str(told["ref"]).startswith("tidy:acct-1@test:ftjob-")


def test_ours_win_over_a_stranger_of_the_same_name(installed: Path, tmp_path: Path) -> None:
    told, _ = _use(installed, tmp_path)
    assert told["origins"]["local"] == "built-in"  # type: ignore[index]
    assert str(told["local"]).startswith("cloudtune_local.")


def test_a_broken_stranger_says_what_is_wrong_when_it_is_opened(installed: Path, tmp_path: Path) -> None:
    errors = _use(installed, tmp_path)[0]["errors"]
    assert isinstance(errors, dict)
    assert errors["halfway"][0] == "BackendNotInstalled"
    assert "a_package_that_is_not_installed" in errors["halfway"][1]
    assert errors["furious"][0] == "BackendNotInstalled"
    assert "not today" in errors["furious"][1]
    assert "tidy-clouds" in errors["furious"][1]
    assert "NoSuchBackend" in errors["missing"][1]
    assert errors["tidi"][:1] == ["UnknownBackend"]
    assert "'tidy'" in errors["tidi"][1]
    assert errors["tidy"][0] == "ConfigError"
    assert "store" in errors["tidy"][1]
    assert {code for _, _, code in errors.values()} == {2}


def test_a_broken_stranger_is_a_warning_and_stops_nobody(installed: Path, tmp_path: Path) -> None:
    told, log = _use(installed, tmp_path, "--load")
    assert {"tidy", "local"} <= set(told["loadable"])  # type: ignore[call-overload]
    assert not {"halfway", "furious", "missing"} & set(told["loadable"])  # type: ignore[call-overload]
    for name in ("halfway", "furious", "missing"):
        assert f"WARNING:cloudtune.registry:back end '{name}' of tidy-clouds" in log


def test_a_stranger_adopts_the_contract(installed: Path, tmp_path: Path) -> None:
    test = tmp_path / "test_tidy.py"
    test.write_text(dedent(CONTRACT).lstrip(), encoding="utf-8")
    assert len(test.read_text().splitlines()) < 25
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", CLAUSES, str(test)],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=_environment(installed, tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "11 passed" in done.stdout, done.stdout
