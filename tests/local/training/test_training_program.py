"""The program from outside: states, requests, signals, and every failure under its own name."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from cloudtune_trainer import checkpoints
from cloudtune_trainer.__main__ import main
from cloudtune_trainer.folder import FINAL_STATES, SPEC_VERSION, RunFolder, read_json, read_lines
from cloudtune_trainer.problems import classify
from cloudtune_trainer.program import run_training
from cloudtune_trainer.reporting import Report
from cloudtune_trainer.run_spec import read_spec

from .conftest import Runs, events, metrics, same_bits, sums, weights

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.timeout(400), pytest.mark.starts_trainer]  # programs start slowly on a busy machine
LIMIT_S = 120

LONG = {"hyperparameters": {"max_steps": 100_000}, "checkpoints": {"every": 10}}


def wait_for(condition: Callable[[], Any], *, seconds: float = 100) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.02)


def state(run: RunFolder) -> str:
    return (read_json(run.status) or {}).get("state", "")


def last_step(run: RunFolder) -> int:
    steps = metrics(run)
    return steps[-1]["step"] if steps else 0


def problem(run: RunFolder) -> dict[str, Any]:
    assert main([str(run.path)]) == 1
    assert state(run) == "failed"
    assert read_json(run.status)["finished_at"]
    return read_json(run.status)["problem"]


def test_pause_go_on_and_cancel(runs: Runs) -> None:
    run = runs.make(**LONG)
    process = runs.start(run)
    try:
        wait_for(lambda: len(metrics(run)) > 12)
        run.ask("pause")
        wait_for(lambda: state(run) == "paused")
        seen = len(metrics(run))
        time.sleep(0.5)
        assert len(metrics(run)) == seen, "a paused run stands still"
        assert checkpoints.saved_in(run.checkpoints)[-1].step == metrics(run)[-1]["step"]
        run.withdraw("pause")
        wait_for(lambda: len(metrics(run)) > seen)
        run.ask("cancel")
        assert process.wait(LIMIT_S) == 0
    finally:
        process.kill()
    assert state(run) == "cancelled"
    assert checkpoints.newest_good(run.checkpoints).step == read_json(run.status)["step"]
    words = [e["data"]["state"] for e in events(run, "state")]
    assert words[-1] == "cancelled"
    assert "cancelling" in words


def test_sigterm_saves_and_sigkill_loses_only_what_was_not_saved(runs: Runs) -> None:
    spec: dict[str, Any] = {"checkpoints": {"every": 7}, "adapter": {"type": "lora", "dropout": 0.1}}
    run = runs.make("killed", hyperparameters={"max_steps": 100_000}, **spec)
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        reached = last_step(run)
        process = runs.start(run)
        try:
            wait_for(lambda reached=reached: last_step(run) >= reached + 9)
            process.send_signal(signal_number)
            assert process.wait(LIMIT_S) == (143 if signal_number == signal.SIGTERM else -signal.SIGKILL)
        finally:
            process.kill()
    assert state(run) not in FINAL_STATES
    # Only now is the last step decided: no run can end before its signal.
    end = last_step(run) + 9
    document = read_json(run.spec)
    document["hyperparameters"]["max_steps"] = end
    run.spec.write_text(json.dumps(document))
    assert runs.start(run).wait(LIMIT_S) == 0
    assert state(run) == "succeeded"
    unbroken = runs.make("unbroken", hyperparameters={"max_steps": end}, **spec)
    assert runs.train(unbroken) == "succeeded"
    assert same_bits(weights(unbroken.model), weights(run.model))


def test_a_signal_at_the_limit_expires_the_run(runs: Runs) -> None:
    run = runs.make("limited", hyperparameters={"max_steps": 100_000})

    def stopping() -> bool:
        if last_step(run) < 3:
            return False
        run.ask("expire")
        return True

    outcome, detail = run_training(run, read_spec(read_json(run.spec)), Report(run), stopping)
    assert (outcome, detail) == (
        "expired", "the external time limit was reached; the trainer was stopped at step 3, and saved a checkpoint",
    )  # fmt: skip
    assert checkpoints.newest_good(run.checkpoints).step == 3


def test_status_is_always_whole(runs: Runs) -> None:
    run = runs.make(hyperparameters={"max_steps": 60})
    process = runs.start(run)
    seen = set()
    while process.poll() is None:
        time.sleep(0.003)
        status = read_json(run.status)
        if status:
            seen.add(status["state"])
            assert set(status) == {
                "state", "detail", "step", "total_steps", "epoch", "tokens", "eta_s", "updated_at", "started_at",
                "finished_at", "problem",
            }  # fmt: skip
    assert {"loading", "training", "succeeded"} <= seen | {state(run)}
    final = read_json(run.status)
    assert final["step"] == final["total_steps"] == 60
    assert final["tokens"] > 0
    assert not [p for p in run.path.iterdir() if p.name.startswith(".")], "nothing is left aside"


def test_usage() -> None:
    assert main([]) == 2
    assert main(["/nonexistent"]) == 2


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"source": "folder", "path": "/nonexistent"}, "is not a folder"),
        ({"source": "gguf", "path": "/nonexistent.gguf"}, "does not exist"),
        ({"source": "config", "path": "/nonexistent.json"}, "does not exist"),
    ],
)
def test_a_model_that_is_not_there(runs: Runs, model: dict[str, str], words: str) -> None:
    found = problem(runs.make(model=model))
    assert found["code"] == "model_not_found"
    assert words in found["message"]


def test_a_hub_model_without_the_hub_says_what_to_do(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs.make(model={"source": "hub", "path": "someone/some-model"})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    process = runs.start(run)
    assert process.wait(LIMIT_S) == 1
    found = read_json(run.status)["problem"]
    assert found["code"] == "model_not_found"
    assert "someone/some-model" in found["message"]
    assert "--local-dir" in found["hint"]


def test_damaged_weights(runs: Runs, tmp_path, tiny_model) -> None:
    import shutil

    copy = tmp_path / "damaged"
    shutil.copytree(tiny_model, copy)
    (copy / "model.safetensors").write_bytes(b"\x01\x02" * 50)
    found = problem(runs.make(model={"source": "folder", "path": str(copy)}))
    assert found["code"] == "model_not_found"
    assert "damaged" in found["message"]


def test_bad_rows(runs: Runs) -> None:
    run = runs.make()
    (run.data / "train.jsonl").write_text('{"text": "x"}\n{broken\n')
    found = problem(run)
    assert found["code"] == "bad_data"
    assert "line 2" in found["message"]


def test_a_spec_from_a_newer_version(runs: Runs) -> None:
    run = runs.make(version=SPEC_VERSION + 1)
    assert problem(run)["code"] == "bad_spec"


def test_every_fault_of_a_spec_at_once(runs: Runs) -> None:
    adapter = {"type": "vera"}
    run = runs.make(
        colour="red", method="rft", adapter=adapter, hyperparameters={"batch_size": "8", "scheduler": "wavy"}
    )
    message = problem(run)["message"]
    for words in ("colour: unknown key", "method: 'rft' is not one of sft", "adapter.type: 'vera' is not one of full",
                  "batch_size: invalid value '8'", "hyperparameters.scheduler: invalid value 'wavy'"):  # fmt: skip
        assert words in message


@pytest.mark.parametrize("value", ["NaN", "-1", "Infinity", "0"])
def test_a_rate_that_makes_no_sense(runs: Runs, value: str) -> None:
    run = runs.make()
    document = json.loads(run.spec.read_text())
    document["hyperparameters"]["learning_rate"] = "RATE"
    run.spec.write_text(json.dumps(document).replace('"RATE"', value))
    found = problem(run)
    assert found["code"] == "bad_spec"
    assert "learning_rate" in found["message"]


def test_adapter_targets_that_are_not_there(runs: Runs) -> None:
    found = problem(runs.make(adapter={"type": "lora", "targets": ["nothing"]}))
    assert found["code"] == "bad_spec"
    assert "q_proj" in found["hint"]


def test_dropout_where_the_model_has_none(runs: Runs, tmp_path) -> None:
    from cloudtune_trainer.tiny import write_tiny_model

    folder = write_tiny_model(tmp_path / "mamba", model={"model_type": "mamba", "state_size": 4, "hidden_size": 32})
    spec: dict[str, Any] = {"model": {"source": "folder", "path": str(folder)}, "adapter": {"type": "full"}}
    assert problem(runs.make("dropout", hyperparameters={"dropout": 0.5}, **spec))["code"] == "bad_spec"
    run = runs.make("padded", hyperparameters={"max_steps": 2, "packing": True}, **spec)
    assert main([str(run.path)]) == 0
    assert any("packing is disabled: the model has layers of the type" in e["message"] for e in events(run, "warning"))


@pytest.mark.skipif(sys.platform == "win32", reason="no such limits there")
def test_a_full_disk_is_named(runs: Runs) -> None:
    run = runs.make(adapter={"type": "full"}, hyperparameters={"max_steps": 2})
    limit = 200_000  # the status and the log fit, a checkpoint does not

    process = runs.start(run, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert process.wait(LIMIT_S) == 1
    assert read_json(run.status)["problem"]["code"] == "disk_full"
    assert not checkpoints.saved_in(run.checkpoints)
    assert not list(run.checkpoints.glob("step-*")), "what could not be finished makes room"


def test_a_full_disk_is_reported(tmp_path) -> None:
    """A file system of its own, filled to the last byte while the run trains."""
    import subprocess

    from cloudtune_trainer.tiny import write_tiny_model

    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("this user cannot mount a file system")
    runs = Runs(disk, write_tiny_model(tmp_path / "model"))
    try:
        run = runs.make(hyperparameters={"max_steps": 100_000}, checkpoints={"every": 100_000})
        process = runs.start(run)
        wait_for(lambda: metrics(run))
        with (disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space left"):
            while True:
                filler.write(b"x" * 4096)
        assert process.wait(LIMIT_S) == 1
        assert state(run) == "failed"
        assert read_json(run.status)["problem"]["code"] == "disk_full"
    finally:
        runs.end()
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_rows_beyond_the_positions_are_cut_and_reported(runs: Runs) -> None:
    long = {"text": "word " * 1000}
    run = runs.make(rows=[long], method="cpt", hyperparameters={"max_steps": 1, "max_length": 100_000})
    assert runs.train(run) == "succeeded"
    (warning,) = events(run, "warning")
    assert warning["data"] == {"max_length": 1024}


@pytest.mark.soak
@pytest.mark.skipif(sys.platform == "win32", reason="no such limits there")
def test_training_fits_into_the_memory_of_the_process(runs: Runs) -> None:
    run = runs.make(
        rows=[{"text": "word " * 40_000}], method="cpt", adapter={"type": "full"},
        hyperparameters={"batch_size": 4000, "max_length": 1000, "epochs": 1},
    )  # fmt: skip
    limit = 3 * 2**30
    process = runs.start(run, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
    assert process.wait(10 * LIMIT_S) == 0
    assert "because of out of memory" in events(run, "warning")[0]["message"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission_is_named(runs: Runs) -> None:
    run = runs.make(hyperparameters={"max_steps": 1})
    run.checkpoints.mkdir(mode=0o500)
    assert problem(run)["code"] == "no_permission"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermissionError(13, "Permission denied", "/x"), "no_permission"),
        (OSError(30, "Read-only file system", "/x"), "no_permission"),
        (OSError(28, "No space left on device"), "disk_full"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (ModuleNotFoundError("No module named 'torch'"), "not_installed"),
        (ValueError("something else"), "error"),
    ],
)
def test_errors_by_name(tmp_path, error: Exception, code: str) -> None:
    wrapped = RuntimeError("on the way up")
    wrapped.__cause__ = error
    for shown in (error, wrapped):
        assert classify(shown, tmp_path / "log.txt").code == code


def test_event_lines_are_whole_and_numbered(tmp_path) -> None:
    from cloudtune_trainer.folder import append_line

    file = tmp_path / "events.jsonl"
    append_line(file, {"n": 1})
    with file.open("ab") as torn:
        torn.write(b'{"n": 2, "half')
    assert [n for n, _ in read_lines(file)] == [1]
    append_line(file, {"n": 3})
    assert read_lines(file) == [(1, {"n": 1}), (3, {"n": 3})]
    assert read_lines(file, after=1) == [(3, {"n": 3})]


def test_the_package_imports_no_other_and_no_large_one() -> None:
    """Its bundle runs without cloudtune; a wrong spec is refused before torch is imported."""
    import subprocess

    code = (
        "import sys, cloudtune_trainer.__main__, cloudtune_trainer.folder;"
        "heavy = {'torch', 'transformers', 'peft', 'accelerate', 'numpy', 'cloudtune'} & set(sys.modules);"
        "assert not heavy, heavy;"
        "import cloudtune_trainer.program;"
        "heavy = {'accelerate', 'datasets', 'trl', 'peft', 'cloudtune', 'pandas'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_same_rows_same_model(runs: Runs) -> None:
    """The program and the function in this process are the same training."""
    spec = {"hyperparameters": {"max_steps": 5}, "adapter": {"type": "full"}}
    one, other = runs.make("one", rows=sums(9), **spec), runs.make("other", rows=sums(9), **spec)
    assert runs.train(one) == "succeeded"
    assert runs.start(other).wait(LIMIT_S) == 0
    assert same_bits(weights(one.model), weights(other.model))
