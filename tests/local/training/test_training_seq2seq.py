"""Encoder-decoders: the loss of transformers' own forward pass, generation, merging, exact resumption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.trainer_pt_utils import LabelSmoother

from cloudtune_trainer import models
from cloudtune_trainer.batches import schedule_of
from cloudtune_trainer.export import export
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.run_spec import Adapter, DataFiles, Hyperparameters, ModelSource, RunSpec
from cloudtune_trainer.tasks.seq2seq import decoder_inputs, source_of
from cloudtune_trainer.tasks.table import open_model, task_for

from .conftest import Rows, Runs, check_gradients, events, metrics, same_bits, weights, write_encoder

FULL, LORA = {"type": "full"}, {"type": "lora", "rank": 16, "alpha": 32.0}
WORDS = {"one": "uno", "two": "dos", "three": "tres", "four": "cuatro"}


def rows(count: int, *, first: int = 0) -> Rows:
    """Numbers in English and in Spanish."""
    names = list(WORDS)
    found = []
    for n in range(first, first + count):
        chosen = [names[n % 4], names[n // 4 % 4]]
        found.append({"source": " ".join(chosen), "target": " ".join(WORDS[name] for name in chosen)})
    return found


def spec_of(adapter: dict[str, Any], **hyper: Any) -> dict[str, Any]:
    return {
        "method": "seq2seq", "adapter": adapter, "seed": 7, "checkpoints": {"every": 100},
        "hyperparameters": {"packing": False, "batch_size": 6, "dropout": 0.0, **hyper},
    }  # fmt: skip


@pytest.fixture(scope="module")
def families(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: write_encoder(tmp_path_factory.mktemp(kind), tiny_model, kind) for kind in ("t5", "bart", "marian")}


@pytest.mark.parametrize("adapter", [FULL, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("family", ["t5", "bart", "marian"])
def test_loss_and_gradient_are_those_of_transformers(
    families: dict[str, Path], family: str, adapter: dict[str, Any]
) -> None:
    base = families[family]
    spec = RunSpec(
        version=2, model=ModelSource(source="folder", path=str(base)), data=DataFiles(train="t"),
        method="seq2seq", adapter=Adapter(**adapter), hyperparameters=Hyperparameters(max_length=64),
    )  # fmt: skip
    place = models.BaseModel(str(base))
    task, tokenizer = task_for(spec), models.load_tokenizer(place)
    data = [*rows(6), {"source": "one " * 9, "target": "uno " * 9}]
    network = task.load_model(place, tokenizer, lambda: data, dtype=torch.float32, weights=None, dropout=0.0)
    model = models.make_trainable(network, spec, place, None, task.peft_task_type)
    samples = task.encode(data, tokenizer)
    batch = task.collate(samples, range(7))
    assert batch.labels[0][batch.labels[0] >= 0][-1] == tokenizer.eos_token_id
    together = task.forward(model, batch)
    (together.loss / together.count).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert gradients
    model.zero_grad()
    theirs = model(**batch.inputs, labels=batch.labels).loss
    theirs.backward()
    torch.testing.assert_close(together.loss / together.count, theirs, rtol=1e-5, atol=0)
    check_gradients(model, gradients)
    parts = [task.forward(model, task.collate(samples, part)) for part in ([0, 3, 6], [1], [2, 4, 5])]
    torch.testing.assert_close(sum(part.loss for part in parts), together.loss, rtol=1e-6, atol=0)
    assert sum(part.count for part in parts) == together.count == samples.learnt_tokens


def test_smoothed_labels_are_those_of_transformers_in_training_only(families: dict[str, Path]) -> None:
    place = models.BaseModel(str(families["t5"]))
    spec = RunSpec(
        version=2, model=ModelSource(source="folder", path=place.path), data=DataFiles(train="t"), method="seq2seq",
        label_smoothing=0.2, adapter=Adapter(type="full"), hyperparameters=Hyperparameters(max_length=64),
    )  # fmt: skip
    task, tokenizer = task_for(spec), models.load_tokenizer(place)
    model = task.load_model(place, tokenizer, lambda: rows(4), dtype=torch.float32, weights=None, dropout=0.0)
    batch = task.collate(task.encode(rows(4), tokenizer), range(4))
    for is_training, smoothing in ((True, 0.2), (False, 0.0)):
        model.train(is_training)
        found = task.forward(model, batch)
        expected = LabelSmoother(epsilon=smoothing)(model(**batch.inputs, labels=batch.labels), batch.labels)
        torch.testing.assert_close(found.loss / found.count, expected, rtol=1e-5, atol=0)


def test_the_decoder_reads_the_labels_one_place_later(families: dict[str, Path]) -> None:
    class Other:  # a family without a shift of its own, such as M2M100
        config = AutoModelForSeq2SeqLM.from_pretrained(families["bart"]).config

    labels = torch.tensor([[7, 8, 2], [9, 2, -100]])
    model = AutoModelForSeq2SeqLM.from_pretrained(families["bart"])
    assert torch.equal(decoder_inputs(model, labels), decoder_inputs(Other(), labels))
    assert decoder_inputs(Other(), labels).tolist() == [[2, 7, 8], [2, 9, 2]]


@pytest.mark.parametrize(
    "adapter", [LORA | {"dropout": 0.1}, pytest.param(FULL, marks=pytest.mark.soak)], ids=["lora", "full"]
)
def test_a_resumed_run_is_equal_to_the_bit(runs: Runs, families: dict[str, Path], adapter: dict[str, Any]) -> None:
    runs.base = families["t5"]
    spec = spec_of(adapter, epochs=1, dropout=0.1, gradient_accumulation_steps=2) | {
        "held_out": rows(6), "validation": {"every": 2},
    }  # fmt: skip
    unbroken, broken = runs.make("unbroken", rows=rows(24), **spec), runs.make("broken", rows=rows(24), **spec)
    assert runs.train(unbroken) == "succeeded"
    assert runs.train(broken, stop_after=3) == "interrupted"
    assert runs.train(broken) == "succeeded"
    assert same_bits(weights(unbroken.model), weights(broken.model))


@pytest.mark.parametrize(("family", "adapter"), [
    ("t5", FULL), ("bart", LORA), pytest.param("bart", FULL, marks=pytest.mark.soak),
])  # fmt: skip
def test_a_trained_model_writes_targets(
    runs: Runs, families: dict[str, Path], tmp_path: Path, family: str, adapter: dict[str, Any]
) -> None:
    runs.base = families[family]
    data = {"rows": rows(16), "held_out": rows(8)}
    run = runs.make("trained", **data, **spec_of(adapter, epochs=25, learning_rate=1e-2))
    assert runs.train(run) == "succeeded"
    measured = [line["values"] for line in metrics(run, "validation")]
    assert measured[-1].keys() == {"loss", "perplexity", "token_accuracy"}
    assert measured[-1]["loss"] < 0.5 * measured[0]["loss"]

    writer = open_model(run.model)
    asked = [row["source"] for row in rows(8)]
    found = [one.text for one in writer.predict(asked)]
    expected = [row["target"] for row in rows(8)]
    base = [one.text for one in open_model(run.model, base=True).predict(asked)]
    right, before = (sum(map(str.__eq__, expected, answers)) for answers in (found, base))
    assert right >= (4 if adapter is FULL else 2)  # rounding differs between processors
    assert before == 0
    answers = list(writer.generate([*asked[:2], [{"role": "user", "content": asked[0]}]], max_tokens=40))
    assert [answer.text for answer in answers] == [*found[:2], found[0]]
    assert answers[0].finish_reason == "stop"
    assert [one.text for one in writer.predict([{"source": asked[0]}])] == found[:1]
    sampled = [
        [answer.text for answer in writer.generate(asked[:3], temperature=2.0, seed=3, max_tokens=8)] for _ in "ab"
    ]
    assert sampled[0] == sampled[1]

    export(run.model, tmp_path / "merged", merged=True)
    merged = open_model(tmp_path / "merged")
    assert [one.text for one in merged.predict(asked)] == found
    theirs, tokenizer = (auto.from_pretrained(tmp_path / "merged") for auto in (AutoModelForSeq2SeqLM, AutoTokenizer))
    ids = theirs.generate(**tokenizer(asked[:1], return_tensors="pt", return_token_type_ids=False), max_new_tokens=40)
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == found[0]


def test_a_conversation_is_a_source_and_a_target(runs: Runs, families: dict[str, Path]) -> None:
    one = [{"role": "user", "content": "one"}]
    assert source_of(one) == "one"
    assert source_of([{"role": "system", "content": "Translate."}, *one]) == "system: Translate.\nuser: one"
    runs.base = families["bart"]
    data = [{"messages": [*one, {"role": "assistant", "content": "uno"}]}] * 4
    run = runs.make(rows=data, **spec_of(LORA, max_steps=1))
    assert runs.train(run) == "succeeded"
    with pytest.raises(TrainingProblem, match="row 1: a conversation for seq2seq ends with a text of the assistant"):
        runs.train(runs.make("question", rows=[{"messages": one}], **spec_of(LORA, max_steps=1)))


def test_what_does_not_fit_is_refused(runs: Runs, families: dict[str, Path], tiny_model: Path, tmp_path: Path) -> None:
    spec = spec_of(LORA, max_steps=1)
    encoder = write_encoder(tmp_path / "bert", tiny_model)
    for name, base, message in (
        ("encoder", encoder, "a bert model cannot be used for seq2seq"),
        ("decoder", tiny_model, "a llama model cannot be used for seq2seq"),
    ):
        runs.base = base
        with pytest.raises(TrainingProblem, match=message) as refused:
            runs.train(runs.make(name, rows=rows(4), **spec))
        assert "T5, BART or Marian" in str(refused.value.hint)
    runs.base = families["t5"]
    with pytest.raises(TrainingProblem, match="a t5 model cannot be used for causal language model") as refused:
        runs.train(runs.make("sft", **spec | {"method": "sft"}))
    assert "seq2seq" in str(refused.value.hint)
    with pytest.raises(TrainingProblem, match='"source" and "target" must be texts'):
        runs.train(runs.make("empty", rows=[{"source": "one", "target": ""}], **spec))


def test_long_rows_are_cut_and_named(runs: Runs, families: dict[str, Path]) -> None:
    runs.base = families["bart"]
    data = [*rows(3), {"source": "one " * 50, "target": "uno"}, {"source": "one", "target": "uno " * 50}]
    run = runs.make(rows=data, **spec_of(LORA, max_steps=1, max_length=24))
    assert runs.train(run) == "succeeded"
    (warning,) = events(run, "warning")
    assert warning["data"]["rows"] == [4, 5]
    with pytest.raises(TrainingProblem, match=r"input 2: the text has \d+ tokens, and the model's context has 256"):
        list(open_model(run.model).predict(["one", "one " * 300]))


def test_fifty_steps_have_the_losses_of_a_plain_loop(runs: Runs, families: dict[str, Path]) -> None:
    """AdamW over transformers' own loss, with the rows in the same order."""
    runs.base, data = families["t5"], rows(40)
    run = runs.make(rows=data, **spec_of(FULL, max_steps=50, batch_size=4))
    assert runs.train(run) == "succeeded"
    found = [line["values"]["loss"] for line in metrics(run)]

    tokenizer, model = AutoTokenizer.from_pretrained(runs.base), AutoModelForSeq2SeqLM.from_pretrained(runs.base)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    schedule = schedule_of([1] * 40, batch_size=4, capacity=1, packing=False, epochs=1, max_steps=50, seed=7)
    expected = []
    for step in range(50):
        chosen = [data[place] for (place,) in schedule.sequences_of(step)]
        inputs = tokenizer([row["source"] for row in chosen], padding=True, return_tensors="pt")
        targets = [tokenizer(row["target"])["input_ids"] + [tokenizer.eos_token_id] for row in chosen]
        labels = torch.full((4, max(map(len, targets))), -100)
        for place, target in enumerate(targets):
            labels[place, : len(target)] = torch.tensor(target)
        loss = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        expected.append(loss.item())
    assert found == pytest.approx(expected, rel=1e-3)
    assert found[-1] < 0.5 * found[0]
