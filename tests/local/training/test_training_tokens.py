"""Token classifiers: the loss of transformers' own forward pass, words and their pieces, entities, exact resumption."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForTokenClassification, AutoTokenizer

from cloudtune.evaluation import metrics as evaluation_metrics
from cloudtune_trainer import models
from cloudtune_trainer.export import export
from cloudtune_trainer.folder import read_json
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.run_spec import Adapter, DataFiles, Hyperparameters, ModelSource, RunSpec
from cloudtune_trainer.tasks.entities import are_entities, counts, entities
from cloudtune_trainer.tasks.table import open_model, task_for
from cloudtune_trainer.tasks.token_classification import Tagger, WordPieces

from . import tokenizer_kinds
from .conftest import Rows, Runs, check_gradients, metrics, same_bits, weights, write_encoder

FULL, LORA = {"type": "full"}, {"type": "lora", "rank": 4}
NAMES = ("Ada Lovelace", "Grace Hopper", "Alan Turing", "Konrad Zuse")
PLACES = ("London", "New York", "Berlin")


def rows(count: int, *, first: int = 0) -> Rows:
    """Sentences with a person and a place."""
    found = []
    for n in range(first, first + count):
        name, place = NAMES[n % 4].split(), PLACES[n % 3].split()
        tokens = [*name, "saw", "engine", str(n), "in", *place, "."]
        tags = ["B-PER", "I-PER", "O", "O", "O", "O", "B-LOC", *["I-LOC"] * (len(place) - 1), "O"]
        found.append({"tokens": tokens, "tags": tags})
    return found


def spec_of(adapter: dict[str, Any], **hyper: Any) -> dict[str, Any]:
    return {
        "method": "token_classification", "adapter": adapter, "seed": 7, "checkpoints": {"every": 100},
        "hyperparameters": {"packing": False, "batch_size": 6, **hyper},
    }  # fmt: skip


@pytest.fixture(scope="module", params=["llama", "bert"])
def base(request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder and an encoder."""
    if request.param == "llama":
        return tiny_model
    return write_encoder(tmp_path_factory.mktemp("bert"), tiny_model)


@pytest.fixture(scope="module")
def encoder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"), tiny_model)


@pytest.mark.parametrize("adapter", [FULL, LORA], ids=["full", "lora"])
def test_loss_and_gradient_are_those_of_transformers(base: Path, adapter: dict[str, Any]) -> None:
    spec = RunSpec(
        version=2, model=ModelSource(source="folder", path=str(base)), data=DataFiles(train="t"),
        method="token_classification", adapter=Adapter(**adapter),
    )  # fmt: skip
    place = models.BaseModel(str(base))
    task, tokenizer = task_for(spec), models.load_tokenizer(place)
    data = rows(9)
    network = task.load_model(place, tokenizer, lambda: data, dtype=torch.float32, weights=None, dropout=0.0)
    model = models.make_trainable(network, spec, place, None, task.peft_task_type)
    assert task.labels == ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")
    assert network.config.id2label == dict(enumerate(task.labels))

    samples = task.encode(data, tokenizer)
    batch = task.collate(samples, range(9))
    together = task.forward(model, batch)
    assert together.count == sum(len(row["tokens"]) for row in data)
    (together.loss / together.count).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    theirs = model(**batch.inputs, labels=batch.labels).loss
    theirs.backward()
    torch.testing.assert_close(together.loss / together.count, theirs, rtol=1e-5, atol=0)
    assert any(gradient.abs().sum() > 0 for name, gradient in gradients.items() if "score" in name or "classif" in name)
    check_gradients(model, gradients)
    parts = [task.forward(model, task.collate(samples, part)) for part in ([0, 3, 8], [1], [2, 4, 5, 6, 7])]
    torch.testing.assert_close(sum(part.loss for part in parts), together.loss, rtol=1e-6, atol=0)
    assert torch.equal(sum(part.metric_sums for part in parts), together.metric_sums)


