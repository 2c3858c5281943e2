"""Text classifiers: the loss of transformers' own forward pass, exact resumption, and the best model by macro F1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from cloudtune_trainer import checkpoints, models
from cloudtune_trainer.export import export
from cloudtune_trainer.folder import read_json
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.run_spec import Adapter, DataFiles, ModelSource, RunSpec
from cloudtune_trainer.tasks.sequence_classification import SequenceClassification
from cloudtune_trainer.tasks.table import open_model, task_for
from cloudtune_trainer.tasks.task import BestMetric

from .conftest import Rows, Runs, events, metrics, same_bits, weights, write_encoder

FULL, LORA = {"type": "full"}, {"type": "lora", "rank": 4, "dropout": 0.1}
WORDS = {"positive": "good", "negative": "bad", "neutral": "plain"}


def rows(count: int, *, first: int = 0) -> Rows:
    """Phrases whose adjective decides the label."""
    labels = list(WORDS)
    return [
        {"text": f"the {WORDS[labels[n % 3]]} number {n // 3}", "label": labels[n % 3]}
        for n in range(first, first + count)
    ]


def spec_of(adapter: dict[str, Any], **hyper: Any) -> dict[str, Any]:
    return {
        "method": "classification", "adapter": adapter, "seed": 7, "checkpoints": {"every": 100},
        "hyperparameters": {"packing": False, "batch_size": 6, **hyper},
    }  # fmt: skip


@pytest.fixture(scope="module", params=["llama", "bert"])
def base(request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder and an encoder."""
    if request.param == "llama":
        return tiny_model
    return write_encoder(tmp_path_factory.mktemp("bert"), tiny_model)


@pytest.mark.parametrize("adapter", [FULL, LORA | {"dropout": 0.0}], ids=["full", "lora"])
def test_loss_and_gradient_are_those_of_transformers(base: Path, adapter: dict[str, Any]) -> None:
    spec = RunSpec(
        version=2, model=ModelSource(source="folder", path=str(base)), data=DataFiles(train="t"),
        method="classification", adapter=Adapter(**adapter),
    )  # fmt: skip
    place = models.BaseModel(str(base))
    task, tokenizer = task_for(spec), models.load_tokenizer(place)
    data = rows(9)
    network = task.load_model(place, tokenizer, lambda: data, dtype=torch.float32, weights=None, dropout=0.0)
    model = models.make_trainable(network, spec, place, None, task.peft_task_type)
    assert task.labels == ("negative", "neutral", "positive")
    heads = {"llama": ("score.weight",), "bert": ("classifier.bias", "classifier.weight")}
    assert task.random_weights == heads[network.config.model_type]
    assert network.config.id2label == dict(enumerate(task.labels))

    samples = task.encode(data, tokenizer)
    together = task.forward(model, task.collate(samples, range(9)))
    together.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    losses = []
    for row in data:  # one row at a time, without padding
        inputs = tokenizer(row["text"], return_tensors="pt")
        labels = torch.tensor([task.labels.index(row["label"])])
        losses.append(model(**{k: inputs[k] for k in ("input_ids", "attention_mask")}, labels=labels).loss)
    torch.stack(losses).sum().backward()
    torch.testing.assert_close(together.loss, torch.stack(losses).sum(), rtol=1e-4, atol=1e-5)
    assert any(gradient.abs().sum() > 0 for name, gradient in gradients.items() if "score" in name or "classif" in name)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("adapter", [LORA, pytest.param(FULL, marks=pytest.mark.soak)], ids=["lora", "full"])
def test_a_resumed_classifier_is_equal_to_the_bit(runs: Runs, adapter: dict[str, Any]) -> None:
    spec = spec_of(adapter, epochs=2, dropout=0.1, gradient_accumulation_steps=2) | {
        "held_out": rows(6, first=60), "validation": {"every": 2},
    }  # fmt: skip
    unbroken, broken = runs.make("unbroken", rows=rows(30), **spec), runs.make("broken", rows=rows(30), **spec)
    assert runs.train(unbroken) == "succeeded"
    assert runs.train(broken, stop_after=3) == "interrupted"
    assert runs.train(broken) == "succeeded"
    assert same_bits(weights(unbroken.model), weights(broken.model))
    for split in ("train", "validation"):
        figures = [
            [(m["values"]["loss"], m["values"]["macro_f1"]) for m in metrics(run, split)] for run in (unbroken, broken)
        ]
        assert figures[0] == figures[1]


def test_the_best_macro_f1_is_kept_and_not_the_lowest_loss(runs: Runs) -> None:
    run = runs.make(rows=rows(24), held_out=rows(9), **spec_of({"type": "lora"}, epochs=4))
    assert runs.train(run) == "succeeded"
    measured = [(m["step"], m["values"]) for m in metrics(run, "validation")]
    tuned = read_json(run.model / "tuned.json")
    best = max(values["macro_f1"] for _, values in measured)
    assert tuned["step"] == next(step for step, values in measured if values["macro_f1"] == best)
    assert tuned["step"] != min(measured, key=lambda one: one[1]["loss"])[0], "both rules choose the same step here"
    assert tuned["metrics"]["validation_macro_f1"] == best


