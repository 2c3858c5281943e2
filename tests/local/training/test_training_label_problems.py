"""Labels of texts that are several classes or numbers, class weights and smoothing: losses, metrics, and refusals."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForSequenceClassification

from cloudtune_trainer import models
from cloudtune_trainer.classification_spec import Classification
from cloudtune_trainer.export import export
from cloudtune_trainer.folder import read_json
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.run_spec import Adapter, DataFiles, ModelSource, RunSpec
from cloudtune_trainer.tasks.correlation import correlations
from cloudtune_trainer.tasks.sequence_classification import SequenceClassification
from cloudtune_trainer.tasks.table import open_model, task_for

from .conftest import Rows, Runs, check_gradients, metrics, same_bits, weights

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LORA = {"type": "lora", "rank": 4}
COLORS = ("red", "green", "blue")


def spec_of(problem: str, adapter: dict[str, Any] = LORA, **hyper: Any) -> dict[str, Any]:
    return {
        "method": "classification", "classification": {"problem": problem}, "adapter": adapter, "seed": 7,
        "checkpoints": {"every": 100}, "hyperparameters": {"packing": False, "batch_size": 6, **hyper},
    }  # fmt: skip


def text_of(named: Iterable[str]) -> str:
    return "; ".join(f"{color} {'yes' if color in named else 'no'}" for color in COLORS)


def colors(count: int, *, seed: int = 0) -> Rows:
    """Texts that name none to all of the colors."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        named = [color for color in COLORS if rng.random() < 0.5]
        found.append({"text": text_of(named), "label": named})
    return found


def numbers(count: int, *, seed: int = 0) -> Rows:
    """Texts with zero to four good words, and that number."""
    rng = random.Random(seed)
    return [
        {"text": " ".join(["good"] * good + ["bad"] * (4 - good)) + f" film {n}", "label": (good - 2) / 2}
        for n in range(count)
        for good in (rng.randint(0, 4),)
    ]


def loaded(folder: Path, rows: Rows, **settings: Any) -> tuple[Any, Any, Any, Any]:
    """The task, the trained model, the samples, and the tokenizer."""
    spec = RunSpec(
        version=2, model=ModelSource(source="folder", path=str(folder)), data=DataFiles(train="t"),
        method="classification", adapter=Adapter(**LORA), classification=Classification(**settings),
    )  # fmt: skip
    place = models.BaseModel(str(folder))
    task, tokenizer = task_for(spec), models.load_tokenizer(place)
    network = task.load_model(place, tokenizer, lambda: rows, dtype=torch.float32, weights=None, dropout=0.0)
    model = models.make_trainable(network, spec, place, None, task.peft_task_type)
    return task, model, task.encode(rows, tokenizer), tokenizer


@pytest.mark.parametrize("problem", ["multi_label", "regression"])
def test_loss_and_gradient_are_those_of_transformers(tiny_model: Path, problem: str) -> None:
    """transformers' own loss of the rows together; and the same loss from the rows in parts."""
    rows = colors(8) if problem == "multi_label" else numbers(8)
    task, model, samples, tokenizer = loaded(tiny_model, rows, problem=problem)
    sums = task.forward(model, task.collate(samples, range(8)))
    (sums.loss / sums.count).backward()
    own = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    inputs = tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt", padding_side="right")
    if problem == "multi_label":
        labels = torch.tensor([[float(color in row["label"]) for color in sorted(COLORS)] for row in rows])
    else:
        labels = torch.tensor([row["label"] for row in rows])
    loss = model(**{k: inputs[k] for k in ("input_ids", "attention_mask")}, labels=labels).loss
    loss.backward()
    torch.testing.assert_close(sums.loss / sums.count, loss, rtol=1e-5, atol=1e-7)
    check_gradients(model, own)
    with torch.no_grad():
        parts = [task.forward(model, task.collate(samples, part)).loss for part in ([0, 3], [1], [2, 4, 5, 6, 7])]
    torch.testing.assert_close(torch.stack(parts).sum(), sums.loss.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "factors"),
    [
        ("balanced", {"x": 8 / (2 * 6), "y": 8 / (2 * 2)}),
        ({"y": 2.5}, {"x": 1.0, "y": 2.5}),
        (None, {"x": 1.0, "y": 1.0}),
    ],
)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_and_smoothing_are_those_of_the_formula(
    tiny_model: Path, given: Any, factors: dict[str, float], smoothing: float
) -> None:
    rows = [{"text": f"text {n}", "label": "y" if n in (2, 5) else "x"} for n in range(8)]
    task, model, samples, _ = loaded(tiny_model, rows, class_weights=given, label_smoothing=smoothing)
    batch = task.collate(samples, range(8))
    sums = task.forward(model, batch)
    logps = F.log_softmax(model(**batch.inputs).logits, -1)
    expected = torch.zeros(())
    for row, (x, y) in zip(rows, logps, strict=True):
        own = x if row["label"] == "x" else y
        smooth = smoothing / 2 * (factors["x"] * x + factors["y"] * y)
        expected = expected - (1 - smoothing) * factors[row["label"]] * own - smooth
    torch.testing.assert_close(sums.loss, expected, rtol=1e-5, atol=1e-6)


