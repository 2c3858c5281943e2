"""Names of models, and the most frequent label or tag."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cloudtune.evaluation.compare import Answered
from cloudtune.evaluation.evaluating import _distinct, _most_frequent
from cloudtune.evaluation.metrics import tags_of
from cloudtune.evaluation.prepared import guard_options
from cloudtune.evaluation.result import EvaluateOptions
from cloudtune.evaluation.rows import read_rows
from cloudtune.spec import Data, Source

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("names", "expected"), [
    (["a", "a (2)", "a"], ["a", "a (2)", "a (3)"]),
    (["a", "a", "a (2)"], ["a", "a (2)", "a (2) (2)"]),
    (["a", "b", "a", "a"], ["a", "b", "a (2)", "a (3)"]),
])  # fmt: skip
def test_names_of_models_are_unique(names: list[str], expected: list[str]) -> None:
    assert [one.name for one in _distinct([Answered(name, "other", []) for name in names])] == expected


def test_the_most_frequent_tag_is_that_of_training(tmp_path: Path) -> None:
    tags = {"train": ["B-X", "O", "B-X", "Z", "Z", "Z"], "test": ["O", "O", "O", "B-X"]}
    for name, found in tags.items():
        row = {"tokens": [str(number) for number in range(len(found))], "tags": found}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
    training, test = (Source(path=str(tmp_path / f"{name}.jsonl")) for name in tags)
    _, rows = read_rows(test)
    assert _most_frequent(Data(train=training), rows, tags_of) == "B-X"
    assert _most_frequent(None, rows, tags_of) == "O"


@pytest.mark.parametrize("baselines", [True, False])
def test_guard_rows_have_the_baselines_that_are_asked_for(baselines: bool) -> None:
    assert guard_options(EvaluateOptions(baselines=baselines)).baselines is baselines
