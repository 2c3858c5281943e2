"""Other distributions add back ends, row rules, formats and tokenizers by their entry points alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "third_party"
BROKEN = """
    [build-system]
    requires = ["hatchling"]
    build-backend = "hatchling.build"

    [project]
    name = "tidy-clouds"
    version = "1.2"

    [project.entry-points."cloudtune.backends"]
    halfway = "tidy_clouds.halfway:HalfwayBackend"
    furious = "tidy_clouds.furious:FuriousBackend"
    missing = "tidy_clouds:NoSuchBackend"
    local = "tidy_clouds:NoSuchBackend"

    [project.entry-points."cloudtune.formats"]
    halfway-rows = "tidy_clouds.halfway:ROWS"
    furious-rows = "tidy_clouds.furious:ROWS"
    odd-rows = "tidy_clouds:__name__"
    openai = "tidy_clouds.furious:ROWS"

    [project.entry-points."cloudtune.row_kinds"]
    furious_rows = "tidy_clouds.furious:ROWS"
    odd_rows = "tidy_clouds:__name__"
    claude = "tidy_clouds.furious:ROWS"

    [tool.hatch.build.targets.wheel]
    packages = ["tidy_clouds"]
"""
"""A distribution whose entry points cannot be loaded, some of them under names that cloudtune has itself."""

USE = """
    import json, logging, sys
    logging.basicConfig(stream=sys.stderr)
    from cloudtune import registry
    from cloudtune.client import connect
    from cloudtune.errors import CloudtuneError
    from cloudtune.spec import JobSpec

    found = {"names": registry.backend_names(), "before": "acme_tuning" in sys.modules}
    found["origins"] = {name: registry.describe(name).origin for name in registry.backend_names()}
    found["loadable"] = list(registry.loadable())
    found["errors"] = {}
    for name in ("halfway", "furious", "missing", "acne"):
        try:
            registry.open_backend(name)
        except CloudtuneError as error:
            found["errors"][name] = [type(error).__name__, str(error), error.exit_code]
    try:
        registry.open_backend("acme", {"shop": "x"})
    except CloudtuneError as error:
        found["errors"]["acme"] = [type(error).__name__, str(error), error.exit_code]
    client = connect("acme", store=sys.argv[1])
    spec = JobSpec(model="acme-small-1", data={"train": sys.argv[2]}, backend="acme")
    found["ref"] = str(client.submit(spec).ref)
    found["local"] = registry.describe("local").target
    print(json.dumps(found))