def test_metrics_of_several_labels_are_those_of_the_definition() -> None:
    spec = RunSpec(
        version=2, model=ModelSource(source="folder", path="/m"), data=DataFiles(train="t"), method="classification",
        classification=Classification(problem="multi_label"),
    )  # fmt: skip
    task = SequenceClassification(spec)
    task._problem.labels = ("a", "b", "never")
    logits = torch.tensor([[1.0, 1.0, -1.0], [1.0, -1.0, -1.0], [-1.0, -1.0, -1.0], [-1.0, 1.0, -1.0]])
    targets = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 1, 0]], dtype=torch.bool)
    found = task.metrics(4.0, task._problem.sums(logits, targets).tolist(), 4)
    assert found == pytest.approx(
        {"loss": 1.0, "accuracy": 0.5, "macro_f1": 2 * 2 / (2 + 3), "micro_f1": 2 * 4 / (4 + 6)}
    )


def test_correlations_are_those_of_the_definition() -> None:
    one, other = np.asarray([1.0, 2.0, 2.0, 7.0]), np.asarray([0.5, 3.0, 1.0, 1.5])
    found = correlations(one, other)
    assert found["pearson"] == pytest.approx(np.corrcoef(one, other)[0, 1])
    assert found["spearman"] == pytest.approx(np.corrcoef([1, 2.5, 2.5, 4], [1, 4, 2, 3])[0, 1])
    assert correlations(np.ones(4), other) == {"pearson": 0.0, "spearman": 0.0}


def test_several_labels_are_learned(runs: Runs, tmp_path: Path) -> None:
    run = runs.make(rows=colors(64), held_out=colors(16, seed=1), test=colors(32, seed=2),
                    **spec_of("multi_label", epochs=8, learning_rate=1e-2))  # fmt: skip
    assert runs.train(run) == "succeeded"
    (tested,) = metrics(run, "test")
    assert tested["values"]["micro_f1"] > 0.9
    tuned = read_json(run.model / "tuned.json")
    assert (tuned["problem"], tuned["labels"]) == ("multi_label", ["blue", "green", "red"])
    model = open_model(run.model)
    both, none = model.predict([text_of(["red", "blue"]), text_of([])])
    assert set(both.text.split(", ")) == {"red", "blue"}
    assert both.scores is not None
    assert both.scores["red"] > 0.5 > both.scores["green"]
    assert none.text == ""
    export(run.model, tmp_path / "merged", merged=True)
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").config.problem_type == (
        "multi_label_classification"
    )
    (merged,) = open_model(tmp_path / "merged").predict([text_of(["red", "blue"])])
    assert merged.scores == pytest.approx(both.scores, abs=1e-4)


def test_numbers_are_learned(runs: Runs, tmp_path: Path) -> None:
    run = runs.make(rows=numbers(64), held_out=numbers(16, seed=1), test=numbers(32, seed=2),
                    **spec_of("regression", epochs=6, learning_rate=1e-2))  # fmt: skip
    assert runs.train(run) == "succeeded"
    (tested,) = metrics(run, "test")
    assert tested["values"]["loss"] < 0.1, "the labels' variance is 0.5"
    assert tested["values"]["pearson"] > 0.9
    assert tested["values"]["spearman"] > 0.9
    model = open_model(run.model)
    low, high = model.predict(["bad bad bad bad film 1", "good good good good film 1"])
    assert low.value is not None
    assert high.value is not None
    assert low.value < -0.5 < 0.5 < high.value
    assert float(high.text) == pytest.approx(high.value, rel=1e-5)
    export(run.model, tmp_path / "merged", merged=True)
    (merged,) = open_model(tmp_path / "merged").predict(["good good good good film 1"])
    assert merged.value == pytest.approx(high.value, abs=1e-4)


