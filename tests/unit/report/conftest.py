"""A job that has succeeded, and evaluations whose figures are calculated from given answers."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import msgspec
import pytest

from cloudtune.client import Client
from cloudtune.evaluation.choosing import chosen_metrics
from cloudtune.evaluation.compare import Answered, Measured, sentence
from cloudtune.evaluation.contamination import Overlap, RowPlace
from cloudtune.evaluation.metrics import confusion
from cloudtune.evaluation.result import Evaluation
from cloudtune.evaluation.statistics import Groups
from cloudtune.state import JobState, Metric
from cloudtune.testing.scripted_world import ScriptedWorld

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune.evaluation.metrics import Task
    from cloudtune.job import Job
    from cloudtune.report.document import Report

LABELS = ("billing", "delivery", "technical")


def evaluation_of(
    expected: Sequence[str], tuned: Sequence[str], base: Sequence[str] | None, prompts: Sequence[str] | None = None,
    *, task: Task = "labels", name: str = "job", metrics: Sequence[str] = (),
) -> Evaluation:  # fmt: skip
    """The evaluation of these answers."""
    models = [Answered(name, "tuned", tuned)]
    if base is not None:
        models.append(Answered("base model", "base", base))
        models.append(Answered("always 'billing'", "majority", ["billing"] * len(expected)))
    chosen = chosen_metrics(metrics, task)
    measured = Measured(chosen, models, expected, Groups([str(number) for number in range(len(expected))]), 0)
    comparisons = measured.comparisons()
    labels, counts = confusion(tuned, expected)
    return Evaluation(
        data=("test.jsonl",),
        rows=len(expected), groups=len(expected), kind="text_label", task=task,
        metrics=tuple(metric.name for metric in chosen), models=measured.scores(), comparisons=comparisons,
        verdict="\n".join(sentence(chosen[0], one, len(expected)) for one in comparisons) or "Nothing to compare with.",
        overlap=Overlap(checked=True, equal=tuple(RowPlace(file="test.jsonl", line=line) for line in (3, 5))),
        confusion={"labels": labels, "counts": counts} if task == "labels" else None,
        answers=tuple(
            {"file": "test.jsonl", "line": number + 1, "group": number, "prompt": (prompts or expected)[number],
             "expected": right, "answers": {model.name: model.answers[number] for model in models}}
            for number, right in enumerate(expected)
        ),
    )  # fmt: skip


def labeled(
    rows: int, *, right: float = 0.9, base_right: float = 0.5, prompt: str = "Message {}", metrics: Sequence[str] = ()
) -> Evaluation:
    """An evaluation of a classifier that is right in that share of the rows."""
    chance = random.Random(0)
    expected = [chance.choice(LABELS) for _ in range(rows)]
    tuned, base = ([one if chance.random() < share else chance.choice(LABELS) for one in expected]
                   for share in (right, base_right))  # fmt: skip
    prompts = [prompt.replace("{}", str(number + 1)) for number in range(rows)]
    return evaluation_of(expected, tuned, base, prompts, metrics=metrics)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job that has succeeded."""
    world = ScriptedWorld(tmp_path_factory.mktemp("world"))
    client = Client(world.backend(), ledger=f"sqlite:///{world.root}/ledger.db", clock=world.clock)
    job = client.submit(world.spec(with_validation=True))
    world.reach(job.ref, JobState.SUCCEEDED)
    return job


def with_curves(report: Report, steps: int = 60) -> Report:
    """The report with the metrics of a training."""
    train = [Metric(cursor=str(step), step=step, values={"loss": 2.0 / (1 + step / 10), "learning_rate": 1e-3 / step})
             for step in range(1, steps + 1)]  # fmt: skip
    held_out = [Metric(cursor=f"v{step}", step=step, split="validation", values={"loss": 2.2 / (1 + step / 12)})
                for step in range(10, steps + 1, 10)]  # fmt: skip
    return msgspec.structs.replace(report, metrics=(*train, *held_out))
