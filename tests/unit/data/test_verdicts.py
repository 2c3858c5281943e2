"""Verdicts on data: plan and submit check the rows once, as `data check` does, and again only when a byte changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from pydantic import SecretStr

from cloudtune.client import Client
from cloudtune.data.checks import check_cache
from cloudtune.data.checks.check_cache import Verdicts
from cloudtune.data.checks.targets import Target, find_target
from cloudtune.data.read import reading
from cloudtune.data.report import check
from cloudtune.errors import DataError
from cloudtune.spec import Data, JobSpec
from cloudtune.testing import ScriptedBackend, ScriptedVendor
from cloudtune.testing.scripted_options import ScriptedOptions
from cloudtune.testing.scripted_world import ScriptedWorld


def rows(path: Path, count: int = 120, **more: object) -> Data:
    lines = [{"prompt": f"question {i}", "completion": f"answer {i}", **more} for i in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return Data.model_validate({"train": str(path), "validation": 0.2})


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every pass over a file in which rows are decoded. Hashing its bytes is none."""
    seen: list[str] = []
    opened = reading.opened

    def counted(path: Path) -> object:
        seen.append(path.name)
        return opened(path)

    monkeypatch.setattr(reading, "opened", counted)
    return seen


def test_rows_are_checked_once_until_a_byte_changes(tmp_path: Path, passes: list[str]) -> None:
    data, known = rows(tmp_path / "rows.jsonl"), Verdicts(tmp_path / "verdicts")
    report = known.prepare(data)
    assert passes == ["rows.jsonl"]
    assert Verdicts(tmp_path / "verdicts").prepare(data) == report
    assert passes == ["rows.jsonl"]
    text = (tmp_path / "rows.jsonl").read_text()
    before = (tmp_path / "rows.jsonl").stat()
    (tmp_path / "rows.jsonl").write_text(text.replace('answer 7"', 'answer 8"'))
    os.utime(tmp_path / "rows.jsonl", ns=(before.st_atime_ns, before.st_mtime_ns))  # content counts, not the clock
    changed = known.prepare(data)
    assert len(passes) == 2
    assert changed.fingerprint != report.fingerprint
    (tmp_path / "rows.jsonl").write_text(text)
    assert known.prepare(data) == report
    assert len(passes) == 2


def test_what_bears_on_the_verdict_is_in_its_name(
    tmp_path: Path, passes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, known = rows(tmp_path / "rows.jsonl"), Verdicts(tmp_path / "verdicts")
    requested = [
        (data, {}), (data.model_copy(update={"split_seed": 1}), {}), (data, {"target": find_target("openai")}),
        (data.model_copy(update={"validation": 0.3}), {}), (data, {"target": find_target("azure_openai")}),
    ]  # fmt: skip
    for _ in range(2):
        for one, options in requested:
            known.prepare(one, **options)  # type: ignore[arg-type]
    assert len(passes) == len(requested)
    monkeypatch.setattr(check_cache, "rules_version", lambda: "the rules of another version")
    known.prepare(data)
    assert len(passes) == len(requested) + 1


def test_bad_rows_are_told_again_without_another_pass(tmp_path: Path, passes: list[str]) -> None:
    data, known = rows(tmp_path / "rows.jsonl"), Verdicts(tmp_path / "verdicts")
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"prompt": "a"\n{"prompt": "", "completion": "x"}\n')
    reported = []
    for _ in range(2):
        with pytest.raises(DataError) as refused:
            known.prepare(data)
        reported.append(refused.value.problems)
    assert len(passes) == 1
    assert reported[0] == reported[1]
    assert [(problem.code, problem.line) for problem in reported[0]] == [("invalid_json", 121), ("blank", 122)]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "folder"])
def test_a_damaged_entry_is_as_good_as_none(tmp_path: Path, passes: list[str], damage: str) -> None:
    data, known = rows(tmp_path / "rows.jsonl"), Verdicts(tmp_path / "verdicts")
    report = known.prepare(data)
    (entry,) = (tmp_path / "verdicts").iterdir()
    body = entry.read_bytes()
    if damage == "folder":
        entry.unlink()
        entry.mkdir()
    else:
        entry.write_bytes({"cut": body[:-9], "flipped": body.replace(b'"rows":', b'"rows":1'), "empty": b""}[damage])
    assert known.prepare(data) == report
    assert len(passes) == 2


def test_a_file_that_is_written_to_while_it_is_checked_is_not_remembered(
    tmp_path: Path, passes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, known = rows(tmp_path / "rows.jsonl"), Verdicts(tmp_path / "verdicts")
    prepare = check_cache.prepare

    def slow(*args: object, **options: object) -> object:
        report = prepare(*args, **options)  # type: ignore[arg-type]
        rows(tmp_path / "rows.jsonl", 130)
        return report

    monkeypatch.setattr(check_cache, "prepare", slow)
    known.prepare(data)
    assert not (tmp_path / "verdicts").exists()


def test_a_folder_that_cannot_be_written_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "verdicts").write_text("a file stands here")
    assert Verdicts(tmp_path / "verdicts").prepare(rows(tmp_path / "rows.jsonl")).splits["train"].rows > 80


