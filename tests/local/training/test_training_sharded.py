"""Sharded training (FSDP2) makes the same steps as ddp, and any number of processes resumes it. (On CPUs with gloo.)"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from cloudtune_trainer import checkpoints
from cloudtune_trainer.folder import read_json, write_json

from .conftest import Runs, events, metrics, sums, weights
from .test_training_probes import network

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune_trainer.folder import RunFolder

pytestmark = [pytest.mark.timeout(400), pytest.mark.starts_trainer]
LIMIT_S = 150
HYPER = {"batch_size": 3, "max_steps": 6, "packing": False, "precision": "fp32", "adam_epsilon": 1e-4,
         "scheduler": "constant"}  # fmt: skip


def trained(runs: Runs, name: str, *, processes: int, **spec: Any) -> RunFolder:
    # three sequences a step: one of two processes has less work, and none in the last step of a pass
    group = {"strategy": spec.pop("strategy", "fsdp"), "processes": processes}
    hyper = HYPER | spec.pop("hyperparameters", {})
    run = runs.make(name, rows=sums(7), held_out=sums(5, seed=8), hyperparameters=hyper, distributed=group, **spec)
    assert runs.start(run).wait(LIMIT_S) == 0, run.log.read_text()[-3000:]
    return run


def losses(run: RunFolder, split: str = "train") -> list[float]:
    return [m["values"]["loss"] for m in metrics(run, split)]


def assert_same_weights(one: RunFolder, other: RunFolder) -> None:
    ours, theirs = weights(one.model), weights(other.model)
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(theirs[name], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "adapter",
    [{"type": "full"}, pytest.param({"type": "lora", "rank": 4}, marks=pytest.mark.soak)],
    ids=["full", "lora"],
)
def test_sharded_training_equals_ddp(runs: Runs, adapter: dict[str, Any]) -> None:
    ddp = trained(runs, "ddp", processes=2, strategy="ddp", adapter=adapter, test=sums(3, seed=9))
    fsdp = trained(runs, "fsdp", processes=2, adapter=adapter, test=sums(3, seed=9))
    for split in ("train", "validation", "test"):
        assert losses(fsdp, split) == pytest.approx(losses(ddp, split), rel=0, abs=1e-6)
    assert_same_weights(ddp, fsdp)
    newest = checkpoints.newest_good(fsdp.checkpoints)
    assert newest is not None
    assert sum(name.startswith("shards/shard-") for name in newest.files) == 2


@pytest.mark.parametrize("processes", [1, pytest.param(3, marks=pytest.mark.soak)])
def test_another_number_of_processes_resumes_sharded_training(runs: Runs, processes: int) -> None:
    first = trained(runs, "first", processes=2, hyperparameters={"max_steps": 3}, test=sums(3, seed=9))
    start = checkpoints.newest_good(first.checkpoints)
    assert start is not None
    assert start.is_sharded
    rest = trained(runs, "rest", processes=processes, resume_from=str(start.path))
    assert [m["step"] for m in metrics(rest)] == [4, 5, 6]
    assert read_json(rest.status)["state"] == "succeeded"
    unbroken = trained(runs, "unbroken", processes=2)
    assert losses(rest) == pytest.approx(losses(unbroken)[3:], rel=0, abs=1e-6)
    assert_same_weights(unbroken, rest)
    if processes == 1:
        best_of(start)
        kept = runs.make("kept", rows=sums(7), held_out=sums(5, seed=8), test=sums(3, seed=9), hyperparameters=HYPER,
                         resume_from=str(start.path))  # fmt: skip
        assert runs.train(kept) == "succeeded"
        assert_same_weights(first, kept)
        assert losses(kept, "test") == pytest.approx(losses(first, "test"), rel=0, abs=1e-6)


def best_of(saved: checkpoints.Saved) -> None:
    """No later evaluation is better than the one of that checkpoint."""
    marker = saved.path / checkpoints.MARKER
    document = read_json(marker)
    document["progress"] |= {"best_value": 0.0, "best_step": saved.step}
    write_json(marker, document)


@pytest.mark.soak
def test_sharded_training_keeps_the_best_checkpoint_of_one_process(runs: Runs) -> None:
    first = trained(runs, "first", processes=1, hyperparameters={"max_steps": 3})
    start = checkpoints.newest_good(first.checkpoints)
    assert start is not None
    assert not start.is_sharded
    best_of(start)
    rest = trained(runs, "rest", processes=2, resume_from=str(start.path), test=sums(3, seed=9))
    assert read_json(rest.status)["state"] == "succeeded"
    assert_same_weights(first, rest)
    assert not losses(rest, "test")
    assert any("the test rows are not evaluated" in event["message"] for event in events(rest, "warning"))


@pytest.fixture
def _alone() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("_alone")
def test_layers_within_layers_are_sharded() -> None:
    from cloudtune_trainer.sharding import shard

    plain, sharded = network("mamba"), network("mamba")
    sharded.load_state_dict(plain.state_dict())
    devices: Any = SimpleNamespace(device=torch.device("cpu"), world=1)
    shard(sharded, devices)
    ids = torch.arange(8)[None] + 3
    torch.testing.assert_close(sharded(input_ids=ids).logits, plain(input_ids=ids).logits)
