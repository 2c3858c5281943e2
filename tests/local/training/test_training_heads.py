"""What all tasks with a head share: every adapter and several families train, and adapters keep their heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloudtune_trainer.folder import read_json
from cloudtune_trainer.tasks.table import open_model

from .conftest import Rows, Runs, events, weights, write_encoder
from .test_training_questions import rows as questions
from .test_training_seq2seq import rows as pairs
from .test_training_tokens import rows as sentences

PREFIX, LORA = {"type": "prefix", "virtual_tokens": 4}, {"type": "lora", "rank": 4}
TASKS: dict[str, tuple[Rows, Any, str]] = {
    "token_classification": (sentences(8), "Ada saw London", "bert"),
    "question_answering": (questions(8), {"question": "Who?", "context": "Ada has a box."}, "bert"),
    "seq2seq": (pairs(8), "one two", "bart"),
}
FAMILIES = ("roberta", "distilbert", "electra", "deberta-v2", "albert", "modernbert", "mpnet", "xlm-roberta")


def spec_of(method: str, adapter: dict[str, Any]) -> dict[str, Any]:
    hyper = {"packing": False, "max_steps": 2, "max_length": 64}
    return {"method": method, "adapter": adapter, "hyperparameters": hyper}


@pytest.mark.parametrize("family", ["roberta", "bert"])
def test_rows_fit_into_the_positions_of_the_model(runs: Runs, tiny_model: Path, tmp_path: Path, family: str) -> None:
    runs.base = write_encoder(tmp_path / family, tiny_model, family, max_position_embeddings=40)
    run = runs.make(rows=[{"text": "one " * 90, "label": label} for label in "abab"], **spec_of("classification", LORA))
    assert runs.train(run) == "succeeded"
    (warning, *_) = events(run, "warning")
    usable = 36 if family == "roberta" else 40  # RoBERTa's positions begin after that of the padding token, 3
    assert warning["message"].startswith(f"max_length is {usable}, not 64")
    assert read_json(run.model / "tuned.json")["max_length"] == usable


@pytest.mark.parametrize("method", TASKS)
@pytest.mark.parametrize("adapter", [LORA, PREFIX], ids=["lora", "prefix"])
def test_an_adapter_keeps_its_head(
    runs: Runs, tiny_model: Path, tmp_path: Path, method: str, adapter: dict[str, Any]
) -> None:
    rows, asked, family = TASKS[method]
    runs.base = write_encoder(tmp_path / family, tiny_model, family)
    run = runs.make(rows=rows, **spec_of(method, adapter))
    assert runs.train(run) == "succeeded"
    heads = [name for name in weights(run.model) if "classifier" in name or "qa_outputs" in name]
    assert bool(heads) is (method != "seq2seq")
    assert read_json(run.model / "adapter_config.json").get("modules_to_save") or method == "seq2seq"
    first, again = (list(open_model(run.model).predict([asked])) for _ in "ab")
    assert first == again


@pytest.mark.soak
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["token_classification", "question_answering"])
def test_families_of_encoders_train_and_predict(
    runs: Runs, tiny_model: Path, tmp_path: Path, method: str, family: str
) -> None:
    rows, asked, _ = TASKS[method]
    runs.base = write_encoder(tmp_path / family, tiny_model, family)
    run = runs.make(rows=rows, **spec_of(method, LORA))
    assert runs.train(run) == "succeeded"
    (found,) = open_model(run.model).predict([asked])
    assert isinstance(found.text, str)


@pytest.mark.soak
@pytest.mark.parametrize("family", ["t5", "bart", "marian", "mt5", "pegasus", "mbart", "m2m_100", "longt5", "led"])
def test_families_of_encoder_decoders_train_and_write(
    runs: Runs, tiny_model: Path, tmp_path: Path, family: str
) -> None:
    rows, asked, _ = TASKS["seq2seq"]
    runs.base = write_encoder(tmp_path / family, tiny_model, family)
    run = runs.make(rows=rows, **spec_of("seq2seq", LORA))
    assert runs.train(run) == "succeeded"
    (found,) = open_model(run.model).predict([asked])
    assert isinstance(found.text, str)