"""

ROWS = """
    import json, logging, sys
    from pathlib import Path
    logging.basicConfig(stream=sys.stderr)
    from cloudtune.catalog import vendors
    from cloudtune.data import check, convert
    from cloudtune.data.checks.costs import count, estimates
    from cloudtune.data.report import source_data
    from cloudtune.data.write.formats_table import find_format
    from cloudtune.errors import CloudtuneError

    rows, written, back = sys.argv[1:]

    def problems(report):
        return [[problem.code, problem.line, problem.message] for problem in report.problems]

    found = {"before": "acme_tuning" in sys.modules}
    found["small"] = problems(check(rows, target="acme", model="acme-small-1"))
    found["large"] = problems(check(rows, target="acme", model="acme-large-1"))
    found["shared"] = problems(check(rows, target="acme", model="acme-small-1", workers=2))
    good = [line for line in Path(rows).read_text().splitlines() if len(line) < 200 and "<acme>" not in line]
    Path(rows).write_text("\\n".join(good) + "\\n")
    convert(rows, to="acme-turns", out=Path(written))
    report = convert(written, to="openai", out=Path(back))
    found["kinds"], found["ok"] = report.kinds, report.ok
    found["vendors"] = vendors()
    cost = [one for one in estimates(count(source_data(rows)), "sft") if one.backend == "acme"]
    found["costs"] = [[one.model, one.counted, one.tokens] for one in cost]
    found["errors"] = {}
    for name in ("acme-turn", "halfway-rows", "furious-rows", "odd-rows"):
        try:
            find_format(name)
        except CloudtuneError as error:
            found["errors"][name] = [type(error).__name__, str(error)]
    found["openai"] = find_format("openai").summary
    print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which both distributions are installed: their wheels, unpacked as pip does it."""
    broken = tmp_path_factory.mktemp("tidy-clouds")
    (broken / "tidy_clouds").mkdir()
    files = {
        "pyproject.toml": BROKEN,
        "tidy_clouds/__init__.py": "",
        "tidy_clouds/halfway.py": "import a_package_that_is_not_installed\n",
        "tidy_clouds/furious.py": "raise RuntimeError('not today')\n",
    }
    for name, text in files.items():
        (broken / name).write_text(dedent(text).lstrip(), encoding="utf-8")
    example = tmp_path_factory.mktemp("acme") / "source"
    shutil.copytree(EXAMPLE, example)
    target = tmp_path_factory.mktemp("target")
    for source in (broken, example):
        wheels = source / "dist"
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
        done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (wheel,) = wheels.glob("*.whl")
        zipfile.ZipFile(wheel).extractall(target)
    return target


def _environment(target: Path, home: Path) -> dict[str, str]:
    paths = os.pathsep.join([str(target), *(path for path in sys.path if path)])
    return {**os.environ, "PYTHONPATH": paths, "HOME": str(home), "XDG_STATE_HOME": str(home)}


def _run(installed: Path, tmp_path: Path, program: str, *arguments: str) -> tuple[dict[str, Any], str]:
    command = [sys.executable, "-c", dedent(program), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env=_environment(installed, tmp_path)
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def _write(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def used(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """What a program finds that opens every back end and submits a job to the third party's, and its log."""
    root = tmp_path_factory.mktemp("used")
    rows = _write(root / "rows.jsonl", [{"prompt": f"{n}", "completion": f"{n}!"} for n in range(5)])
    return _run(installed, root, USE, str(root / "store.db"), rows)


def test_a_third_party_is_found_opened_and_used(used: tuple[dict[str, Any], str]) -> None:
    found, _ = used
    assert {"acme", "halfway", "furious", "missing", "local"} <= set(found["names"])
    assert found["before"] is False, "listing names must import nobody"
    assert found["origins"]["acme"] == "acme-tuning"
    assert str(found["ref"]).startswith("acme:acct-1@test:ftjob-")


def test_a_bundled_back_end_wins_over_the_same_name(used: tuple[dict[str, Any], str]) -> None:
    found, _ = used
    assert found["origins"]["local"] == "built-in"
    assert str(found["local"]).startswith("cloudtune_local.")


def test_a_broken_back_end_says_what_is_wrong(used: tuple[dict[str, Any], str]) -> None:
    errors = used[0]["errors"]
    assert errors["halfway"][0] == "BackendNotInstalled"
    assert "a_package_that_is_not_installed" in errors["halfway"][1]
    assert errors["furious"][0] == "BackendNotInstalled"
    assert "not today" in errors["furious"][1]
    assert "tidy-clouds" in errors["furious"][1]
    assert "NoSuchBackend" in errors["missing"][1]
    assert errors["acne"][:1] == ["UnknownBackend"]
    assert "'acme'" in errors["acne"][1]
    assert errors["acme"][0] == "ConfigError"
    assert "store" in errors["acme"][1]
    assert {code for _, _, code in errors.values()} == {2}


def test_a_broken_back_end_is_left_out_with_a_warning(used: tuple[dict[str, Any], str]) -> None:
    found, log = used
    assert {"acme", "local"} <= set(found["loadable"])
    assert not {"halfway", "furious", "missing"} & set(found["loadable"])
    for name in ("halfway", "furious", "missing"):
        assert f"WARNING:cloudtune.registry:back end '{name}' of tidy-clouds" in log


