"""Question answering: the loss of transformers' own forward pass, windows over long contexts, SQuAD's metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForQuestionAnswering, AutoTokenizer, BertTokenizerFast

from cloudtune_trainer import models
from cloudtune_trainer.export import export
from cloudtune_trainer.folder import read_json
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.rope import logits_by_length
from cloudtune_trainer.run_spec import Adapter, DataFiles, Hyperparameters, ModelSource, RunSpec
from cloudtune_trainer.tasks.question_answering import Answerer, best_span
from cloudtune_trainer.tasks.squad import exact_and_f1, normalized
from cloudtune_trainer.tasks.table import open_model, task_for
from cloudtune_trainer.tasks.windows import Windows

from .conftest import Rows, Runs, check_gradients, events, metrics, same_bits, weights, write_encoder

FULL, LORA = {"type": "full"}, {"type": "lora", "rank": 16}
NAMES = ("Ada", "Grace", "Alan", "Konrad")


def rows(count: int, *, first: int = 0, filler: int = 0) -> Rows:
    """Who has a number, among two people."""
    found = []
    for n in range(first, first + count):
        one, other = NAMES[n % 4], NAMES[(n + 1 + n // 4 % 3) % 4]
        context = "It was late. " * filler + f"{one} has a red box. {other} has a blue box."
        color, who = (("red", one), ("blue", other))[n % 2]
        start = context.index(f"{who} has a {color}")
        answers = {"text": [who], "answer_start": [start]}
        found.append({"question": f"Who has the {color} box?", "context": context, "answers": answers})
    return found


def spec_of(adapter: dict[str, Any], **hyper: Any) -> dict[str, Any]:
    return {
        "method": "question_answering", "adapter": adapter, "seed": 7, "checkpoints": {"every": 100},
        "hyperparameters": {"packing": False, "batch_size": 6, **hyper},
    }  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"), tiny_model)


@pytest.mark.parametrize("adapter", [FULL, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_loss_and_gradient_are_those_of_transformers(
    encoder: Path, tiny_model: Path, family: str, adapter: dict[str, Any]
) -> None:
    base = encoder if family == "bert" else tiny_model
    spec = RunSpec(
        version=2, model=ModelSource(source="folder", path=str(base)), data=DataFiles(train="t"),
        method="question_answering", adapter=Adapter(**adapter), hyperparameters=Hyperparameters(max_length=64),
    )  # fmt: skip
    place = models.BaseModel(str(base))
    task, tokenizer = task_for(spec), models.load_tokenizer(place)
    data = [*rows(4), *rows(2, filler=6)]
    network = task.load_model(place, tokenizer, lambda: data, dtype=torch.float32, weights=None, dropout=0.0)
    model = models.make_trainable(network, spec, place, None, task.peft_task_type)
    samples = task.encode(data, tokenizer)
    assert len(samples) > len(data), "long contexts have several windows"
    chosen = range(len(samples))
    batch = task.collate(samples, chosen)
    together = task.forward(model, batch)
    together.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    losses = []
    for i, (start, end) in zip(chosen, samples.spans.tolist(), strict=True):  # without padding
        cells = slice(samples.starts[i], samples.starts[i + 1])
        one = torch.from_numpy(samples.ids[cells]).long()[None]
        positions = {"start_positions": torch.tensor([start]), "end_positions": torch.tensor([end])}
        types = {"token_type_ids": torch.from_numpy(samples.types[cells]).long()[None]} if family == "bert" else {}
        losses.append(model(input_ids=one, attention_mask=torch.ones_like(one), **types, **positions).loss)
    torch.stack(losses).sum().backward()
    torch.testing.assert_close(together.loss, torch.stack(losses).sum(), rtol=1e-5, atol=0)
    assert any(gradient.abs().sum() > 0 for name, gradient in gradients.items() if "qa_outputs" in name)
    check_gradients(model, gradients)
    parts = [task.forward(model, task.collate(samples, part)) for part in (chosen[:3], chosen[3:4], chosen[4:])]
    torch.testing.assert_close(sum(part.loss for part in parts), together.loss, rtol=1e-6, atol=0)


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A random model with BERT's own tokenizer, which gives the question and the context different types."""
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "who",
        "has",
        "the",
        "red",
        "box",
        "ada",
        "a",
        ".",
        "?",
        "it",
        "was",
    ]
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 37}
    torch.manual_seed(0)
    AutoModel.from_config(
        AutoConfig.for_model("bert", **sizes, vocab_size=len(words), max_position_embeddings=64)
    ).save_pretrained(tmp_path / "bert")
    BertTokenizerFast(vocab={word: n for n, word in enumerate(words)}).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def loaded(folder: Path, data: Rows, **hyper: Any) -> tuple[Any, Any, Any]:
    """The task, its network and the tokenizer."""
    spec = RunSpec(
        version=2, model=ModelSource(source="folder", path=str(folder)), data=DataFiles(train="t"),
        method="question_answering", adapter=Adapter(type="full"), hyperparameters=Hyperparameters(**hyper),
    )  # fmt: skip
    place = models.BaseModel(str(folder))
    task, tokenizer = task_for(spec), models.load_tokenizer(place)
    network = task.load_model(place, tokenizer, lambda: data, dtype=torch.float32, weights=None, dropout=0.0)
    return task, network.eval(), tokenizer


