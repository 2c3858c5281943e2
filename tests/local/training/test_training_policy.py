"""Policy optimization: sampling, advantages and losses by their formulas, exact resume, and a reward that rises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from cloudtune_trainer import checkpoints, models
from cloudtune_trainer.advantages import generalized_advantages, group_advantages, leave_one_out_advantages
from cloudtune_trainer.completions import Completions, with_completions
from cloudtune_trainer.devices import Devices
from cloudtune_trainer.models import BaseModel, load_tokenizer
from cloudtune_trainer.policy_spec import Policy, Reward
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.rollouts import Sampler, Settings, _Draw, encode_prompts
from cloudtune_trainer.run_spec import Adapter, DataFiles, Hyperparameters, ModelSource, RunSpec
from cloudtune_trainer.tasks import policy_optimization
from cloudtune_trainer.tasks.policy_optimization import PolicyOptimization
from cloudtune_trainer.tasks.table import task_for

from .conftest import Rows, Runs, metrics, same_bits, weights

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FULL, LORA = {"type": "full"}, {"type": "lora", "rank": 4, "dropout": 0.2}
REWARDS = """
import random

def letters(prompts, completions, letter, **columns):
    return [sum(c == a for c in words[0]["content"]) / 8 for words, a in zip(completions, letter)]

def shuffled(prompts, completions, letter):
    found = letters(prompts, completions, letter)
    random.Random(0).shuffle(found)
    return found
"""


def items(count: int) -> Rows:
    return [
        {"messages": [{"role": "user", "content": f"Say {'so ' * (n % 3)}{n}"}], "fields": {"letter": "e"}}
        for n in range(count)
    ]


@pytest.fixture
def rewards(tmp_path: Path) -> Path:
    file = tmp_path / "rewards.py"
    file.write_text(REWARDS, encoding="utf-8")
    return file


def spec_of(file: Path, adapter: dict[str, Any], *, method: str = "grpo", function: str = "letters",
            policy: dict[str, Any] | None = None, **hyper: Any) -> dict[str, Any]:  # fmt: skip
    terms = {"reward": {"function": f"{file}:{function}"}, "num_generations": 4, "max_new_tokens": 6}
    return {
        "method": method, "policy": terms | (policy or {}), "adapter": adapter, "seed": 7,
        "checkpoints": {"every": 100}, "hyperparameters": {"packing": False, "batch_size": 2, **hyper},
    }  # fmt: skip


# -- advantages --------------------------------------------------------------------------------------------------------


def test_advantages_are_those_of_the_papers() -> None:
    rewards = np.random.default_rng(0).normal(size=(3, 5))
    scaled, centered, left_out = np.zeros((3, 3, 5))
    for group in range(3):
        values = rewards[group]
        deviation = (sum((r - sum(values) / 5) ** 2 for r in values) / 4) ** 0.5
        for i in range(5):
            centered[group, i] = values[i] - sum(values) / 5
            scaled[group, i] = centered[group, i] / (deviation + 1e-4)
            left_out[group, i] = values[i] - sum(values[j] for j in range(5) if j != i) / 4
    np.testing.assert_allclose(group_advantages(rewards, scaled=True), scaled, rtol=1e-12)
    np.testing.assert_allclose(group_advantages(rewards, scaled=False), centered, rtol=1e-12)
    np.testing.assert_allclose(leave_one_out_advantages(rewards), left_out, rtol=1e-12)
    assert not group_advantages(np.ones((2, 4)), scaled=True).any(), "equal rewards teach nothing"


# -- the loss ----------------------------------------------------------------------------------------------------------


def loaded(folder: Path, adapter: dict[str, Any], method: str, **terms: Any) -> tuple[Any, Any, PolicyOptimization]:
    """The tiny model, moved away from its start; what is trained, adapter included; and the task of the method."""
    spec = RunSpec(
        version=2, model=ModelSource(source="folder", path=str(folder)), data=DataFiles(train="t"), method=method,
        adapter=Adapter(**adapter), hyperparameters=Hyperparameters(max_length=96, batch_size=4),
        policy=Policy(reward=Reward(function="math:sqrt"), num_generations=3, max_new_tokens=8, **terms),
    )  # fmt: skip
    task, base = task_for(spec), BaseModel(str(folder))
    assert isinstance(task, PolicyOptimization)
    network = task.load_model(base, load_tokenizer(base), tuple, dtype=torch.float32, weights=None, dropout=0.0)
    model = models.make_trainable(network, spec, base, None)
    moved(network)
    return network, model, task


def moved(network: Any) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)


def sampled(folder: Path, *, figures: Sequence[str] = ("old", "reference")) -> Completions:
    """Six completions of two prompts with random figures near those of a model."""
    tokenizer = load_tokenizer(BaseModel(str(folder)))
    prompts = encode_prompts(items(2), tokenizer, max_length=96)
    rng = np.random.default_rng(6)
    tokens = [rng.integers(4, 250, size=length).tolist() for length in (1, 5, 8, 2, 8, 3)]
    made = with_completions(prompts, [1, 0], tokens, ends=[9])
    count = int(made.bounds[-1])
    figure = {name: rng.normal(-6.2, 0.3, size=count).astype(np.float32) for name in figures}
    advantages = np.repeat(rng.normal(size=6), made.tokens).astype(np.float32)
    rewards = rng.normal(size=6).astype(np.float32)
    return Completions(**vars(made) | {"rewards": rewards, "advantages": advantages, **figure})


def by_hand(network: Any, made: Completions, temperature: float) -> list[torch.Tensor]:
    """Log-probabilities of each completion's tokens, each sequence alone."""
    found = []
    for i in range(len(made)):
        ids = torch.from_numpy(made.ids[made.starts[i] : made.starts[i + 1]].astype("int64"))
        scores = F.log_softmax(network(input_ids=ids[None], use_cache=False).logits[0] / temperature, -1)
        first = len(ids) - int(made.tokens[i])
        found.append(torch.stack([scores[place - 1, ids[place]] for place in range(first, len(ids))]))
    return found


