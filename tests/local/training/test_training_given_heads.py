"""Training continues from an adapter of every task with a head of its own, and not where a reference lacks it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.run_spec import read_spec

from . import test_training_questions, test_training_seq2seq, test_training_tokens
from .conftest import Rows, Runs, metrics, write_encoder
from .test_training_classification import rows as labelled
from .test_training_embedding import contrastive
from .test_training_given_adapter import of
from .test_training_preferences import pairs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TASKS: dict[str, Callable[[int], Rows]] = {
    "classification": labelled, "token_classification": test_training_tokens.rows,
    "question_answering": test_training_questions.rows, "seq2seq": test_training_seq2seq.rows,
    "reward": pairs, "embedding": contrastive,
}  # fmt: skip
"""Method -> rows."""


@pytest.mark.parametrize("method", TASKS)
def test_an_adapter_of_every_task_is_continued(runs: Runs, tmp_path: Path, tiny_model: Path, method: str) -> None:
    make = TASKS[method]
    if method in ("question_answering", "seq2seq"):
        runs.base = write_encoder(tmp_path / "base", tiny_model, "bart" if method == "seq2seq" else "bert")
    spec: dict[str, Any] = {"method": method, "rows": make(6), "test": make(3)}
    if method == "embedding":
        spec["embedding"] = {"loss": "multiple_negatives_ranking"}
    hyper = {"packing": False, "max_steps": 2, "learning_rate": 1e-2}
    first = runs.make("first", **spec, adapter={"type": "lora", "rank": 2}, hyperparameters=hyper)
    assert runs.train(first) == "succeeded"
    hyper |= {"learning_rate": 1e-12, "max_steps": 1}
    second = runs.make("second", **spec, adapter=of(first.model), hyperparameters=hyper)
    assert runs.train(second) == "succeeded"
    (before,), (after,) = metrics(first, "test"), metrics(second, "test")
    assert after["values"]["loss"] == pytest.approx(before["values"]["loss"], rel=1e-5)


@pytest.mark.parametrize(("method", "beta"), [("dpo", 0.1), ("kto", 0.1), ("grpo", 0.04), ("grpo", 0.0), ("orpo", 0.1)])
def test_a_reference_that_lacks_the_given_adapter_is_refused(method: str, beta: float) -> None:
    policy = {"reward": {"function": "math:sqrt"}, "beta": beta}
    terms = {"policy": policy} if method == "grpo" else {"preference": {"beta": beta}}
    document = {
        "version": 2, "model": {"source": "folder", "path": "/m"}, "data": {"train": "t"}, "method": method,
        "adapter": {"type": "lora", "path": "/a"}, "hyperparameters": {"packing": False}, **terms,
    }  # fmt: skip
    if method == "orpo" or not beta:
        read_spec(document)
        return
    with pytest.raises(TrainingProblem, match=f"adapter.path: {method} would compare with the bare base model"):
        read_spec(document)
