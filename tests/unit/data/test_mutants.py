"""Damaged files give problems or rows: no crash, no hang, no other exception, whatever reads them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from tests.unit.data import columnar_fuzz
from tests.unit.data.mutants import GOOD, mutants

from cloudtune.data.report import check, convert
from cloudtune.errors import Problem

ROOT = Path(__file__).parents[3]


TOGETHER = 50
"""Files of a source."""
COLUMNAR = ("parquet", "feather", "stream", "xlsx")


def read_all(name: str, count: int, seed: int, folder: Path) -> dict[str, int]:
    """Check so many mutants and convert some of them. Gives how often each problem was met."""
    reported: Counter[str] = Counter()
    stream = mutants(GOOD[name](), count, seed)
    while some := list(islice(stream, TOGETHER)):
        paths = [folder / f"{number} {name}" for number in range(len(some))]
        for path, content in zip(paths, some, strict=True):
            path.write_bytes(content)
        try:
            report = check(tuple(map(str, paths)), workers=0, private=True, problems=10_000)
            convert(str(paths[0]), to="openai", out=folder / "out", workers=0)
        except Exception as error:
            raise AssertionError(f"{name}, seed {seed}") from error
        assert report.rows or not report.ok
        errors = [problem for problem in report.problems if problem.severity == "error"]
        assert all(isinstance(problem, Problem) and len(str(problem)) < 4000 for problem in errors)
        reported.update(problem.code for problem in errors)
        reported["crash"] += sum("crashed" in problem.message for problem in errors)
    return dict(reported)


@pytest.mark.parametrize("name", GOOD)
def test_damaged_files_are_reported(name: str, tmp_path: Path) -> None:
    reported = read_all(name, 100, 1, tmp_path)
    assert sum(reported.values()) > 10


@pytest.mark.soak
@pytest.mark.parametrize("name", GOOD)
def test_ten_thousand_damaged_files_are_reported(name: str) -> None:
    """In processes of their own: a crash of a reader that runs in the caller's process is seen, too."""
    script = (
        "import json, sys, tempfile, pathlib\n"
        "from tests.unit.data.test_mutants import read_all\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    print(json.dumps(read_all(sys.argv[1], 500, int(sys.argv[2]), pathlib.Path(folder))))\n"
    )
    total: dict[str, int] = {}
    for seed in range(20):
        command = [sys.executable, "-c", script, name, str(seed)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1800)
        assert done.returncode == 0, f"seed {seed}: {done.returncode}\n{done.stderr[-3000:]}"
        for outcome, times in json.loads(done.stdout.splitlines()[-1]).items():
            total[outcome] = total.get(outcome, 0) + times
    print(name, total)
    assert sum(total.values()) > 1000


def columnar(kinds: str, count: int, seed: int, folder: Path) -> dict[str, dict[str, int]]:
    """Check so many damaged columnar files of each kind. Gives how often each outcome was met."""
    command = [sys.executable, "-m", columnar_fuzz.__name__, kinds, str(count), str(seed), str(folder)]
    environment = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=3000)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["bytes"] < columnar_fuzz.MEMORY, "the reader's memory"
    outcomes: dict[str, dict[str, int]] = found["outcomes"]
    assert [one for each in outcomes.values() for one in each if one.startswith(("HANG", "INTERNAL"))] == []
    return outcomes


def test_damaged_columnar_files_are_reported(tmp_path: Path) -> None:
    for found in columnar(",".join(COLUMNAR), 100, 1, tmp_path).values():
        assert sum(found.values()) == 100
        assert 0 < found["rows"] < 100


@pytest.mark.soak
@pytest.mark.parametrize("kind", COLUMNAR)
def test_ten_thousand_damaged_columnar_files_are_reported(kind: str, tmp_path: Path) -> None:
    for seed in range(10):
        found = columnar(kind, 1000, seed, tmp_path)
        print(kind, seed, found)