def test_numbers_are_in_fp32_as_mps_requires(tiny_model: Path) -> None:
    task, model, samples, _ = loaded(tiny_model, numbers(4), problem="regression")
    batch = task.collate(samples, range(4))
    assert batch.labels.dtype == torch.float32
    rows = task.forward(model, batch).rows
    assert rows is not None
    assert (rows.dtype, rows[:, 1].tolist()) == (torch.float64, [row["label"] for row in numbers(4)])


@pytest.mark.parametrize("problem", ["multi_label", "regression"])
def test_a_resumed_run_is_equal_to_the_bit(runs: Runs, problem: str) -> None:
    make = colors if problem == "multi_label" else numbers
    spec = spec_of(problem, epochs=2, gradient_accumulation_steps=2) | {
        "held_out": make(8, seed=3), "validation": {"every": 2},
    }  # fmt: skip
    unbroken, broken = (runs.make(name, rows=make(24), **spec) for name in ("unbroken", "broken"))
    assert runs.train(unbroken) == "succeeded"
    assert runs.train(broken, stop_after=3) == "interrupted"
    assert runs.train(broken) == "succeeded"
    assert same_bits(weights(unbroken.model), weights(broken.model))
    one, other = ([line["values"] for line in metrics(run, "validation")] for run in (unbroken, broken))
    assert one == other


def test_labels_that_do_not_fit_the_problem_are_refused(runs: Runs) -> None:
    single = [{"text": f"t {n}", "label": "xy"[n % 2]} for n in range(6)]
    weighted = {"class_weights": {"z": 2.0}}
    cases: list[tuple[dict[str, Any], Rows, str]] = [
        ({"problem": "single_label"}, numbers(6), "row 1: the label .* is no class"),
        ({"problem": "single_label"}, colors(6), "row 1: the label .* is no class"),
        ({"problem": "multi_label"}, single, "row 1: the label 'x' is no list of classes"),
        ({"problem": "multi_label"}, [row | {"label": ["x"]} for row in single], "no row has a label other than x"),
        ({"problem": "multi_label"}, [row | {"label": ["x", "y"]} for row in single], "all rows have the labels x, y"),
        ({"problem": "multi_label"}, [row | {"label": [0, 1, 1]} for row in single], "row 1: .* each of its classes"),
        (
            {"problem": "multi_label"},
            [row | {"label": [False, "x"]} for row in single],
            "row 1: .* each of its classes",
        ),
        ({"problem": "regression"}, single, "row 1: the label 'x' is no number"),
        ({"problem": "regression"}, [row | {"label": "3.0"} for row in single], "all rows have the label 3"),
        (weighted, single, "class_weights: no training row has the labels z"),
        ({"class_weights": {"x": 0.0}}, single, "class_weights.x must be a positive"),
        ({"label_smoothing": 1.0}, single, "label_smoothing must be at least 0"),
        ({"problem": "regression", "label_smoothing": 0.1}, numbers(6), "do not apply to regression"),
    ]
    for number, (settings, data, message) in enumerate(cases):
        run = runs.make(f"{number}", rows=data, **spec_of("single_label") | {"classification": settings})
        with pytest.raises(TrainingProblem, match=message):
            runs.train(run)
    other = runs.make("other", method="sft", classification={"problem": "regression"}, hyperparameters={"max_steps": 1})
    with pytest.raises(TrainingProblem, match="the method sft does not use it"):
        runs.train(other)
    unknown = runs.make(
        "unknown", rows=colors(6), held_out=[{"text": "t", "label": ["pink"]}], **spec_of("multi_label")
    )
    with pytest.raises(TrainingProblem, match="validation: row 1: no training row has the label 'pink'"):
        runs.train(unknown)