def loss_by_hand(kind: str, logps: list[torch.Tensor], made: Completions, beta: float, width: float) -> torch.Tensor:
    losses = []
    for i, now in enumerate(logps):
        cells = slice(int(made.bounds[i]), int(made.bounds[i + 1]))
        old, reference = torch.from_numpy(made.old[cells]), torch.from_numpy(made.reference[cells])
        advantage = float(made.advantages[cells][0])
        if kind == "rloo":
            ratio = torch.exp(now.sum() - old.sum())
            losses.append(-torch.min(ratio * advantage, torch.clamp(ratio, 1 - width, 1 + width) * advantage))
            continue
        ratio = torch.exp(now - old)
        kept = torch.min(ratio * advantage, torch.clamp(ratio, 1 - width, 1 + width) * advantage)
        divergence = torch.exp(reference) / torch.exp(now) - (reference - now) - 1
        losses.append(-(kept - beta * divergence))
    if kind == "tokens":
        return torch.cat(losses).mean()
    return torch.stack([loss.mean() for loss in losses]).mean()


@pytest.mark.parametrize("adapter", [FULL, LORA | {"dropout": 0.0}], ids=["full", "lora"])
@pytest.mark.parametrize("kind", ["tokens", "sequences", "rloo"])
def test_loss_and_gradient_are_those_of_the_papers(tiny_model: Path, kind: str, adapter: dict[str, Any]) -> None:
    terms: dict[str, Any] = {"beta": 0.3, "clip_range": 0.25, "temperature": 0.7, "steps_per_batch": 2}
    method = "rloo" if kind == "rloo" else "grpo"
    network, model, task = loaded(
        tiny_model, adapter, method, **terms, **({} if kind == "rloo" else {"normalization": kind})
    )
    made = sampled(tiny_model)
    whole = task.forward(model, task.collate(made, range(6)))
    (whole.loss / whole.count).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    expected = loss_by_hand(kind, by_hand(network, made, 0.7), made, 0.3, 0.25)
    expected.backward()
    torch.testing.assert_close(whole.loss / whole.count, expected, rtol=1e-5, atol=1e-6)
    assert gradients
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)

    parts = [task.forward(model, task.collate(made, part)) for part in ([0, 1], [2], [3, 4, 5])]
    assert sum(part.loss.item() for part in parts) == pytest.approx(whole.loss.item(), rel=1e-6)
    assert sum(part.count for part in parts) == whole.count
    together = task.metrics(whole.loss.item(), whole.metric_sums.tolist(), whole.count)
    assert 0 < together["clip_fraction"] < 1
    assert together["reward"] == pytest.approx(made.rewards.mean(), rel=1e-5)
    assert together["reward_std"] == pytest.approx(made.rewards.std(), rel=1e-5)
    assert together["completion_length"] == pytest.approx(27 / 6)