def test_question_and_context_have_their_own_types(bert: Path) -> None:
    question, context = "who has the red box ?", "ada has a red box ."
    data = [{"question": question, "context": context, "answers": {"text": ["ada"], "answer_start": [0]}}]
    task, network, tokenizer = loaded(bert, data, max_length=32)
    encoded = tokenizer(question, context, return_tensors="pt")
    assert set(encoded["token_type_ids"][0].tolist()) == {0, 1}
    batch = task.collate(task.encode(data, tokenizer), [0])
    answerer = Answerer(network, tokenizer, {"labels": (), "max_length": 32})
    _, windows = answerer.read(data[0])
    with torch.no_grad():
        expected = torch.stack([network(**encoded)[side] for side in ("start_logits", "end_logits")], -1)
        untyped = network(input_ids=encoded["input_ids"]).start_logits
        torch.testing.assert_close(logits_by_length(network, batch.inputs), expected)
        torch.testing.assert_close(answerer._logits(windows, 8), expected)
    assert (untyped - expected[..., 0]).abs().max() > 1e-3


def test_windows_of_a_long_context_are_computed_in_parts(bert: Path) -> None:
    context = "ada has a red box . " + "it was late . " * 60
    data = [
        {"question": "who has the red box ?", "context": context, "answers": {"text": ["ada"], "answer_start": [0]}}
    ]
    task, network, tokenizer = loaded(bert, data, max_length=32, batch_size=2)
    samples = task.encode(data, tokenizer)
    assert len(samples) > 10
    shapes = []
    network.register_forward_pre_hook(lambda _, __, given: shapes.append(given["input_ids"].shape), with_kwargs=True)
    with torch.no_grad():
        task.forward(network, task.collate(samples, samples.groups[0]))
        list(Answerer(network, tokenizer, {"labels": (), "max_length": 32}).predict(data))
    assert sum(rows for rows, _ in shapes) == 2 * len(samples)
    assert max(rows for rows, width in shapes[: len(samples) // 2]) <= 2
    assert max(rows for rows, _ in shapes) <= 8


def test_windows_overlap_and_hold_the_answer(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    context = " ".join(f"fact {n}." for n in range(60))
    windows, none = Windows(tokenizer, 60).of([("Which?", context), ("long " * 60, context)])
    assert none == []
    assert len(windows) > 3
    assert all(len(window.ids) <= 60 for window in windows)
    start = context.index("fact 33.")
    spans = [window.span_of("fact 33.", start) for window in windows]
    found = [(window, span) for window, span in zip(windows, spans, strict=True) if any(span)]
    assert found
    for window, (first, last) in found:
        assert context[window.offsets[first][0] : window.offsets[last][1]].strip() == "fact 33."
    assert any(not any(span) for span in spans)
    covered = {char for window in windows for begin, end in window.offsets for char in range(begin, end)}
    assert covered == set(range(len(context)))
    assert windows[0].span_of(" fact 1.  ", context.index(" fact 1.")) != (0, 0), "spaces around an answer do not count"


def test_answers_are_compared_as_in_squad() -> None:
    assert normalized("The  Eiffel Tower!") == "eiffel tower"
    assert exact_and_f1("the Eiffel tower", ["Eiffel Tower", "tower"]) == (1.0, 1.0)
    assert exact_and_f1("in Paris, France", ["Paris"]) == (0.0, pytest.approx(2 * (1 / 3) * 1 / (1 / 3 + 1)))
    assert exact_and_f1("", []) == (1.0, 1.0)
    assert exact_and_f1("Paris", []) == (0.0, 0.0)
    assert exact_and_f1("", ["Paris"]) == (0.0, 0.0)


def test_the_best_span_of_all_windows_wins() -> None:
    offsets = [(0, 0), (0, 4), (4, 9), (9, 12)]
    weak, strong = torch.full((4, 2), -1.0), torch.full((4, 2), -1.0)
    weak[0], weak[1, 0], weak[1, 1] = 2.0, 3.0, 3.0
    strong[2, 0], strong[3, 1] = 5.0, 5.0
    found = best_span([(weak, offsets), (strong, [(0, 0), (20, 24), (24, 29), (29, 32)])])
    assert (found.start, found.end) == (24, 32)
    assert found.score == pytest.approx(float(torch.softmax(strong, 0)[2, 0] * torch.softmax(strong, 0)[3, 1]))
    backwards = torch.full((4, 2), 0.0)
    backwards[3, 0], backwards[1, 1], backwards[0] = 5.0, 5.0, -1.0
    assert best_span([(backwards, offsets)]).start <= best_span([(backwards, offsets)]).end
    nothing = torch.zeros(4, 2)
    nothing[0] = 4.0
    assert best_span([(nothing, offsets)])[:2] == (0, 0)


def test_a_resumed_run_is_equal_to_the_bit(runs: Runs, encoder: Path) -> None:
    runs.base = encoder
    spec = spec_of(LORA | {"dropout": 0.1}, epochs=1, dropout=0.1, gradient_accumulation_steps=2) | {
        "held_out": rows(6, first=60), "validation": {"every": 2},
    }  # fmt: skip
    unbroken, broken = runs.make("unbroken", rows=rows(24), **spec), runs.make("broken", rows=rows(24), **spec)
    assert runs.train(unbroken) == "succeeded"
    assert runs.train(broken, stop_after=3) == "interrupted"
    assert runs.train(broken) == "succeeded"
    assert same_bits(weights(unbroken.model), weights(broken.model))


@pytest.mark.parametrize("adapter", [LORA, pytest.param(FULL, marks=pytest.mark.soak)], ids=["lora", "full"])
def test_a_trained_model_finds_answers(runs: Runs, encoder: Path, tmp_path: Path, adapter: dict[str, Any]) -> None:
    runs.base = encoder
    nobody = rows(1)[0] | {"question": "Who has the green box?", "answers": {"text": [], "answer_start": []}}
    data = {"rows": [*rows(36), nobody, nobody], "held_out": rows(6, first=60), "test": rows(12, first=36)}
    run = runs.make("trained", **data, **spec_of(adapter, epochs=12, learning_rate=1e-2, max_length=64))
    assert runs.train(run) == "succeeded"
    (measured,) = metrics(run, "test")
    assert measured["values"].keys() == {"loss", "exact_match", "f1"}
    assert measured["values"]["f1"] > 0.8
    assert "validation_f1" in read_json(run.model / "tuned.json")["metrics"]
    control = runs.make("control", **data, **spec_of(adapter, max_steps=1, learning_rate=1e-12, max_length=64))
    assert runs.train(control) == "succeeded"
    assert metrics(control, "test")[0]["values"]["f1"] < 0.5

    answerer = open_model(run.model)
    asked = [{name: row[name] for name in ("question", "context")} for row in [*rows(3, first=36), *rows(1, filler=30)]]
    found = list(answerer.predict(asked))
    for one, row in zip(found, asked, strict=True):
        assert one.text == ("" if one.start is None else row["context"][one.start : one.end])
        assert 0 <= one.score <= 1
    assert sum(one.text in NAMES for one in found[:3]) >= 2
    (alone,) = answerer.predict(asked[:1])
    assert (alone.text, alone.score) == (found[0].text, pytest.approx(found[0].score, abs=1e-5))
    export(run.model, tmp_path / "merged", merged=True)
    AutoModelForQuestionAnswering.from_pretrained(tmp_path / "merged")
    for one, other in zip(found, open_model(tmp_path / "merged").predict(asked), strict=True):
        assert one.text == other.text
    for bad in ("a text", {"question": "Who?"}, {"question": "Who?", "context": " "}):
        with pytest.raises(TrainingProblem, match='it is not a row with "question" and "context"'):
            list(answerer.predict([bad]))
    with pytest.raises(TrainingProblem, match="leaves no room"):
        list(answerer.predict([{"question": "who " * 99, "context": "Ada"}]))


def test_questions_that_do_not_fit_are_refused(runs: Runs) -> None:
    spec = spec_of(LORA, max_steps=1)
    moved = {"question": "Who?", "context": "It is Ada.", "answers": {"text": ["Ada"], "answer_start": [5]}}
    uneven = moved | {"answers": {"text": ["Ada"], "answer_start": []}}
    for name, data, message in (
        ("outside", [*rows(2), moved], "line 3: the answer 'Ada' is not at character 5"),
        ("uneven", [uneven], "lists of the same length"),
        ("texts", [{"text": "t"}], 'row 1: it requires "question" and "context"'),
    ):
        with pytest.raises(TrainingProblem, match=message):
            runs.train(runs.make(name, rows=data, **spec))
    long = rows(1)[0] | {"question": "Who has the red box? " * 20}
    run = runs.make("long", rows=[*rows(4), long], **spec_of(LORA, max_steps=1, max_length=64))
    assert runs.train(run) == "succeeded"
    (warning,) = events(run, "warning")
    assert warning["message"].startswith("train: 1 rows dropped")
    assert warning["data"]["rows"] == [5]
