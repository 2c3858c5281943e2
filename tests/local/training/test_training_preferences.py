"""Preference training: the trained tokens, reference values of the losses, exact resume, and a model that learns."""

from __future__ import annotations

import math
import random
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F

from cloudtune_trainer import models
from cloudtune_trainer.folder import read_json
from cloudtune_trainer.models import BaseModel, load_tokenizer
from cloudtune_trainer.packing import enable_packed_attention
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.run_spec import Adapter, DataFiles, ModelSource, Preference, RunSpec
from cloudtune_trainer.tasks.causal_lm import CausalLM
from cloudtune_trainer.tasks.pairs import encode_pairs
from cloudtune_trainer.tasks.preference import Preferences
from cloudtune_trainer.tasks.table import task_for

from .conftest import Rows, Runs, events, metrics, same_bits, weights

if TYPE_CHECKING:
    from pathlib import Path

LIMIT_S = 280
FULL, LORA = {"type": "full"}, {"type": "lora", "rank": 4, "dropout": 0.2}
DIALOGUE = {
    "messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "Let me think."},
                 {"role": "user", "content": "Go on."}],
    "chosen": [{"role": "assistant", "content": "Two, it is."}],
    "rejected": [{"role": "assistant", "content": "It is three, I am quite sure of it."}],
}  # fmt: skip