def test_the_first_step_of_a_batch_is_the_plain_policy_gradient(tiny_model: Path) -> None:
    network, model, task = loaded(tiny_model, FULL, "rloo", beta=0.1)
    made = sampled(tiny_model)
    task.forward(model, task.collate(made, range(6))).loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    firsts = torch.from_numpy(made.advantages[made.bounds[:-1]])
    (-firsts * torch.stack([logps.sum() for logps in by_hand(network, made, 1.0)])).sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_rloo_subtracts_the_divergence_from_the_reward(tiny_model: Path) -> None:
    _, _, task = loaded(tiny_model, FULL, "rloo", beta=0.5)
    made = task._with_advantages(sampled(tiny_model))
    scores = [
        made.rewards[i] - 0.5 * sum((made.old - made.reference)[made.bounds[i] : made.bounds[i + 1]]) for i in range(6)
    ]
    expected = leave_one_out_advantages(np.asarray(scores, dtype=np.float64).reshape(2, 3)).reshape(-1)
    np.testing.assert_allclose(made.advantages[made.bounds[:-1]], expected, rtol=1e-4)


@pytest.mark.parametrize("adapter", [FULL, LORA], ids=["full", "lora"])
def test_the_reference_is_the_initial_model(tiny_model: Path, adapter: dict[str, Any]) -> None:
    network, model, task = loaded(tiny_model, adapter, "rloo", beta=0.1)
    initial = models.load_model(BaseModel(str(tiny_model)), dtype=torch.float32)
    with torch.no_grad():
        model.eval()
        made = task._measured(model, sampled(tiny_model, figures=()), Devices("cpu", "fp32"))
        for name, source in {"reference": initial, "old": network}.items():
            if name == "old" and adapter is LORA:
                source = model
            np.testing.assert_allclose(getattr(made, name), torch.cat(by_hand(source, made, 1.0)), rtol=1e-4)