def test_many_at_once_share_a_folder_and_it_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_cache, "KEPT", 5)
    data = rows(tmp_path / "rows.jsonl")
    faults: list[Exception] = []

    def work(first: int) -> None:
        try:
            for seed in range(first, first + 6):
                Verdicts(tmp_path / "verdicts").prepare(data.model_copy(update={"split_seed": seed}))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is shown
            faults.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    names = [entry.name for entry in (tmp_path / "verdicts").iterdir()]
    assert len(names) <= 5
    assert not any(name.startswith(".") for name in names)


def test_the_newest_entries_are_kept(tmp_path: Path, passes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_cache, "KEPT", 2)
    known = Verdicts(tmp_path / "verdicts")
    sides = [rows(tmp_path / "rows.jsonl").model_copy(update={"split_seed": seed}) for seed in range(4)]
    for age, data in enumerate(sides):
        known.prepare(data)
        for entry in (tmp_path / "verdicts").iterdir():
            if entry.stat().st_mtime > 1000:
                os.utime(entry, (age, age))
    for data in (sides[3], sides[2]):
        known.prepare(data)
    assert len(passes) == len(sides)


def test_processes_share_a_folder(tmp_path: Path) -> None:
    rows(tmp_path / "rows.jsonl", 2000)
    code = (
        "import sys; from pathlib import Path; from cloudtune.data.checks.check_cache import Verdicts; "
        "from cloudtune.spec import Data; data = Data.model_validate({'train': sys.argv[1]}); "
        "print(*[Verdicts(Path(sys.argv[2])).prepare(data).fingerprint for _ in range(20)])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "rows.jsonl"), str(tmp_path / "verdicts")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    reported = [process.communicate(timeout=100)[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len({fingerprint for one in reported for fingerprint in one}) == 1
    assert len(list((tmp_path / "verdicts").iterdir())) == 1


# -- through the client ----------------------------------------------------------------------------------------------


class ForOpenAI(ScriptedBackend):
    """Holds its rows against OpenAI's rules."""

    @classmethod
    def target_for(cls, model: str | None, method: str | None = None) -> Target:
        return find_target("openai", model, method)

    def data_target(self, spec: JobSpec) -> Target:
        return self.target_for(spec.model_for(self.name), spec.method.name)


def client_of(world: ScriptedWorld) -> Client:
    options = ScriptedOptions(api_key=SecretStr("k"))
    vendor = ScriptedVendor(api_key="k", clock=world.clock)
    return Client(ForOpenAI(options, vendor=vendor), ledger=f"sqlite:///{world.root}/ledger.db", clock=world.clock)


def test_plan_and_submit_check_once(memory_path: Path, passes: list[str]) -> None:
    world = ScriptedWorld(memory_path)
    spec = world.spec(data=rows(memory_path / "rows.jsonl").model_dump(exclude_none=True))
    # The scripted back end looks through the rows itself, once for each plan; encoding each side is a pass of its own.
    client = client_of(world)
    client.plan(spec)
    first = len(passes)
    client.plan(spec)
    again = len(passes) - first
    assert first - again == 1, "the second plan does not check"
    client.submit(spec)
    assert len(passes) - first - again == again + 2


def test_plan_tells_what_check_tells(memory_path: Path) -> None:
    world = ScriptedWorld(memory_path)
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    thought = [turns[0], {**turns[1], "reasoning_content": "hm"}]
    bad = [turns[0], {"role": "assistant", "content": " "}]
    path = memory_path / "rows.jsonl"
    lines = [{"messages": turns}, {"messages": thought}, {"messages": bad}, {"messages": turns, "tools": tools}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(DataError) as refused:
        client_of(world).plan(world.spec(data={"train": str(path)}))
    report = check(str(path), target="openai")
    assert list(refused.value.problems) == [p for p in report.problems if p.severity != "info"]
    codes = [(problem.code, problem.line) for problem in refused.value.problems if problem.severity == "error"]
    assert codes == [("loss", 2), ("blank", 3), ("too_few_rows", None)]


def test_a_loss_is_refused_at_plan_unless_the_spec_allows_it(memory_path: Path) -> None:
    world = ScriptedWorld(memory_path)
    rows(path := memory_path / "rows.jsonl")
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "reasoning_content": "hm"}]
    path.write_text("".join(json.dumps({"messages": turns}) + "\n" for _ in range(120)), encoding="utf-8")
    with pytest.raises(DataError) as refused:
        client_of(world).plan(world.spec(data={"train": str(path)}))
    assert {problem.code for problem in refused.value.problems if problem.severity == "error"} >= {"loss"}
    plan = client_of(world).plan(world.spec(data={"train": str(path), "allow_dropped": ["thoughts"]}))
    (lost,) = [problem for problem in plan.warnings if problem.code == "lost"]
    assert lost.field == "thoughts"
    assert "120 rows lose" in lost.message
