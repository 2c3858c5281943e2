"""An evaluation with real training: the tuned model helps, and its control, trained on shuffled labels, does not."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest
from tests.local.backend.submitting import kill_all

from cloudtune.client import Client
from cloudtune.evaluation.result import EvaluateOptions
from cloudtune.spec import JobSpec
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options
from cloudtune_trainer.tiny import write_tiny_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.timeout(400), pytest.mark.starts_trainer]
VERBS = {"up": ("rises", "gains"), "down": ("falls", "sinks")}


def rows(count: int, first: int, *, shuffled: bool = False) -> list[dict[str, str]]:
    chance = random.Random(first)
    found = []
    for number in range(first, first + count):
        label = chance.choice(list(VERBS))
        text = f"item {number} {chance.choice(VERBS[label])} today"
        found.append({"prompt": text, "completion": chance.choice(list(VERBS)) if shuffled else label})
    return found


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    root = tmp_path / "runs"
    yield Client(LocalBackend(Options(root=root)), ledger=f"sqlite:///{tmp_path}/ledger.db")
    kill_all(root)


def test_tuning_helps_and_shuffled_labels_do_not(client: Client, tmp_path: Path) -> None:
    files = {"train": rows(120, 0), "shuffled": rows(120, 0, shuffled=True), "test": rows(40, 1000)}
    for name, content in files.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in content))
    write_tiny_model(tmp_path / "model", vocab_texts=[json.dumps(row) for row in files["train"] + files["test"]])
    jobs = []
    for name in ("train", "shuffled"):
        spec = JobSpec.model_validate({
            "name": name, "model": str(tmp_path / "model"), "data": {"train": str(tmp_path / f"{name}.jsonl")},
            "adapter": "full", "hyperparameters": {"epochs": 4, "batch_size": 8, "learning_rate": 5e-3},
            "overrides": {"local": {"device": "cpu", "threads": 1}}, "seed": 1,
        })  # fmt: skip
        jobs.append(client.submit(spec))
    for job in jobs:
        job.wait(timeout=300)
    options = EvaluateOptions(max_tokens=4)
    test = str(tmp_path / "test.jsonl")
    found = client.evaluate(jobs[0], test, against=[jobs[1]], options=options)
    assert [model.role for model in found.models] == ["tuned", "base", "majority", "other"]
    assert [one.verdict for one in found.comparisons] == ["helped"] * 3
    assert found.models[0].scores["accuracy"].value > 0.9
    assert not found.overlap.has_seen
    control = client.evaluate(jobs[1], test, options=options)
    against_majority = next(one for one in control.comparisons if one.role == "majority")
    assert against_majority.verdict == "no evidence"
    asked: list[tuple[str, int]] = []
    client.evaluate(jobs[1], test, options=options, on_progress=lambda name, done, count: asked.append((name, done)))
    assert asked == [("shuffled", 40), ("base model", 40)]  # all answers are stored
    jobs[0].export(tmp_path / "export")
    folders = [str(tmp_path / "export"), str(tmp_path / "model")]
    direct = client.evaluate(folders[0], test, against=[folders[1], jobs[0]], options=options)
    scores = {model.name: model.scores for model in direct.models}
    tuned, base = found.models[0].scores, found.models[1].scores
    assert (scores["export"], scores["model"], scores["train"]) == (tuned, base, tuned)