def test_prompts_have_their_tools_and_the_fields_of_all_rows(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(BaseModel(str(tiny_model)))
    tokenizer.chat_template = "{{ tools | default([], true) | length }} tools. " + tokenizer.chat_template
    tool = {"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}}
    rows = [
        items(1)[0] | {"tools": [tool]},
        items(1)[0] | {"fields": {"goal": 3}},
        {"messages": items(1)[0]["messages"]},
    ]
    prompts = encode_prompts(rows, tokenizer, max_length=96)
    texts = [tokenizer.decode(ids) for ids in prompts.rows(range(3))]
    assert [text.partition(" tools")[0] for text in texts] == ["1", "0", "0"]
    assert [record["fields"] for record in prompts.records] == [
        {"letter": "e", "goal": None}, {"letter": None, "goal": 3}, {"letter": None, "goal": None},
    ]  # fmt: skip


# -- sampling ----------------------------------------------------------------------------------------------------------


def test_tokens_are_drawn_with_the_models_probabilities() -> None:
    scores = torch.tensor([0.0, 1.0, -torch.inf, 2.0]).repeat(20_000, 1)
    draw = _Draw(np.random.default_rng(0).random((20_000, 2)), temperature=0.5)
    for _ in range(2):
        tokens = draw(torch.zeros(20_000, 1), scores).argmax(-1)
        shares = torch.bincount(tokens, minlength=4) / 20_000
        torch.testing.assert_close(shares, torch.softmax(scores[0] / 0.5, -1), atol=0.01, rtol=0)
        assert shares[2] == 0


class Part(Devices):
    """One of several processes, without the others."""

    def __init__(self, rank: int, world: int) -> None:
        super().__init__("cpu", "fp32")
        self.rank, self.world = rank, world

    def joined(self, array: Any) -> Any:
        return array


def test_samples_do_not_depend_on_batches_or_processes(tiny_model: Path) -> None:
    base = BaseModel(str(tiny_model))
    network, tokenizer = models.load_model(base, dtype=torch.float32).eval(), load_tokenizer(base)
    prompts = encode_prompts(items(5), tokenizer, max_length=40)

    def drawn(chosen: Sequence[int], budget: int, devices: Any, step: int = 0) -> list[list[int]]:
        settings = Settings(count=3, temperature=1.0, max_new_tokens=8, max_length=40, token_budget=budget,
                            seed=(1, 0, step))  # fmt: skip
        sampler = Sampler([tokenizer.eos_token_id], tokenizer.pad_token_id)
        with torch.no_grad():
            return sampler.sample(network, prompts, chosen, settings, devices, lambda: None)

    whole = drawn([4, 0, 2], 10_000, Devices("cpu", "fp32"))
    assert len({tuple(row) for row in whole}) == 9
    assert drawn([4, 0, 2], 1, Devices("cpu", "fp32")) == whole
    assert drawn([2, 4], 100, Devices("cpu", "fp32")) == whole[6:9] + whole[0:3]
    halves = [drawn([4, 0, 2], 100, Part(rank, 2)) for rank in range(2)]
    assert [one or other for one, other in zip(*halves, strict=True)] == whole
    assert any(not row for row in halves[0])
    assert any(not row for row in halves[1])
    assert drawn([4, 0, 2], 10_000, Devices("cpu", "fp32"), step=1) != whole
    lengths = prompts.lengths
    short = Settings(count=1, temperature=1.0, max_new_tokens=30, max_length=int(lengths.max()) + 2,
                     token_budget=10_000, seed=(1,))  # fmt: skip
    with torch.no_grad():
        rows = Sampler([], tokenizer.pad_token_id).sample(
            network, prompts, range(5), short, Devices("cpu", "fp32"), lambda: None
        )
    assert [len(row) for row in rows] == [min(30, int(lengths.max()) + 2 - int(length)) for length in lengths]


def test_prompts_are_rendered_as_at_inference(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(BaseModel(str(tiny_model)))
    prompts = encode_prompts(items(1), tokenizer, max_length=96)
    assert tokenizer.decode(prompts.ids) == "<|im_start|>user\nSay 0<|im_end|>\n<|im_start|>assistant\n"
    long = {"messages": [{"role": "user", "content": "word " * 99}]}
    assert encode_prompts([long, *items(1)], tokenizer, max_length=96).cuts.dropped == [1]
    answered = {"messages": [*items(1)[0]["messages"], {"role": "assistant", "content": "So."}]}
    for row, message in {
        "ends with an assistant's message": answered,
        'requires "messages"': {"text": "x"},
        '"fields" must be an object': items(1)[0] | {"fields": [1]},
        "cannot be named 'completions'": items(1)[0] | {"fields": {"completions": 1}},
    }.items():
        with pytest.raises(TrainingProblem, match=f"row 2: .*{row}"):
            encode_prompts([*items(1), message], tokenizer, max_length=96)


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "adapter"), [
    ("grpo", LORA), ("ppo", LORA), pytest.param("rloo", FULL, marks=pytest.mark.soak),
])  # fmt: skip
def test_resumed_within_a_batch_is_equal_to_the_bit(
    runs: Runs, rewards: Path, method: str, adapter: dict[str, Any]
) -> None:
    spec = spec_of(rewards, adapter, method=method, policy={"steps_per_batch": 2}, max_steps=6, dropout=0.1,
                   gradient_accumulation_steps=2) | {
        "held_out": items(2), "validation": {"every": 3},
    }  # fmt: skip
    unbroken, broken = runs.make("unbroken", rows=items(5), **spec), runs.make("broken", rows=items(5), **spec)
    assert runs.train(unbroken) == "succeeded"
    assert runs.train(broken, stop_after=3) == "interrupted"
    assert runs.train(broken) == "succeeded"
    assert same_bits(weights(unbroken.model), weights(broken.model))
    for split in ("train", "validation"):
        figures = [
            [(m["values"]["loss"], m["values"]["reward"], m["values"]["kl"]) for m in metrics(run, split)]
            for run in (unbroken, broken)
        ]
        assert figures[0] == figures[1]
    found = [m["values"] for m in metrics(unbroken)]
    assert found[0]["reward"] == found[1]["reward"], "two steps use the same completions"
    assert found[1]["reward_std"] != found[2]["reward_std"], "and the next two other ones"


@pytest.mark.parametrize("parts", [2, 3])
def test_a_batch_in_parts_has_the_same_loss(runs: Runs, rewards: Path, parts: int) -> None:
    found = []
    for accumulation in (1, parts):
        spec = spec_of(rewards, FULL, max_steps=1, batch_size=4, gradient_accumulation_steps=accumulation)
        run = runs.make(f"parts-{accumulation}", rows=items(4), **spec)
        runs.train(run)
        found.append(metrics(run)[0]["values"])
    for name in ("loss", "reward", "completion_length", "truncated"):
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-6, abs=1e-7)
    assert found[0]["grad_norm"] == pytest.approx(found[1]["grad_norm"], rel=1e-5)


