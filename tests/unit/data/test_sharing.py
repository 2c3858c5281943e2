"""The work shared among processes gives the same as one process: bytes, counts, problems and their order."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import msgspec
import pytest

from cloudtune.data.checks.preparing import _requests
from cloudtune.data.checks.shared_memory import PLACE_BYTES
from cloudtune.data.checks.worker_pool import Pool, workers_for
from cloudtune.data.problem_list import Faults
from cloudtune.data.report import check, convert
from cloudtune.data.scanned import Task
from cloudtune.errors import CloudtuneError
from cloudtune.spec import Source

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def dirty(tmp_path: Path) -> str:
    path = tmp_path / "rows.jsonl"
    with path.open("w") as out:
        for i in range(6000):
            row = {
                "prompt": f"question {i % 5000} " + "ñ" * 300,
                "completion": f"answer {i % 5000} <|im_end|>"[: 20 + i % 2 * 20],
            }
            if i % 1000 == 500:
                row["note"] = "not used"
            if i % 997 == 5:
                row["prompt"] = ""
            out.write(json.dumps(row) + "\n" * (1 + (i % 611 == 0)))
            if i % 1500 == 7:
                out.write("{broken\n")
    return str(path)


def test_two_workers_find_what_one_process_finds(dirty: str, tmp_path: Path) -> None:
    alone, shared = check(dirty, workers=0), check(dirty, workers=2)
    assert alone.counts["blank"] == 7
    assert alone.counts["duplicate"] > 900
    assert alone.counts["unused_key"] == 1

    def unordered(report: object) -> object:
        found = msgspec.to_builtins(report)
        found["problems"] = sorted(json.dumps(problem, sort_keys=True) for problem in found["problems"])
        return found

    assert unordered(shared) == unordered(alone)


def test_two_workers_write_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    rows = [{"prompt": f"question {i} " + "x" * 900, "completion": f"answer {i}"} for i in range(5000)]
    path.write_text(json.dumps(rows, indent=1))
    one = convert(str(path), to="bedrock-converse", out=tmp_path / "one.jsonl", workers=0)
    two = convert(str(path), to="bedrock-converse", out=tmp_path / "two.jsonl", workers=3)
    assert one.ok
    assert (one.out_sha256, one.fingerprint) == (two.out_sha256, two.fingerprint)
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


def test_a_worker_that_dies_is_told_and_nothing_hangs(dirty: str) -> None:
    requests = list(_requests({"train": Source(path=dirty)}, Faults(), {}, items=False)) * 10

    def go() -> None:
        with Pool(2, Task()) as pool:
            for number, _ in enumerate(pool.replies(requests)):
                if number == 1:
                    os.kill(pool._workers[0].pid, signal.SIGKILL)

    with pytest.raises(CloudtuneError, match="-9"):
        go()


def test_small_files_and_tables_are_not_shared(dirty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert workers_for([Source(path=dirty)]) == 0
    monkeypatch.setattr("cloudtune.data.checks.worker_pool.WORTH_BYTES", 1000)
    table = tmp_path / "a.csv"
    table.write_text("prompt,completion\n" + "a,b\n" * 5000)
    assert workers_for([Source(path=str(table))]) == 0
    if (os.cpu_count() or 1) > 1:
        assert workers_for([Source(path=dirty)]) >= 2


@pytest.mark.parametrize("shared", [True, False])
def test_rows_too_large_for_a_place_and_systems_that_share_no_memory(
    tmp_path: Path, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shared:
        monkeypatch.setattr("cloudtune.data.checks.worker_pool.file_in_memory", lambda _: None)
    path = tmp_path / "rows.jsonl"
    sizes = [10, 3 * PLACE_BYTES, 20, PLACE_BYTES - 100, 30, 2 * PLACE_BYTES]
    path.write_text("".join(json.dumps({"prompt": f"{size}", "completion": "a" * size}) + "\n" for size in sizes * 2))
    one = convert(str(path), to="openai", out=tmp_path / "one.jsonl", workers=0)
    two = convert(str(path), to="openai", out=tmp_path / "two.jsonl", workers=2)
    assert one.ok
    assert (one.out_sha256, one.counts) == (two.out_sha256, two.counts)
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
