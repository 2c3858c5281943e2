"""Token classification through the local back end: checked rows, training, and the tag of each word."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.local.backend.submitting import kill_all

from cloudtune.client import Client
from cloudtune.errors import DataError, InvalidRequest
from cloudtune.spec import JobSpec
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options
from cloudtune_trainer.tiny import write_tiny_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.timeout(400), pytest.mark.starts_trainer]
Rows = list[dict[str, Any]]


def rows(count: int) -> Rows:
    return [{"tokens": ["see", "Ada", str(n)], "tags": ["O", "B-PER", "O"]} for n in range(count)]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    root = tmp_path / "runs"
    yield Client(LocalBackend(Options(root=root)), ledger=f"sqlite:///{tmp_path}/ledger.db")
    kill_all(root)


@pytest.fixture
def spec(tmp_path: Path) -> Callable[..., JobSpec]:
    write_tiny_model(tmp_path / "model")

    def make(train: Rows | None = None, validation: Rows | None = None) -> JobSpec:
        data = {}
        for split, content in {"train": train or rows(24), "validation": validation or rows(4)}.items():
            path = tmp_path / f"{split}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in content))
            data[split] = str(path)
        return JobSpec.model_validate({
            "name": "names", "model": str(tmp_path / "model"), "method": "token_classification", "data": data,
            "hyperparameters": {"epochs": 2, "learning_rate": 5e-3},
            "overrides": {"local": {"device": "cpu", "threads": 1}},
        })  # fmt: skip

    return make


def test_a_tagger_trains_and_predicts_tags(client: Client, spec: Callable[..., JobSpec], tmp_path: Path) -> None:
    job = client.submit(spec())
    job.wait(timeout=300)
    measured = [metric.values for metric in job.metrics() if metric.split == "validation"]
    assert measured[-1].keys() == {"loss", "token_accuracy", "precision", "recall", "f1"}
    assert measured[-1]["f1"] > 0.9
    (found,) = job.predict(["see Ada 7"])
    assert found.text == "O B-PER O"
    assert [tag.token for tag in found.tags or ()] == ["see", "Ada", "7"]
    assert found.model == job.model().id
    with pytest.raises(InvalidRequest, match="writes no text"):
        list(job.generate(["see Ada"]))
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(40)[24:]))
    evaluation = client.evaluate(job, str(path))
    assert [model.name for model in evaluation.models] == ["names", "always 'O'"]
    assert evaluation.models[0].scores["entity_f1"].value == 1.0
    assert evaluation.verdict.startswith("Helped: entity_f1 of names against always 'O': +100.0 points")
    assert evaluation.notes[0] == "base model: not compared, because it is not trained to predict this"


@pytest.mark.parametrize(("changes", "code"), [
    ({"train": [{"tokens": ["a", "b"], "tags": ["x"]} for _ in range(9)]}, "lengths"),
    ({"train": [{"tokens": ["a", str(n)], "tags": ["O", "O"]} for n in range(9)]}, "one_label"),
    ({"validation": [{"tokens": ["a"], "tags": ["B-LOC"]}]}, "unknown_label"),
])  # fmt: skip
def test_tags_are_checked_before_anything_is_submitted(
    client: Client, spec: Callable[..., JobSpec], changes: dict[str, Rows], code: str
) -> None:
    with pytest.raises(DataError) as refused:
        client.plan(spec(**changes))
    assert code in {problem.code for problem in refused.value.problems}
