"""Several processes make the same steps as one. (On CPUs with gloo: the same code runs a process for each GPU.)"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import torch

from cloudtune_trainer import checkpoints
from cloudtune_trainer.distributed_spec import Distributed
from cloudtune_trainer.folder import RunFolder, read_json
from cloudtune_trainer.launch import processes_for
from cloudtune_trainer.ports import hold_port
from cloudtune_trainer.run_spec import DataFiles, ModelSource, RunSpec

from .conftest import Runs, metrics, same_bits, sums, texts, weights
from .test_training_embedding import contrastive
from .test_training_embedding import spec_of as embedding_spec
from .test_training_preferences import pairs, spec_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.timeout(400), pytest.mark.starts_trainer]  # programs start slowly on a busy machine
LIMIT_S = 120


@pytest.fixture
def _two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDTUNE_PROCESSES", "2")


@pytest.mark.parametrize("adapter", [{"type": "full"}, {"type": "lora", "rank": 4}], ids=["full", "lora"])
@pytest.mark.usefixtures("_two")
def test_two_processes_are_as_one(runs: Runs, adapter: dict[str, Any]) -> None:
    # three sequences a step: the two have unequal shares, and the last step of a pass has work for one alone
    rows = sums(3) + texts(4)
    hyper = {"batch_size": 3, "epochs": 2, "packing": False}
    spec = {"rows": rows, "held_out": sums(5, seed=8), "adapter": adapter, "hyperparameters": hyper}
    one, group = runs.make("one", **spec), runs.make("group", **spec)
    assert runs.train(one) == "succeeded"
    assert runs.start(group).wait(LIMIT_S) == 0
    for split in ("train", "validation"):
        expected, found = ([m["values"]["loss"] for m in metrics(run, split)] for run in (one, group))
        assert found == pytest.approx(expected, rel=1e-4)
    assert read_json(group.status)["tokens"] == read_json(one.status)["tokens"]
    for name, weight in weights(one.model).items():
        torch.testing.assert_close(weights(group.model)[name], weight, rtol=1e-2, atol=2e-3)


@pytest.mark.usefixtures("_two")
def test_two_processes_measure_the_base_model_and_learn_from_pairs_as_one(runs: Runs) -> None:
    spec = spec_of({"type": "full"}, batch_size=3, epochs=2) | {"rows": pairs(7), "held_out": pairs(5, seed=8)}
    one, group = runs.make("one", **spec), runs.make("group", **spec)
    assert runs.train(one) == "succeeded"
    assert runs.start(group).wait(LIMIT_S) == 0
    for split in ("train", "validation"):
        for figure in ("loss", "accuracy", "margin", "rewards/rejected", "base_preferred"):
            expected, found = ([m["values"][figure] for m in metrics(run, split)] for run in (one, group))
            assert found == pytest.approx(expected, rel=1e-3, abs=2e-4), (split, figure)


@pytest.mark.soak
@pytest.mark.usefixtures("_two")
def test_two_processes_compare_the_texts_of_both(runs: Runs) -> None:
    rows, held_out = contrastive(7), contrastive(5, seed=8)
    spec = embedding_spec("multiple_negatives_ranking", hyperparameters={"batch_size": 3, "max_steps": 6})
    one, group = (runs.make(name, rows=rows, held_out=held_out, **spec) for name in ("one", "group"))
    assert runs.train(one) == "succeeded"
    assert runs.start(group).wait(LIMIT_S) == 0
    for split in ("train", "validation"):
        expected, found = ([m["values"]["loss"] for m in metrics(run, split)] for run in (one, group))
        assert found == pytest.approx(expected, rel=1e-3), split


@pytest.mark.usefixtures("_two")
def test_a_group_builds_a_configuration_and_goes_on_from_another_run(runs: Runs, tmp_path: Path) -> None:
    document = tmp_path / "tiny.json"
    document.write_text(json.dumps({"model": {"hidden_size": 32}}))
    model = {"source": "config", "path": str(document)}
    spec = {"model": model, "rows": sums(6), "held_out": sums(4, seed=9), "hyperparameters": {"max_steps": 3}}
    parent = runs.make("parent", **spec)
    assert runs.start(parent).wait(LIMIT_S) == 0
    start = checkpoints.newest_good(parent.checkpoints)
    child = runs.make("child", **spec, resume_from=str(start.path))
    assert runs.start(child).wait(LIMIT_S) == 0
    assert same_bits(weights(parent.model), weights(child.model))


@pytest.mark.usefixtures("_two")
def test_a_group_is_stopped_together(runs: Runs) -> None:
    run = runs.make(hyperparameters={"max_steps": 100_000})
    process = runs.start(run)
    limit = time.monotonic() + LIMIT_S
    while len(metrics(run)) < 3:
        assert time.monotonic() < limit
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT_S) == 1
    status = read_json(run.status)
    assert (status["state"], status["problem"]["code"]) == ("failed", "killed")
    assert status["problem"]["interrupted"]
    assert checkpoints.newest_good(run.checkpoints).step == status["step"]


_LEAVES = """
import time
from cloudtune_trainer.devices import Devices

devices = Devices("cpu", "fp32")
devices.totals(1.0)
if devices.rank:
    time.sleep(0.5)