@pytest.fixture(scope="module")
def rows_found(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """What the data functions make of rows for the third party's models, and the log."""
    root = tmp_path_factory.mktemp("rows")
    rows = [{"prompt": f"What is {n}?", "completion": f"{n}!"} for n in range(30)]
    rows[4]["completion"] = "x" * 16_100
    rows[9]["prompt"] = "Say <acme>."
    paths = _write(root / "rows.jsonl", rows), str(root / "turns.jsonl"), str(root / "back.jsonl")
    return _run(installed, root, ROWS, *paths)


def test_row_rules_come_from_the_third_party(rows_found: tuple[dict[str, Any], str]) -> None:
    found, _ = rows_found
    assert found["before"] is False
    errors = {(code, line): message for code, line, message in found["small"] if code != "few_rows"}
    assert set(errors) == {("too_long", 5), ("reserved_word", 10)}
    assert errors["too_long", 5].startswith("4,028 tokens"), "counted with the third party's own tokenizer"
    assert found["shared"] == found["small"], "processes that share the work find the same"
    large = {code: message for code, _, message in found["large"]}
    assert "too_long" not in large, "other models have other limits"
    assert "at least 50" in large["too_few_rows"]
    assert "Acme's guide to fine-tuning, seen 2026-11-29" in large["too_few_rows"]


def test_rows_in_a_third_partys_format_are_read_back(rows_found: tuple[dict[str, Any], str]) -> None:
    found, _ = rows_found
    assert found["kinds"] == {"chat": 28}
    assert found["ok"]


def test_costs_use_a_third_partys_prices_and_tokens(rows_found: tuple[dict[str, Any], str]) -> None:
    found, _ = rows_found
    assert found["vendors"] == sorted({*found["vendors"], "acme", "openai"})
    tokens = sum(-(-len(f"What is {n}?") // 4) + 1 for n in range(30) if n not in {4, 9})
    assert found["costs"] == [[model, "exact", [tokens, tokens]] for model in ("acme-large-1", "acme-small-1")]


def test_a_broken_format_or_kind_stops_nobody_else(rows_found: tuple[dict[str, Any], str]) -> None:
    found, log = rows_found
    errors = found["errors"]
    assert errors["acme-turn"][0] == "DataError"
    assert "did you mean acme-turns?" in errors["acme-turn"][1]
    assert errors["halfway-rows"][0] == "BackendNotInstalled"
    assert "a_package_that_is_not_installed" in errors["halfway-rows"][1]
    assert "not today" in errors["furious-rows"][1]
    assert "not a Format" in errors["odd-rows"][1]
    for name in ("furious_rows", "odd_rows"):
        assert f"WARNING:cloudtune.plugins:cloudtune.row_kinds '{name}' of tidy-clouds is left out" in log
    assert found["openai"] == "OpenAI's chat messages", "a bundled format wins over the same name"
    assert "'claude'" not in log


def test_contributing_shows_the_examples_entry_points() -> None:
    text = (EXAMPLE.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(\[project.entry-points.*?)```", text, re.DOTALL)
    example = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))
    assert tomllib.loads(block)["project"]["entry-points"] == example["project"]["entry-points"]


def _contract(installed: Path, tmp_path: Path, *options: str) -> str:
    shutil.copytree(EXAMPLE / "snapshots", tmp_path / "snapshots")
    shutil.copy(EXAMPLE / "test_contract.py", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "test_contract.py"],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=_environment(installed, tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_third_party_keeps_the_contract(installed: Path, tmp_path: Path) -> None:
    # The longest clause, a kill at every step, is in the soak run.
    assert "56 passed" in _contract(installed, tmp_path, "-k", "not kill_anywhere")


@pytest.mark.soak
def test_a_third_party_keeps_the_whole_contract(installed: Path, tmp_path: Path) -> None:
    assert "57 passed" in _contract(installed, tmp_path)