@pytest.mark.parametrize("method", ["grpo", "ppo", pytest.param("rloo", marks=pytest.mark.soak)])
def test_the_reward_rises_and_a_shuffled_one_does_not(runs: Runs, rewards: Path, method: str) -> None:
    rise = {}
    for function in ("letters", "shuffled"):
        spec = spec_of(rewards, FULL, method=method, function=function, policy={"num_generations": 8, "beta": 0.01,
                       "max_new_tokens": 8}, max_steps=15, batch_size=4, learning_rate=2e-2)  # fmt: skip
        run = runs.make(function, rows=items(8), **spec)
        assert runs.train(run) == "succeeded"
        measured = [m["values"]["reward"] for m in metrics(run)]
        rise[function] = np.mean(measured[-3:]) - np.mean(measured[:3])
    assert rise["letters"] > 0.5
    assert abs(rise["shuffled"]) < 0.1


@pytest.mark.parametrize("failing", ["sample", "measure"])
def test_completions_are_made_in_smaller_parts(
    runs: Runs, rewards: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """Each completion has random numbers of its own, so the completions stay the same."""
    terms = spec_of(rewards, {"type": "lora", "rank": 4}, max_steps=2, batch_size=4)
    whole = runs.make("whole", rows=items(4), held_out=items(2), **terms)
    runs.train(whole)
    sizes: list[int] = []

    def limited(budget: int) -> None:
        sizes.append(budget // 96)
        if budget > 96 * 4:
            raise MemoryError

    sample, by_token = Sampler.sample, policy_optimization.by_token

    def sampled(self: Any, network: Any, prompts: Any, chosen: Any, settings: Any, *more: Any) -> Any:
        limited(settings.token_budget)
        return sample(self, network, prompts, chosen, settings, *more)

    def measured(made: Any, devices: Any, figures: Any, budget: int) -> Any:
        limited(budget)
        return by_token(made, devices, figures, budget)

    if failing == "sample":
        monkeypatch.setattr(Sampler, "sample", sampled)
    else:
        monkeypatch.setattr(policy_optimization, "by_token", measured)
    split = runs.make("split", rows=items(4), held_out=items(2), **terms)
    assert runs.train(split) == "succeeded"
    assert sizes[:3] == [16, 8, 4]
    assert set(sizes[3:]) == {4}
    for name in ("train", "validation"):
        for one, other in zip(metrics(whole, name), metrics(split, name), strict=True):
            assert other["values"]["reward"] == pytest.approx(one["values"]["reward"], abs=1e-6)
            assert other["values"]["loss"] == pytest.approx(one["values"]["loss"], abs=1e-5)


def test_the_best_validation_reward_is_kept(runs: Runs, rewards: Path) -> None:
    spec = spec_of(rewards, FULL, policy={"beta": 0.0}, max_steps=6, learning_rate=2e-2) | {"validation": {"every": 1}}
    run = runs.make(rows=items(4), held_out=items(3), **spec)
    assert runs.train(run) == "succeeded"
    from cloudtune_trainer.folder import read_json

    measured = [(m["values"]["reward"], -m["step"]) for m in metrics(run, "validation")]
    assert read_json(run.model / "tuned.json")["step"] == -max(measured)[1]
    assert "kl" not in metrics(run)[0]["values"], "without beta there is no reference"


# -- ppo ---------------------------------------------------------------------------------------------------------------


def test_advantages_follow_the_textbook_recursion() -> None:
    rng = np.random.default_rng(0)
    bounds = np.asarray([0, 4, 5, 11])
    rewards, values = rng.normal(size=11), rng.normal(size=11)
    expected = np.zeros(11)
    for begin, end in ((0, 4), (4, 5), (5, 11)):
        for t in range(begin, end):  # the sum of discounted errors, not the recursion
            for later in range(t, end):
                error = rewards[later] + 0.9 * (values[later + 1] if later + 1 < end else 0.0) - values[later]
                expected[t] += (0.9 * 0.7) ** (later - t) * error
    np.testing.assert_allclose(generalized_advantages(rewards, values, bounds, discount=0.9, decay=0.7), expected)


@pytest.mark.parametrize("adapter", [FULL, LORA | {"dropout": 0.0}], ids=["full", "lora"])
def test_loss_and_gradient_of_ppo(tiny_model: Path, adapter: dict[str, Any]) -> None:
    terms: dict[str, Any] = {"beta": 0.3, "clip_range": 0.25, "steps_per_batch": 2, "value_coefficient": 0.4}
    network, model, task = loaded(tiny_model, adapter, "ppo", **terms)
    moved(task.head)
    made = sampled(tiny_model)
    rng = np.random.default_rng(1)
    figures = {name: rng.normal(size=27).astype(np.float32) for name in ("advantages", "values", "returns")}
    made = Completions(**vars(made) | figures)
    whole = task.forward(model, task.collate(made, range(6)))
    (whole.loss / whole.count).backward()
    trained = [*model.named_parameters(), *task.head.named_parameters()]
    gradients = {name: p.grad.clone() for name, p in trained if p.grad is not None}
    model.zero_grad()
    task.head.zero_grad()

    losses, of_value = [], []
    for i in range(6):
        ids = torch.from_numpy(made.ids[made.starts[i] : made.starts[i + 1]].astype("int64"))
        out = network(input_ids=ids[None], use_cache=False, output_hidden_states=True)
        scores, values = F.log_softmax(out.logits[0], -1), task.head(out.hidden_states[-1][0])[:, 0]
        first = len(ids) - int(made.tokens[i])
        for n, place in enumerate(range(first, len(ids)), int(made.bounds[i])):
            ratio = torch.exp(scores[place - 1, ids[place]] - float(made.old[n]))
            kept = torch.min(ratio * made.advantages[n], ratio.clamp(0.75, 1.25) * made.advantages[n])
            value, before, goal = values[place - 1], float(made.values[n]), float(made.returns[n])
            near = before + torch.clamp(value - before, -0.25, 0.25)
            of_value.append(0.5 * torch.max((value - goal) ** 2, (near - goal) ** 2))
            losses.append(-kept + 0.4 * of_value[-1])
    expected = torch.stack(losses).mean()
    expected.backward()
    torch.testing.assert_close(whole.loss / whole.count, expected, rtol=1e-5, atol=1e-6)
    assert "weight" in gradients
    for name, parameter in trained:
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)
    found = task.metrics(whole.loss.item(), whole.metric_sums.tolist(), whole.count)
    assert found["value_loss"] == pytest.approx(torch.stack(of_value).mean().item(), rel=1e-5)


def test_the_reward_of_ppo_comes_last_and_every_token_is_penalized(tiny_model: Path) -> None:
    _, _, task = loaded(tiny_model, FULL, "ppo", beta=0.5, discount=0.9, decay=0.7)
    made = sampled(tiny_model)
    values = np.random.default_rng(1).normal(size=27).astype(np.float32)
    found = task._with_advantages(Completions(**vars(made) | {"values": values}))
    rewards = -0.5 * (made.old - made.reference).astype(np.float64)
    for i in range(6):
        rewards[made.bounds[i + 1] - 1] += made.rewards[i]
    plain = generalized_advantages(rewards, values.astype(np.float64), made.bounds, discount=0.9, decay=0.7)
    np.testing.assert_allclose(found.advantages, (plain - plain.mean()) / plain.std(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.returns, plain + values, rtol=1e-5, atol=1e-6)


def test_values_are_measured_with_the_samples(tiny_model: Path) -> None:
    network, model, task = loaded(tiny_model, LORA, "ppo", beta=0.1)
    assert not any(parameter.any() for parameter in task.head.parameters())
    moved(task.head)
    made = sampled(tiny_model, figures=())
    with torch.no_grad():
        model.eval()
        found = task._measured(model, made, Devices("cpu", "fp32"))
        np.testing.assert_allclose(found.old, torch.cat(by_hand(model, made, 1.0)), rtol=1e-4)
        ids = torch.from_numpy(made.ids[: made.starts[1]].astype("int64"))
        state = network(input_ids=ids[None], output_hidden_states=True).hidden_states[-1][0, -2]
        np.testing.assert_allclose(found.values[0], task.head(state), rtol=1e-4)


@pytest.mark.starts_trainer
@pytest.mark.timeout(400)  # programs start slowly on a busy machine
def test_two_processes_share_the_completions(runs: Runs, rewards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(rewards, FULL, method="ppo", policy={"num_generations": 3, "steps_per_batch": 2}, max_steps=4,
                   batch_size=3) | {"held_out": items(3), "validation": {"every": 4}}  # fmt: skip
    alone, group = runs.make("alone", rows=items(5), **spec), runs.make("group", rows=items(5), **spec)
    assert runs.train(alone) == "succeeded"
    monkeypatch.setenv("CLOUDTUNE_PROCESSES", "2")
    assert runs.start(group).wait(180) == 0, group.log.read_text()
    for split in ("train", "validation"):
        for one, other in zip(metrics(alone, split), metrics(group, split), strict=True):
            for name in ("loss", "reward", "reward_std", "kl", "completion_length", "value_loss"):
                assert one["values"][name] == pytest.approx(other["values"][name], rel=1e-3, abs=1e-5), name
    (saved,) = [one for one in checkpoints.saved_in(group.checkpoints) if one.step == 4]
    state = load_file(saved.path / checkpoints.STATE)
    assert len(state["task.rewards"]) == 6, "a checkpoint holds the completions of all processes"