def pairs(count: int, *, seed: int = 0, swapped: bool = False) -> Rows:
    """Sums with a brief answer and a wordy one; the brief one is liked."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        a, b = rng.randrange(30), rng.randrange(30)
        brief, wordy = f"{a + b}.", f"What a fine question! Well, {a} plus {b} is {a + b}."
        good, bad = (wordy, brief) if swapped else (brief, wordy)
        row: dict[str, Any] = {"messages": [{"role": "user", "content": f"What is {a} plus {b}?"}]}
        row |= {
            name: [{"role": "assistant", "content": words}] for name, words in (("chosen", good), ("rejected", bad))
        }
        rows.append(row)
    return rows


def terms(**changes: Any) -> dict[str, Any]:
    return {"loss": "sigmoid", "beta": 0.2, "label_smoothing": 0.0, "margin": 0.0} | changes


def spec_of(adapter: dict[str, Any], *, method: str = "dpo", **hyper: Any) -> dict[str, Any]:
    return {
        "method": method, "preference": terms(), "adapter": adapter, "seed": 7, "checkpoints": {"every": 100},
        "hyperparameters": {"packing": False, "batch_size": 4, **hyper},
    }  # fmt: skip


def values(runs_metrics: list[dict[str, Any]], name: str) -> list[float]:
    return [line["values"][name] for line in runs_metrics]


# -- what is learnt of a pair ------------------------------------------------------------------------------------------


def test_only_the_answers_are_learnt(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(BaseModel(str(tiny_model)))
    found = encode_pairs([DIALOGUE], tokenizer, loss_on="assistant", max_length=999)
    assert len(found) == 1
    for (begin, end), name in zip(found.sides(0), ("chosen", "rejected"), strict=True):
        ids, learn = found.ids[begin:end], found.learn[begin:end]
        assert tokenizer.decode(ids[learn]) == DIALOGUE[name][0]["content"] + "<|im_end|>"
        requested = tokenizer.decode(ids[~learn])
        assert "Let me think." in requested
        assert requested.endswith("<|im_start|>assistant\n")
    assert found.lengths.tolist() == [len(found.ids)]


def test_the_prompt_is_kept_and_the_answers_are_cut(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(BaseModel(str(tiny_model)))

    def encoded(rows: Rows, length: int) -> Any:
        return encode_pairs(rows, tokenizer, loss_on="assistant", max_length=length)

    whole = encoded([DIALOGUE], 999)
    (begin, middle), _ = whole.sides(0)
    requested = int((~whole.learn[begin:middle]).sum())
    cut = encoded([DIALOGUE], requested + 4)
    assert cut.cuts.truncated == [1]
    assert [cut.learn[a:b].sum() for a, b in cut.sides(0)] == [4, 4]
    assert cut.cuts.lost_tokens == int(whole.learn.sum()) - 8
    short = {**DIALOGUE, "messages": [{"role": "user", "content": "?"}]}
    assert encoded([DIALOGUE, short], requested).cuts.dropped == [1]
    with pytest.raises(TrainingProblem, match="1 rows exceed max_length"):
        encoded([DIALOGUE], requested)
    longer = {**DIALOGUE, "rejected": [{"role": "assistant", "content": DIALOGUE["chosen"][0]["content"] + " Yes!"}]}
    # nothing tells the two apart in what is left of them: the pair would teach nothing
    assert encoded([longer, short], requested + 2).cuts.dropped == [1]


def test_pairs_that_teach_nothing_are_left_out(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(BaseModel(str(tiny_model)))
    same = {**DIALOGUE, "rejected": DIALOGUE["chosen"]}
    mute = {**DIALOGUE, "chosen": [{**DIALOGUE["chosen"][0], "weight": 0}]}
    found = encode_pairs([same, DIALOGUE, mute], tokenizer, loss_on="assistant", max_length=999)
    assert len(found) == 1
    assert found.cuts.unlearnt == [1, 3]
    with pytest.raises(TrainingProblem, match='row 2: a preference pair requires "messages", "chosen" and "rejected"'):
        encode_pairs([DIALOGUE, {"messages": DIALOGUE["messages"]}], tokenizer, loss_on="assistant", max_length=99)


def test_each_method_refuses_the_others_rows(runs: Runs) -> None:
    for name, given in (
        ("conversations", spec_of(FULL)),
        ("pairs", {"rows": pairs(4), "method": "sft"}),
        ("halves", {"rows": [{k: v for k, v in DIALOGUE.items() if k != "rejected"}], **spec_of(FULL)}),
    ):
        with pytest.raises(TrainingProblem) as caught:
            runs.train(runs.make(name, **given))
        assert caught.value.code == "bad_data", name


def test_a_spec_that_does_not_fit_its_method_is_refused(runs: Runs) -> None:
    wrong = {
        "without": {"method": "dpo"},
        "needless": {"method": "sft", "preference": terms()},
        "packed": spec_of(FULL) | {"hyperparameters": {"packing": True}},
        "all": spec_of(FULL) | {"loss_on": "all"},
        "smoothing": spec_of(FULL) | {"preference": terms(label_smoothing=0.5)},
        "beta": spec_of(FULL) | {"preference": terms(beta=0.0)},
    }
    for name, given in wrong.items():
        with pytest.raises(TrainingProblem) as caught:
            runs.train(runs.make(name, rows=pairs(4), **given))
        assert caught.value.code == "bad_spec", name


# -- the losses, against the plainest way to compute them --------------------------------------------------------------


def loaded(folder: Path, adapter: dict[str, Any], method: str, **of_terms: Any) -> tuple[Any, Any, Preferences]:
    """The tiny model, moved away from its start; what is trained, adapter included; and the task of the method."""
    spec = RunSpec(
        version=1, model=ModelSource(source="folder", path=str(folder)), data=DataFiles(train="t"),
        method=method, adapter=Adapter(**adapter), preference=Preference(**terms(**of_terms)),
    )  # fmt: skip
    base = BaseModel(str(folder))
    network = models.load_model(base, dtype=torch.float32)
    task = task_for(spec)
    model = models.make_trainable(network, spec, base, None)
    task.packed = enable_packed_attention(network) is None
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    assert isinstance(task, Preferences)
    return network, model, task


def by_hand(network: Any, found: Any) -> torch.Tensor:
    """Log-probabilities of all answers, [pairs, 2], token by token, each sequence alone and in full."""
    network.set_attn_implementation("eager")
    rows = []
    for index in range(len(found)):
        sides = []
        for begin, end in found.sides(index):
            ids = torch.from_numpy(found.ids[begin:end].astype("int64"))
            scores = F.log_softmax(network(input_ids=ids[None], use_cache=False).logits[0].float(), -1)
            places = [place for place in range(1, len(ids)) if found.learn[begin + place]]
            sides.append(torch.stack([scores[place - 1, ids[place]] for place in places]).sum())
        rows.append(torch.stack(sides))
    return torch.stack(rows)


def loss_by_hand(kind: str, beta: float, now: torch.Tensor, start: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    (good, bad), (good0, bad0), (n, m) = now.unbind(1), start.unbind(1), lengths.unbind(1)
    if kind == "sigmoid":
        return torch.log(1 + torch.exp(-beta * ((good - good0) - (bad - bad0))))
    if kind == "smoothed":
        gap = beta * ((good - good0) - (bad - bad0))
        return 0.9 * torch.log(1 + torch.exp(-gap)) + 0.1 * torch.log(1 + torch.exp(gap))
    if kind == "hinge":
        return torch.clamp(1 - beta * ((good - good0) - (bad - bad0)), min=0)
    if kind == "ipo":
        return ((good - good0) / n - (bad - bad0) / m - 1 / (2 * beta)) ** 2
    if kind == "simpo":
        return torch.log(1 + torch.exp(-(beta * (good / n - bad / m) - 0.5)))
    p, q = torch.exp(good / n), torch.exp(bad / m)
    return -good / n + beta * torch.log(1 + (q / (1 - q)) / (p / (1 - p)))


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "sigmoid": ("dpo", {}), "smoothed": ("dpo", {"label_smoothing": 0.1}), "hinge": ("dpo", {"loss": "hinge"}),
    "ipo": ("ipo", {}), "simpo": ("simpo", {"margin": 0.5}), "orpo": ("orpo", {}),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradient_are_those_of_the_formula(tiny_model: Path, kind: str) -> None:
    method, changes = KINDS[kind]
    network, model, task = loaded(tiny_model, {"type": "lora", "rank": 4}, method, **changes)
    found = task.encode([*pairs(4), DIALOGUE], load_tokenizer(BaseModel(str(tiny_model))))
    sums = task.forward(model, task.collate(found, range(5)))
    sums.loss.backward()
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    gradients = {name: p.grad.clone() for name, p in trained.items()}
    network.zero_grad()

    with model.disable_adapter(), torch.no_grad():
        start = by_hand(network, found)
    now = by_hand(network, found)
    lengths = torch.tensor([[found.learn[a:b].sum() for a, b in found.sides(i)] for i in range(5)])
    expected = loss_by_hand(kind, 0.2, now, start, lengths)
    torch.testing.assert_close(sums.loss, expected.sum(), rtol=1e-4, atol=1e-5)
    expected.sum().backward()
    assert gradients
    for name, parameter in trained.items():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-5, msg=name)
    figures = task.metrics(sums.loss.item(), sums.metric_sums.tolist(), sums.count)
    referred = method in ("dpo", "ipo")
    rewards = 0.2 * (now - start if referred else now / lengths)
    assert figures["rewards/chosen"] == pytest.approx(rewards[:, 0].mean().item(), rel=1e-3)
    assert figures["rewards/rejected"] == pytest.approx(rewards[:, 1].mean().item(), rel=1e-3)
    assert figures["margin"] == pytest.approx(figures["rewards/chosen"] - figures["rewards/rejected"])
    assert figures["accuracy"] == pytest.approx((rewards[:, 0] > rewards[:, 1]).float().mean().item())
    assert figures["preferred"] == pytest.approx(((now / lengths)[:, 0] > (now / lengths)[:, 1]).float().mean().item())
    assert figures.get("base_preferred") == (
        pytest.approx(((start / lengths)[:, 0] > (start / lengths)[:, 1]).float().mean().item()) if referred else None
    )


def test_an_answer_that_is_certain_has_finite_odds(tiny_model: Path) -> None:
    _, _, task = loaded(tiny_model, {"type": "lora"}, "orpo")
    average = torch.tensor([0.0, -30.0, -1e-8, -40.0], requires_grad=True)
    losses = task._losses(average, average, average)
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert torch.isfinite(average.grad).all()


def test_padded_rows_say_the_same_as_end_to_end(tiny_model: Path) -> None:
    network, model, task = loaded(tiny_model, {"type": "lora", "rank": 4}, "dpo")
    found = task.encode([*pairs(3), DIALOGUE], load_tokenizer(BaseModel(str(tiny_model))))
    together = task.forward(model, task.collate(found, [2, 0, 3]))
    task.packed = False
    network.set_attn_implementation("sdpa")
    padded = task.forward(model, task.collate(found, [2, 0, 3]))
    torch.testing.assert_close(padded.loss, together.loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(padded.metric_sums, together.metric_sums, rtol=1e-4, atol=1e-5)


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", [LORA, FULL], ids=["lora", "full"])
def test_the_first_loss_is_that_of_no_preference(runs: Runs, adapter: dict[str, Any]) -> None:
    """Model and reference are the same then, dropout aside."""
    run = runs.make(rows=pairs(8), **spec_of(adapter | ({} if adapter is FULL else {"dropout": 0.0}), max_steps=1))
    assert runs.train(run) == "succeeded"
    first = metrics(run)[0]["values"]
    assert first["loss"] == pytest.approx(math.log(2), abs=2e-5)
    assert first["margin"] == pytest.approx(0, abs=2e-4)
    assert first["preferred"] == first["base_preferred"]
    assert set(first) >= {"rewards/chosen", "rewards/rejected", "accuracy", "learning_rate", "grad_norm"}


@pytest.mark.parametrize("adapter", [LORA, FULL], ids=["lora", "full"])
def test_resumed_in_the_middle_is_equal_to_the_bit(runs: Runs, adapter: dict[str, Any]) -> None:
    """Also the reference, which is what the weights said at the start and not at the stop."""
    hyper = {"epochs": 2, "dropout": 0.1, "gradient_accumulation_steps": 2, "batch_size": 3}
    spec = spec_of(adapter, **hyper) | {"held_out": pairs(5, seed=5), "validation": {"every": 4}}
    unbroken, broken = (runs.make(name, rows=pairs(10), **spec) for name in ("unbroken", "broken"))
    assert runs.train(unbroken) == "succeeded"
    assert runs.train(broken, stop_after=3) == "interrupted"
    assert runs.train(broken) == "succeeded"
    assert same_bits(weights(unbroken.model), weights(broken.model))
    for split in ("train", "validation"):
        one, other = (metrics(run, split) for run in (unbroken, broken))
        assert values(one, "loss") == values(other, "loss")
        assert values(one, "rewards/chosen") == values(other, "rewards/chosen")
    child = runs.make("child", rows=pairs(10), **spec, resume_from=str(broken.checkpoints / "step-00000008"))
    assert runs.train(child) == "succeeded"
    assert same_bits(weights(unbroken.model), weights(child.model))


@pytest.mark.soak
@pytest.mark.starts_trainer
@pytest.mark.timeout(600)
@pytest.mark.parametrize("adapter", [LORA, FULL], ids=["lora", "full"])
def test_killed_and_started_again_is_equal_to_the_bit(runs: Runs, adapter: dict[str, Any]) -> None:
    """As a program of its own, by SIGKILL; the checkpoint before the kill is where it goes on."""
    spec = spec_of(adapter, max_steps=40) | {"checkpoints": {"every": 2}}
    unbroken, killed = (runs.make(name, rows=pairs(10), **spec) for name in ("unbroken", "killed"))
    assert runs.start(unbroken).wait(LIMIT_S) == 0
    for reached in (5, 17):
        process, limit = runs.start(killed), time.monotonic() + LIMIT_S
        while not any(line["step"] >= reached for line in metrics(killed)):
            assert time.monotonic() < limit
            time.sleep(0.01)
        process.kill()
        process.wait()
    assert runs.start(killed).wait(LIMIT_S) == 0
    assert len(events(killed, "message")) > len(events(unbroken, "message")), "it went on from a checkpoint"
    assert same_bits(weights(unbroken.model), weights(killed.model))


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_has_the_same_gradient(runs: Runs, parts: int) -> None:
    """A mean over pairs: answers of different lengths weigh the same."""
    rows = [*pairs(3), DIALOGUE]

    def step(name: str, accumulation: int) -> dict[str, float]:
        hyper = {"max_steps": 1, "gradient_accumulation_steps": accumulation, "max_grad_norm": 0.0}
        run = runs.make(name, rows=rows, **spec_of(FULL, **hyper))
        runs.train(run)
        return metrics(run)[0]["values"]

    whole, split = step("whole", 1), step("split", parts)
    assert split["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-4)
    assert split["loss"] == pytest.approx(whole["loss"], rel=1e-5)


@pytest.mark.parametrize("adapter", [LORA, FULL], ids=["lora", "full"])
def test_saving_memory_changes_nothing(runs: Runs, adapter: dict[str, Any]) -> None:
    """Activations computed again, and half the precision: the first within float noise, the second nearly."""
    given = adapter if adapter is FULL else adapter | {"dropout": 0.0}

    def curve(name: str, **hyper: Any) -> list[float]:
        run = runs.make(name, rows=pairs(8), **spec_of(given, max_steps=3, **hyper))
        assert runs.train(run) == "succeeded"
        return values(metrics(run), "loss")

    plain = curve("plain")
    assert curve("again", gradient_checkpointing=True) == pytest.approx(plain, rel=1e-5)
    assert curve("half", precision="bf16") == pytest.approx(plain, abs=0.15)
    assert plain[-1] < plain[0]


@pytest.mark.parametrize(("method", "adapter"), [
    ("dpo", LORA), ("orpo", FULL),
    *[pytest.param(*one, marks=pytest.mark.soak) for one in (("dpo", FULL), ("ipo", FULL), ("simpo", LORA))],
], ids=str)  # fmt: skip
def test_a_preference_is_learnt_and_holds_for_rows_not_seen(runs: Runs, method: str, adapter: dict[str, Any]) -> None:
    hyper = {"epochs": 4, "batch_size": 8, "learning_rate": 2e-3 if adapter is FULL else 1e-2}
    run = runs.make(
        rows=pairs(32),
        held_out=pairs(16, seed=9),
        test=pairs(12, seed=11),
        **spec_of(adapter, method=method, **hyper),
    )
    assert runs.train(run) == "succeeded"
    (tested,) = metrics(run, "test")
    best = min(values(metrics(run, "validation"), "loss"))
    assert metrics(run)[0]["values"]["loss"] > best
    assert tested["values"]["accuracy"] == 1.0
    assert tested["values"]["margin"] > 0
    assert read_json(run.model / "tuned.json")["method"] == method
    measured = any(event["message"] == "loading: reference" for event in events(run, "state"))
    assert measured is (method in ("dpo", "ipo") and adapter is FULL)


def test_swapped_labels_are_the_control(runs: Runs) -> None:
    """The same training on the same words, the wrong way round: what is held out is then liked less."""
    hyper = {"epochs": 4, "batch_size": 8, "learning_rate": 2e-3}
    held_out = pairs(16, seed=9)
    right = runs.make("right", rows=pairs(32), held_out=held_out, **spec_of(FULL, **hyper))
    wrong = runs.make("wrong", rows=pairs(32, swapped=True), held_out=held_out, **spec_of(FULL, **hyper))
    runs.train(right)
    runs.train(wrong)
    good, bad = (metrics(run, "validation")[-1]["values"] for run in (right, wrong))
    assert (good["accuracy"], bad["accuracy"]) == (1.0, 0.0)
    assert bad["margin"] < 0 < good["margin"]
    assert good["loss"] < math.log(2) < bad["loss"]


def test_a_signal_is_heard_while_the_base_model_is_measured(runs: Runs) -> None:
    run = runs.make(rows=pairs(12), **spec_of(FULL))
    from cloudtune_trainer.program import run_training
    from cloudtune_trainer.reporting import Report
    from cloudtune_trainer.run_spec import read_spec

    report = Report(run)
    stopping = lambda: read_json(run.status).get("detail") == "reference"  # noqa: E731
    outcome, _ = run_training(run, read_spec(read_json(run.spec)), report, stopping)
    assert outcome == "interrupted"
    assert not metrics(run)


def test_other_methods_have_a_task_of_their_own() -> None:
    spec = RunSpec(version=1, model=ModelSource(source="folder", path="/m"), data=DataFiles(train="t"))
    assert isinstance(task_for(spec), CausalLM)