def test_better_is_higher_or_lower_as_the_metric_says() -> None:
    score, loss = BestMetric("f1", higher_is_better=True), BestMetric("loss", higher_is_better=False)
    assert score.is_better(0.6, 0.5)
    assert not score.is_better(0.6, 0.5, by=0.2)
    assert not score.is_better(0.5, 0.5)
    assert loss.is_better(0.5, 0.6)
    assert not loss.is_better(0.5, 0.6, by=0.2)
    assert score.is_better(0.0, None)


def test_a_trained_classifier_beats_an_untrained_one(runs: Runs, tmp_path: Path) -> None:
    found = {}
    start = "these weights start from random values: score.weight"
    for name, hyper in {"trained": {"epochs": 5}, "control": {"max_steps": 1, "learning_rate": 1e-12}}.items():
        run = runs.make(name, rows=rows(24), test=rows(15, first=24), **spec_of({"type": "lora"}, **hyper))
        assert runs.train(run) == "succeeded"
        assert [event["message"] for event in events(run, "message")].count(start) == 1
        (measured,) = metrics(run, "test")
        found[name] = measured["values"]
    assert found["trained"]["accuracy"] > 0.9
    assert found["trained"]["macro_f1"] > 0.9
    assert found["control"]["accuracy"] < 0.6, "an untrained head is right by chance only"

    folder = tmp_path / "trained" / "model"
    requested = ["the good number 30", "the bad number 5", "the plain number"]
    classifier = open_model(folder)
    together = list(classifier.generate(requested))
    alone = [answer for text in requested for answer in classifier.generate([[{"role": "user", "content": text}]])]
    assert [answer.text for answer in together] == ["positive", "negative", "neutral"]
    for one, other in zip(together, alone, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-5)
        assert sum(one.scores.values()) == pytest.approx(1)
        assert one.text == max(one.scores, key=one.scores.__getitem__) == next(iter(one.scores))
    export(folder, tmp_path / "merged", merged=True)
    for one, other in zip(together, open_model(tmp_path / "merged").generate(requested), strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-4)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    assert theirs.config.id2label == {0: "negative", 1: "neutral", 2: "positive"}
    with pytest.raises(TrainingProblem, match="is not trained for classification"):
        open_model(folder, base=True)
    with pytest.raises(TrainingProblem, match="not 2 turns"):
        list(classifier.generate([[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]]))


def test_macro_f1_is_the_mean_over_labels_that_occur() -> None:
    spec = RunSpec(version=2, model=ModelSource(source="folder", path="/m"), data=DataFiles(train="t"))
    task = SequenceClassification(spec)
    task._problem.labels = ("a", "b", "c", "never")
    # actual: a a a b b c; predicted: a a b b b a
    found = task.metrics(6.0, [2, 2, 0, 0, 3, 3, 0, 0, 3, 2, 1, 0], 6)
    f1 = {"a": 2 * 2 / (3 + 3), "b": 2 * 2 / (3 + 2), "c": 0.0}
    assert found == pytest.approx({"loss": 1.0, "accuracy": 4 / 6, "macro_f1": sum(f1.values()) / 3})


@pytest.mark.parametrize("adapter", [LORA, FULL, {"type": "prefix", "virtual_tokens": 4}], ids=lambda one: one["type"])
def test_every_adapter_trains_a_classifier(runs: Runs, adapter: dict[str, Any]) -> None:
    run = runs.make(rows=rows(12), **spec_of(adapter, max_steps=2))
    assert runs.train(run) == "succeeded"
    (answer,) = open_model(run.model).generate(["the good number"])
    assert set(answer.scores) == set(WORDS)


def test_labels_that_do_not_fit_are_refused(runs: Runs) -> None:
    spec = spec_of(LORA, max_steps=1)
    for name, data, held_out, message in (
        ("one", [{"text": f"t {n}", "label": "x"} for n in range(4)], None, "all rows have the label 'x'"),
        ("unknown", rows(6), [{"text": "t", "label": "sideways"}], "validation: row 1: no training row has the label"),
        ("none", [{"text": "t"}], None, 'has "text" and "label"'),
    ):
        with pytest.raises(TrainingProblem, match=message):
            runs.train(runs.make(name, rows=data, held_out=held_out, **spec))
    parent = runs.make("parent", rows=rows(6), **spec)
    assert runs.train(parent) == "succeeded"
    (saved,) = checkpoints.saved_in(parent.checkpoints)
    renamed = [row | {"label": f"{row['label']}2"} for row in rows(6)]
    with pytest.raises(TrainingProblem, match="was made with the labels negative, neutral, positive"):
        runs.train(runs.make("child", rows=renamed, **spec, resume_from=str(saved.path)))
    with pytest.raises(TrainingProblem, match="not packed"):
        runs.train(runs.make("packed", rows=rows(6), **spec_of(LORA, packing=True)))


def test_a_long_text_loses_its_end_and_is_named(runs: Runs) -> None:
    data = [*rows(6), {"text": "the good number " * 60, "label": "positive"}]
    run = runs.make(rows=data, **spec_of(LORA, max_steps=1, max_length=64))
    assert runs.train(run) == "succeeded"
    warnings = [line for line in run.events.read_text().splitlines() if "1 rows truncated at max_length: 7" in line]
    assert len(warnings) == 1
