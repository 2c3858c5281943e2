"""The loop learns, measures, stops when it should, and computes a batch in parts as it does at once."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from cloudtune_trainer.devices import _compute_type
from cloudtune_trainer.folder import read_json
from cloudtune_trainer.problems import TrainingProblem

from .conftest import Runs, events, metrics, same_bits, sums, texts, weights

FULL = {"type": "full"}
LORA = {"type": "lora", "rank": 4}


@pytest.mark.parametrize(("method", "adapter"), [
    pytest.param("sft", LORA, id="sft-lora"), pytest.param("cpt", FULL, id="cpt-full"),
    pytest.param("sft", FULL, id="sft-full", marks=pytest.mark.soak),
    pytest.param("cpt", LORA, id="cpt-lora", marks=pytest.mark.soak),
])  # fmt: skip
def test_eight_rows_are_learnt_by_heart(runs: Runs, adapter: dict[str, Any], method: str) -> None:
    # a small adapter cannot make sense of random embeddings, but it learns which words are frequent
    rate, share = (5e-3, 0.4) if adapter is FULL else (3e-2, 0.95)
    hyper = {"max_steps": 60, "batch_size": 8, "learning_rate": rate}
    rows = sums(8) if method == "sft" else texts(8)
    run = runs.make(rows=rows, method=method, adapter=adapter, hyperparameters=hyper)
    assert runs.train(run) == "succeeded"
    losses = [m["values"]["loss"] for m in metrics(run)]
    assert losses[0] == pytest.approx(math.log(512), abs=0.6), "an untrained model knows nothing"
    assert losses[-1] < share * losses[0]
    last = metrics(run)[-1]["values"]
    assert set(last) == {
        "loss", "perplexity", "token_accuracy", "learning_rate", "grad_norm", "tokens_per_s", "memory_mb",
    }  # fmt: skip
    assert last["perplexity"] == pytest.approx(math.exp(last["loss"]))
    assert last["token_accuracy"] > metrics(run)[0]["values"]["token_accuracy"]
    if adapter is LORA:
        assert "More Information Needed" not in (run.model / "README.md").read_text("utf-8")


def test_shuffled_labels_are_the_control(runs: Runs) -> None:
    """Held-out loss falls because of what the rows say: with answers to other questions it stays higher."""

    def held_out(name: str, rows: list[dict[str, Any]]) -> float:
        run = runs.make(
            name, rows=rows, held_out=sums(16, seed=5), adapter=FULL, hyperparameters={"epochs": 8, "batch_size": 8}
        )
        runs.train(run)
        return min(m["values"]["loss"] for m in metrics(run, "validation"))

    rows = sums(64)
    answers = [m for row in rows for m in row["messages"] if m["role"] == "assistant"]
    words = [m["content"][::-1] for m in answers]
    shuffled = [
        {"messages": [{**m, "content": words.pop()} if m["role"] == "assistant" else m for m in row["messages"]]}
        for row in rows
    ]
    assert held_out("true", rows) < 0.8 * held_out("control", shuffled)


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_a_batch_in_parts_has_the_same_gradient(runs: Runs, parts: int) -> None:
    """Rows of very different lengths: a mean of the parts' means would be another gradient."""

    def step(name: str, accumulation: int) -> dict[str, Any]:
        hyper = {
            "max_steps": 1, "batch_size": 8, "gradient_accumulation_steps": accumulation, "packing": False,
            "max_grad_norm": 0.0,
        }  # fmt: skip
        run = runs.make(name, rows=sums(4) + texts(4), adapter=FULL, hyperparameters=hyper)
        runs.train(run)
        return metrics(run)[0]["values"] | {"weights": weights(run.model)}

    whole, split = step("whole", 1), step("split", parts)
    assert split["loss"] == pytest.approx(whole["loss"], rel=1e-6)
    assert split["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-5)
    for name, weight in whole["weights"].items():
        # Adam's first step is a sign: compare where the gradient is not noise
        close = torch.isclose(weight, split["weights"][name], rtol=1e-3, atol=1e-5)
        assert close.float().mean() > 0.99, name


def test_packed_and_unpacked_have_the_same_gradient(runs: Runs) -> None:
    figures = {}
    for packing in (True, False):
        hyper = {"max_steps": 1, "batch_size": 64, "packing": packing, "max_length": 200}
        run = runs.make(f"packing-{packing}", rows=sums(30), hyperparameters=hyper, adapter=FULL)
        runs.train(run)
        figures[packing] = metrics(run)[0]["values"]
    assert figures[True]["loss"] == pytest.approx(figures[False]["loss"], rel=1e-5)
    assert figures[True]["grad_norm"] == pytest.approx(figures[False]["grad_norm"], rel=1e-4)


def test_gradient_checkpointing_changes_no_bit(runs: Runs) -> None:
    found = []
    for checkpointing in (True, False):
        hyper = {"max_steps": 3, "gradient_checkpointing": checkpointing, "dropout": 0.1}
        run = runs.make(f"checkpointing-{checkpointing}", adapter={**LORA, "dropout": 0.1}, hyperparameters=hyper)
        runs.train(run)
        found.append(weights(run.model))
    assert same_bits(*found)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(runs: Runs) -> None:
    found = []
    for name, seed in {"one": 1, "same": 1, "other": 2}.items():
        run = runs.make(name, adapter=LORA, seed=seed, hyperparameters={"max_steps": 3})
        runs.train(run)
        found.append(weights(run.model))
    assert same_bits(found[0], found[1])
    assert not same_bits(found[0], found[2])


@pytest.mark.parametrize(("native", "said"), [
    (True, "precision: bf16, because cpu has native bf16 products"),
    (False, "precision: fp32, because cpu has no native bf16 products"),
])  # fmt: skip
def test_the_chosen_precision_is_reported(runs: Runs, monkeypatch: pytest.MonkeyPatch, native: bool, said: str) -> None:
    monkeypatch.setattr("cloudtune_trainer.devices._cpu_has_bf16", lambda: native)
    run = runs.make(adapter=LORA, hyperparameters={"max_steps": 1, "precision": "auto"})
    runs.train(run)
    assert said in [event["message"] for event in events(run, "message")]


def test_a_gpu_that_only_emulates_bf16_computes_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_native, expected in ((True, torch.bfloat16), (False, torch.float32)):
        found = lambda including_emulation=True, native=is_native: native or including_emulation  # noqa: E731
        monkeypatch.setattr("torch.cuda.is_bf16_supported", found)
        assert _compute_type("auto", torch.device("cuda")) == expected


def test_early_stopping_keeps_the_best(runs: Runs) -> None:
    run = runs.make(
        rows=sums(8),
        held_out=sums(6, seed=3),
        adapter=FULL,
        hyperparameters={"epochs": 50, "learning_rate": 2e-2},
        validation={"every": 2, "early_stopping": {"patience": 2, "min_delta": 0.0}},
    )
    assert runs.train(run) == "succeeded"
    losses = [m["values"]["loss"] for m in metrics(run, "validation")]
    steps = [m["step"] for m in metrics(run, "validation")]
    assert steps[-1] < read_json(run.status)["total_steps"]
    assert losses.index(min(losses)) == len(losses) - 3
    assert read_json(run.model / "tuned.json")["step"] == steps[-3]
    assert any("stopped early" in e["message"] for e in events(run, "message"))


def test_a_run_that_is_asked_to_expire_keeps_its_model(runs: Runs) -> None:
    """As at its limit of time, when somebody else's clock decides."""
    run = runs.make(rows=sums(6), held_out=sums(3, seed=1), hyperparameters={"max_steps": 400, "epochs": 400})
    run.ask("expire")
    assert runs.train(run) == "expired"
    assert not run.model.exists(), "there is nothing yet to make it of"
    run.withdraw("expire")
    assert runs.train(run, stop_after=2) == "interrupted"
    run.ask("expire")
    assert runs.train(run) == "expired"
    assert (run.model / "tuned.json").is_file()


def test_a_paused_run_that_is_asked_to_expire_ends(runs: Runs) -> None:
    """A paused run keeps its device, which is paid for."""
    run = runs.make(rows=sums(6))
    run.ask("pause")
    has_ended = threading.Event()

    def expire_in_pause() -> None:
        while (read_json(run.status) or {}).get("state") != "paused" and not has_ended.wait(0.02):
            pass
        run.ask("expire")
        if not has_ended.wait(30):
            run.ask("cancel")

    with ThreadPoolExecutor(1) as pool:
        pool.submit(expire_in_pause)
        try:
            assert runs.train(run) == "expired"
        finally:
            has_ended.set()


def test_the_time_limit_expires_the_run_and_leaves_a_model(runs: Runs) -> None:
    run = runs.make(
        held_out=sums(4), limits={"max_time": 0.5}, hyperparameters={"max_steps": 100_000}, validation={"every": 5}
    )
    assert runs.train(run) == "expired"
    status = read_json(run.status)
    step = status["step"]
    assert 0 < step < 100_000
    assert status["detail"] == f"max_time of 0.5 s was reached at step {step}"
    assert read_json(run.model / "tuned.json")["step"] in {m["step"] for m in metrics(run, "validation")}


def test_test_rows_are_measured_with_the_model_that_is_kept(runs: Runs) -> None:
    held_out = sums(6, seed=3)
    run = runs.make(
        rows=sums(8),
        held_out=held_out,
        test=held_out,
        adapter=FULL,
        hyperparameters={"max_steps": 30, "learning_rate": 3e-2},
        validation={"every": 3},
    )
    runs.train(run)
    best = min(m["values"]["loss"] for m in metrics(run, "validation"))
    assert best < metrics(run, "validation")[-1]["values"]["loss"], "the best must not be the last here"
    (last,) = metrics(run, "test")
    assert last["values"]["loss"] == pytest.approx(best, rel=1e-6)


def test_a_loss_that_is_no_number_is_called_diverged(runs: Runs) -> None:
    run = runs.make(adapter=FULL, hyperparameters={"max_steps": 200, "learning_rate": 1e30, "max_grad_norm": 0.0})
    with pytest.raises(TrainingProblem, match="at step") as caught:
        runs.train(run)
    assert caught.value.code == "diverged"


def test_norms_and_biases_are_not_decayed(runs: Runs) -> None:
    from cloudtune_trainer.batches import schedule_of
    from cloudtune_trainer.layer_schedule import LayerSchedule
    from cloudtune_trainer.optimizer import optimizer_for
    from cloudtune_trainer.run_spec import Hyperparameters
    from cloudtune_trainer.spec_trained import Layers

    steps = schedule_of([1], batch_size=1, capacity=1, packing=False, epochs=1, max_steps=None, seed=0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3))
    layers = LayerSchedule(model, Layers(), 1e-3, steps)
    optimizer = optimizer_for(layers, Hyperparameters(weight_decay=0.1), torch.device("cpu"))
    decayed = [tuple(p.shape) for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]]
    assert decayed == [(3, 3)]


def test_rows_that_do_not_fit_are_reported(runs: Runs) -> None:
    long = {"messages": [{"role": "user", "content": "word " * 200}, {"role": "assistant", "content": "yes"}]}
    run = runs.make(rows=[*sums(4), long], hyperparameters={"max_steps": 1})
    runs.train(run)
    (warning,) = events(run, "warning")
    assert "1 rows dropped" in warning["message"]
    assert warning["data"]["rows"] == [5]