def test_the_first_piece_of_a_word_has_its_tag(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    words = ["Konrad", "extraordinarily", "7", "is", "."]
    (piece,) = WordPieces(tokenizer, 200).split(words)
    assert tokenizer.decode(piece.ids) == " ".join(words), "the words have the tokens that they have in a text"
    assert [word for word in piece.words if word is not None] == list(range(5))
    for place, word in enumerate(piece.words):
        if word is not None:
            assert words[word].startswith(tokenizer.decode(piece.ids[place]).strip())
    many = words * 9
    pieces = WordPieces(tokenizer, 24).split(many)
    assert len(pieces) > 3
    assert max(len(piece.ids) for piece in pieces) <= 24
    assert [word for piece in pieces for word in piece.words if word is not None] == list(range(len(many)))
    long = WordPieces(tokenizer, 8).split(["a", "x" * 50, "b"])
    assert [word for piece in long for word in piece.words if word is not None] == [0, 1, 2]
    assert WordPieces(tokenizer, 8).split([""]) == []


@pytest.mark.parametrize("kind", tokenizer_kinds.KINDS)
def test_words_are_tokens_as_in_a_text(kind: str) -> None:
    tokenizer = tokenizer_kinds.tokenizer_of(kind, chat_template=None)
    words = ["yes", "bug", "a", "rate"]  # not in the texts that the tokenizers learned from, whose words are joined
    (piece,) = WordPieces(tokenizer, 200).split(words)
    assert piece.ids == tokenizer(" ".join(words))["input_ids"]


def loaded(folder: Path, data: Rows, **hyper: Any) -> tuple[Any, Any, Any]:
    """The task, its network and the tokenizer."""
    spec = RunSpec(
        version=2, model=ModelSource(source="folder", path=str(folder)), data=DataFiles(train="t"),
        method="token_classification", adapter=Adapter(type="full"), hyperparameters=Hyperparameters(**hyper),
    )  # fmt: skip
    place = models.BaseModel(str(folder))
    task, tokenizer = task_for(spec), models.load_tokenizer(place)
    network = task.load_model(place, tokenizer, lambda: data, dtype=torch.float32, weights=None, dropout=0.0)
    return task, network.eval(), tokenizer


def test_an_entity_in_two_pieces_counts_once(encoder: Path) -> None:
    long = {"tokens": ["Ada"] * 12, "tags": ["O"] * 4 + ["B-PER"] + ["I-PER"] * 7}
    data = [long, {"tokens": ["Ada", "saw"], "tags": ["I-PER", "O"]}]
    task, _, tokenizer = loaded(encoder, data, max_length=8)
    samples = task.encode(data, tokenizer)
    assert len(samples.groups) == 2
    assert len(samples.groups[0]) > 2
    batch = task.collate(samples, [*samples.groups[1], *samples.groups[0]])
    kept = batch.labels != -100
    right = F.one_hot(batch.labels[kept], 3)
    assert task._entities(right, batch, kept) == [2, 2, 2]
    apart = task.collate(samples, [samples.groups[0][0], samples.groups[0][2]])
    assert apart.texts == ((0,), (1,)), "pieces that do not follow each other"


def test_the_pieces_of_a_long_text_are_computed_in_parts(encoder: Path) -> None:
    data = [{"tokens": ["Ada", "saw"] * 60, "tags": ["B-PER", "O"] * 60}]
    task, network, tokenizer = loaded(encoder, data, max_length=8, batch_size=2)
    samples = task.encode(data, tokenizer)
    shapes = []
    network.register_forward_pre_hook(lambda _, __, given: shapes.append(given["input_ids"].shape), with_kwargs=True)
    with torch.no_grad():
        sums = task.forward(network, task.collate(samples, samples.groups[0]))
    assert sums.count == 120
    assert max(rows for rows, _ in shapes) == 2
    shapes.clear()
    (found,) = Tagger(network, tokenizer, {"labels": task.labels, "max_length": 8}).predict(data)
    assert max(rows for rows, _ in shapes) == 8
    assert all(tag["score"] > 0 for tag in found.tags)


def test_entities_are_those_of_seqeval() -> None:
    """The examples in the README of github.com/chakki-works/seqeval, seen 2026-11-29."""
    actual = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    predicted = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    assert [counts(*pair) for pair in zip(predicted, actual, strict=True)] == [(0, 1, 1), (1, 1, 1)]  # F1 0.50
    assert counts(["I-NP", "I-NP", "O"], ["B-NP", "I-NP", "O"]) == (1, 1, 1)  # F1 1.00 in the default mode
    assert entities(["B-A", "B-A", "I-B", "E-B", "I-B", "S-B", "S-B", "O"]) == {
        ("A", 0, 0), ("A", 1, 1), ("B", 2, 3), ("B", 4, 4), ("B", 5, 5), ("B", 6, 6),
    }  # fmt: skip
    assert are_entities(["O", "B-A", "I-A"])
    assert not are_entities(["NOUN", "VERB"])
    assert not are_entities(["O"])


@pytest.mark.parametrize(
    "adapter", [pytest.param(LORA | {"dropout": 0.1}, marks=pytest.mark.soak), FULL], ids=["lora", "full"]
)
def test_a_resumed_run_is_equal_to_the_bit(runs: Runs, adapter: dict[str, Any]) -> None:
    spec = spec_of(adapter, epochs=2, dropout=0.1, gradient_accumulation_steps=2) | {
        "held_out": rows(6, first=60), "validation": {"every": 2},
    }  # fmt: skip
    unbroken, broken = runs.make("unbroken", rows=rows(30), **spec), runs.make("broken", rows=rows(30), **spec)
    assert runs.train(unbroken) == "succeeded"
    assert runs.train(broken, stop_after=3) == "interrupted"
    assert runs.train(broken) == "succeeded"
    assert same_bits(weights(unbroken.model), weights(broken.model))
    figures = [[m["values"]["f1"] for m in metrics(run, "validation")] for run in (unbroken, broken)]
    assert figures[0] == figures[1]


@pytest.mark.parametrize("adapter", [LORA, pytest.param(FULL, marks=pytest.mark.soak)], ids=["lora", "full"])
def test_a_trained_tagger_finds_entities(runs: Runs, encoder: Path, tmp_path: Path, adapter: dict[str, Any]) -> None:
    runs.base = encoder
    data = {"rows": rows(36), "held_out": rows(6, first=60), "test": rows(12, first=36)}
    rate = 2e-2 if adapter is LORA else 5e-3
    run = runs.make("trained", **data, **spec_of(adapter, epochs=10, learning_rate=rate))
    assert runs.train(run) == "succeeded"
    (measured,) = metrics(run, "test")
    assert measured["values"]["f1"] > 0.9
    assert "validation_f1" in read_json(run.model / "tuned.json")["metrics"]
    control = runs.make("control", **data, **spec_of(adapter, max_steps=1, learning_rate=1e-12))
    assert runs.train(control) == "succeeded"
    assert metrics(control, "test")[0]["values"]["f1"] < 0.5, "an untrained head finds entities by chance only"

    tagger = open_model(run.model)
    asked = ["Grace Hopper saw engine 1 in New York .", {"tokens": ["Alan", "Turing", "saw", "London"]}]
    found = list(tagger.predict(asked))
    assert found[0].text == "B-PER I-PER O O O O B-LOC I-LOC O"
    assert [tag["token"] for tag in found[1].tags] == ["Alan", "Turing", "saw", "London"]
    assert all(0 < tag["score"] <= 1 for one in found for tag in one.tags)
    (alone,) = tagger.predict(asked[:1])
    assert [tag["score"] for tag in alone.tags] == pytest.approx([tag["score"] for tag in found[0].tags], abs=1e-5)
    (long,) = tagger.predict([" ".join(["Grace Hopper saw engine 1 in New York ."] * 20)])
    assert len(long.tags) == 180
    assert all(tag["score"] > 0 for tag in long.tags), "long texts are tagged in parts"
    (odd,) = tagger.predict([{"tokens": ["", "Berlin"]}])
    assert odd.tags[0] == {"token": "", "tag": "O", "score": 0.0}
    export(run.model, tmp_path / "merged", merged=True)
    theirs = AutoModelForTokenClassification.from_pretrained(tmp_path / "merged")
    assert theirs.config.id2label[4] == "O"
    for one, other in zip(found, open_model(tmp_path / "merged").predict(asked), strict=True):
        assert one.text == other.text
    with pytest.raises(TrainingProblem, match="not trained for token classification"):
        open_model(run.model, base=True)
    with pytest.raises(TrainingProblem, match="writes no text"):
        list(tagger.generate(["Ada"]))
    with pytest.raises(TrainingProblem, match="input 2: it has no words"):
        list(tagger.predict(["Ada", {"tokens": []}]))


def test_tags_that_do_not_fit_are_refused(runs: Runs) -> None:
    spec = spec_of(LORA, max_steps=1)
    for name, data, held_out, message in (
        ("one", [{"tokens": ["a"], "tags": ["x"]}] * 4, None, "all words have the tag 'x'"),
        (
            "unknown",
            rows(6),
            [{"tokens": ["a"], "tags": ["B-ORG"]}],
            "validation: row 1: no training row has the tag",
        ),
        ("lengths", [*rows(2), {"tokens": ["a", "b"], "tags": ["O"]}], None, "line 3: 2 tokens and 1 tags"),
        ("texts", [{"text": "t"}], None, 'row 1: it requires "tokens" and "tags"'),
    ):
        with pytest.raises(TrainingProblem, match=message):
            runs.train(runs.make(name, rows=data, held_out=held_out, **spec))
    with pytest.raises(TrainingProblem, match="not packed"):
        runs.train(runs.make("packed", rows=rows(6), **spec_of(LORA, packing=True)))


def test_tags_without_entities_choose_by_accuracy(runs: Runs) -> None:
    data = [{"tokens": ["the", "dog", "runs"], "tags": [0, 1, 2]}] * 8
    run = runs.make(rows=data, held_out=data[:2], **spec_of(LORA, max_steps=2))
    assert runs.train(run) == "succeeded"
    (measured,) = metrics(run, "validation")
    assert measured["values"].keys() == {"loss", "token_accuracy"}
    (found,) = open_model(run.model).predict(["the dog runs"])
    assert len(found.text.split()) == 3


def test_training_and_evaluation_find_the_same_entities() -> None:
    """The trainer ships without cloudtune, so each has the definition."""
    drawn = random.Random(3)
    for _ in range(2000):
        tags = [drawn.choice(["O", *(f"{prefix}-{kind}" for prefix in "BIESLU" for kind in "XY")]) for _ in range(6)]
        assert entities(tags) == evaluation_metrics.entities(tags), tags
