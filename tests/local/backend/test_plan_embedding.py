"""The plan of text embedding: the loss follows from the kind of the rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.local.backend.test_plan import MODEL, errors_of, request, sources, spec_json

from cloudtune.data import prepare
from cloudtune.errors import DataError, SpecError
from cloudtune.spec import JobSpec
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options
from cloudtune_trainer.run_spec import Embedding, read_spec


def planned(root: Path, kind: str, method: Any = "embedding", **changes: Any) -> Any:
    asked = request(root, method=method, **changes)
    splits = {name: msgspec.structs.replace(info, kind=kind) for name, info in asked.data.splits.items()}
    asked = msgspec.structs.replace(asked, data=msgspec.structs.replace(asked.data, splits=splits))
    return LocalBackend(Options(root=root)).plan(asked)


@pytest.mark.parametrize(("kind", "loss"), [
    ("contrastive", "multiple_negatives_ranking"), ("similarity", "cosent"),
])  # fmt: skip
def test_the_loss_is_chosen_from_the_rows(tmp_path: Path, kind: str, loss: str) -> None:
    plan = planned(tmp_path, kind)
    assert sources(plan)["method.loss"] == (loss, f"derived: the rows are of the kind {kind}")
    read = read_spec(dict(spec_json(plan)) | {"data": {"train": "data/train.jsonl"}})
    assert read.embedding == Embedding(loss=loss)  # type: ignore[arg-type]


def test_the_trainer_takes_the_settings_of_the_plan(tmp_path: Path) -> None:
    method = {"name": "embedding", "loss": "triplet", "pooling": "cls", "margin": 0.5}
    read = read_spec(dict(spec_json(planned(tmp_path, "contrastive", method))) | {"data": {"train": "t"}})
    assert read.embedding == Embedding(loss="triplet", pooling="cls", margin=0.5)


@pytest.mark.parametrize(("kind", "loss"), [("contrastive", "cosent"), ("similarity", "triplet")])
def test_a_loss_of_other_rows_is_refused(tmp_path: Path, kind: str, loss: str) -> None:
    with pytest.raises(SpecError, match=f"{loss} does not take rows of the kind {kind}"):
        planned(tmp_path, kind, {"name": "embedding", "loss": loss})


def test_a_step_of_one_row_compares_no_rows(tmp_path: Path) -> None:
    one = {"batch_size": 1}
    with pytest.raises(SpecError, match="cosent compares the rows of a step, and a step has one row"):
        planned(tmp_path, "similarity", hyperparameters=one)
    (warned,) = planned(tmp_path, "contrastive", hyperparameters=one).warnings
    assert warned.field == "hyperparameters.batch_size"
    assert planned(tmp_path, "similarity", {"name": "embedding", "loss": "cosine_similarity"}, hyperparameters=one)


@pytest.mark.parametrize(("loss", "rows", "message"), [
    ("triplet", [{"anchor": "a", "positive": "b", "negatives": ["c"]}, {"anchor": "a", "positive": "b"}],
     "the row has no negatives"),
    ("cosine_similarity", [{"sentence1": "a", "sentence2": "b", "score": score} for score in (-1, 4.5)],
     "the score 4.5 is no cosine"),
])  # fmt: skip
def test_rows_that_the_loss_cannot_use_are_refused_by_line(
    tmp_path: Path, loss: str, rows: list[dict[str, Any]], message: str
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    document = {"model": "m", "data": {"train": str(file)}, "method": {"name": "embedding", "loss": loss}}
    spec = JobSpec.model_validate(document)
    target = LocalBackend(Options(root=tmp_path)).data_target(spec)
    with pytest.raises(DataError) as refused:
        prepare(spec.data, method="embedding", target=target)
    (problem,) = refused.value.problems
    assert (problem.line, problem.severity) == (2, "error")
    assert message in problem.message


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="this model is an encoder-decoder"):
        planned(tmp_path, "contrastive", model={**MODEL, "is_encoder_decoder": True})


@pytest.mark.parametrize(("field", "method"), [
    ("method.loss", {"name": "sft", "loss": "cosent"}), ("method.pooling", {"name": "sft", "pooling": "cls"}),
    ("method.margin", {"name": "embedding", "loss": "cosent", "margin": 0.3}),
    ("method.margin", {"name": "embedding", "margin": 0.3}),
    ("method.temperature", {"name": "embedding", "loss": "triplet", "temperature": 0.3}),
    ("method.loss_on", {"name": "embedding", "loss_on": "last_assistant"}),
])  # fmt: skip
def test_what_has_no_effect_is_refused(tmp_path: Path, field: str, method: dict[str, Any]) -> None:
    assert set(errors_of(tmp_path, method=method)) == {field}


@pytest.mark.parametrize("method", [
    {"name": "embedding", "temperature": 1e-4}, {"name": "embedding", "loss": "triplet", "margin": 1e-4},
    {"name": "distill", "temperature": 1e-4},
    {"name": "grpo", "reward": "rewards.py:score", "temperature": 1e-4},
])  # fmt: skip
def test_numbers_below_those_of_the_trainer_are_refused(tmp_path: Path, method: dict[str, Any]) -> None:
    problem = errors_of(tmp_path, method=method)[f"method.{'margin' if 'margin' in method else 'temperature'}"]
    assert (problem.code, problem.fix) == ("range", "use at least 0.001")