before = time.monotonic()
devices.leave()
print(before, time.monotonic())
"""


@pytest.mark.soak
def test_the_first_process_leaves_last() -> None:
    """The others may still be receiving the last sum from it."""
    with hold_port() as held:
        group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(held.getsockname()[1])}
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", _LEAVES], stdout=subprocess.PIPE, text=True,
                env={**os.environ, **group, "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"},
            )
            for rank in range(2)
        ]  # fmt: skip
        (_, left), (late, _) = (map(float, process.communicate(timeout=LIMIT_S)[0].split()) for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert left >= late


_RUNS_OUT = """
import sys
from cloudtune_trainer import __main__ as program
from cloudtune_trainer.tasks import causal_lm
import os

forward = causal_lm.CausalLM.forward

def limited(task, model, batch):
    rows = int((batch.inputs["position_ids"] == 0).sum())
    if model.training and os.environ["RANK"] == "1" and rows > 1:
        raise MemoryError
    return forward(task, model, batch)

causal_lm.CausalLM.forward = limited
status = program.main(sys.argv[1:])
sys.stdout.flush()
os._exit(status)
"""


@pytest.mark.soak
def test_processes_agree_on_smaller_parts(runs: Runs) -> None:
    """One process runs out of memory in a step. Both then divide the rows of the evaluation in the same way."""
    hyper = {"batch_size": 6, "max_steps": 3, "packing": False}
    spec = {"rows": sums(6) + texts(6), "held_out": sums(7, seed=8) + texts(6), "adapter": {"type": "full"},
            "hyperparameters": hyper, "validation": {"every": 1}}  # fmt: skip
    one, group = runs.make("one", **spec), runs.make("group", **spec)
    assert runs.train(one) == "succeeded"
    with hold_port() as held:
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(held.getsockname()[1])}
        path = os.pathsep.join(sys.path)
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", _RUNS_OUT, str(group.path)],
                env={**os.environ, **shared, "PYTHONPATH": path, "RANK": str(rank), "LOCAL_RANK": str(rank),
                     "LOCAL_WORLD_SIZE": "2"},
            )
            for rank in range(2)
        ]  # fmt: skip
        try:
            assert [process.wait(LIMIT_S) for process in processes] == [0, 0]
        finally:
            for process in processes:
                process.kill()
                process.wait()
    for split in ("train", "validation"):
        expected, found = ([m["values"]["loss"] for m in metrics(run, split)] for run in (one, group))
        assert found == pytest.approx(expected, rel=1e-4), split
    saved = checkpoints.newest_good(group.checkpoints)
    assert saved is not None
    assert saved.progress.sequences_at_once == 1


@pytest.mark.usefixtures("_two")
def test_a_group_with_dropout_goes_on_to_the_bit(runs: Runs) -> None:
    """Each process draws numbers of its own, and gets its own back."""
    adapter = {"type": "lora", "rank": 4, "dropout": 0.3}

    def trained(name: str, steps: int, **more: Any) -> RunFolder:
        run = runs.make(name, rows=sums(8), adapter=adapter, hyperparameters={"max_steps": steps}, **more)
        assert runs.start(run).wait(LIMIT_S) == 0
        return run

    unbroken, first = trained("unbroken", 10), trained("first", 5)
    rest = trained("rest", 10, resume_from=str(checkpoints.newest_good(first.checkpoints).path))
    assert [m["step"] for m in metrics(rest)] == list(range(6, 11))
    assert same_bits(weights(unbroken.model), weights(rest.model))


def is_process_of(process: psutil.Process, run: Path, rank: str) -> bool:
    with contextlib.suppress(psutil.Error):  # it has ended
        return str(run) in process.cmdline() and process.environ().get("RANK") == rank
    return False


@pytest.mark.usefixtures("_two")
def test_a_killed_process_is_the_cause_and_not_the_lost_connection(runs: Runs) -> None:
    run = runs.make(hyperparameters={"max_steps": 100_000})
    process = runs.start(run)
    limit = time.monotonic() + LIMIT_S
    while len(metrics(run)) < 3:
        assert time.monotonic() < limit
        time.sleep(0.05)
    second = next(one for one in psutil.process_iter() if is_process_of(one, run.path, rank="1"))
    second.kill()
    assert process.wait(LIMIT_S) == 1
    problem = read_json(run.status)["problem"]
    assert problem["code"] == "killed"
    assert "-9" in problem["message"]


@pytest.mark.usefixtures("_two")
def test_a_failure_of_the_group_is_reported_once(runs: Runs) -> None:
    run = runs.make()
    (run.data / "train.jsonl").write_text("{broken\n")
    assert runs.start(run).wait(LIMIT_S) == 1
    assert read_json(run.status)["problem"]["code"] == "bad_data"
    assert not list(run.path.glob(".problem-*"))


def test_how_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLOUDTUNE_PROCESSES", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,3")

    def spec(device: Any) -> RunSpec:
        source = ModelSource(source="folder", path="/m")
        return RunSpec(version=1, model=source, data=DataFiles(train="t"), device=device)

    assert [processes_for(spec(device)) for device in ("auto", "cuda", "cpu", "mps")] == [3, 3, 1, 1]
    assert processes_for(replace(spec("auto"), distributed=Distributed(processes=2))) == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert processes_for(spec("auto")) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert processes_for(spec("auto")) == 1
