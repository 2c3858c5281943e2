"""``cloudtune tune`` over a scripted vendor."""

from __future__ import annotations

import json

import pytest
from tests.cli.conftest import Desk

from cloudtune import load_spec

SPEC = """\
model: base-1
data:
  train: rows.jsonl
  validation: 0.2
hyperparameters: {learning_rate: 1.0e-5}
tune:
  parameters:
    hyperparameters.learning_rate: {low: 1.0e-4, high: 5.0e-4}
  trials: 2
  seeds: 0
"""


@pytest.fixture
def searching(desk: Desk) -> Desk:
    """A desk whose vendor's jobs learn, with a spec that searches."""
    pytest.importorskip("optuna")
    entry = desk.site / "scripted-1.0.dist-info" / "entry_points.txt"
    entry.write_text("[cloudtune.backends]\nscripted = tests.unit.tuning.learning:Learning\n")
    (desk.folder / "job.yaml").write_text(SPEC)
    return desk


def test_a_search_writes_the_best_spec_and_continues(searching: Desk) -> None:
    done = searching.run("tune", "job.yaml", "--yes")
    assert done.code == 0, done.err
    assert "trial 1: scripted:" in done.err
    assert done.out.splitlines()[-1] == "job.tuned.yaml"
    best = load_spec(searching.folder / "job.tuned.yaml")
    assert 1e-4 <= (best.hyperparameters.learning_rate or 0) <= 5e-4
    assert best.tune is None
    assert best.data.train.paths == (str(searching.folder / "rows.jsonl"),)
    again = searching.run("tune", "job.yaml", "--yes", "--json", "--set", "tune.trials=3")
    assert again.code == 0, again.err
    assert [one["number"] for one in again.json["trials"]] == [0, 1, 2]
    assert again.json["file"] == str(searching.folder / "job.tuned.yaml")
    assert len(searching.vendor.jobs()) == 3


def test_what_stops_a_search_before_it_starts(searching: Desk) -> None:
    assert searching.run("tune", "job.yaml").code == 7, "there is no terminal to confirm it"
    wrong = SPEC.replace("hyperparameters.learning_rate:", "hyperparameters.learning_rat:")
    (searching.folder / "wrong.yaml").write_text(wrong)
    refused = searching.run("tune", "wrong.yaml", "--yes", "--json")
    assert refused.code == 2
    (problem,) = refused.json["error"]["problems"]
    assert (problem["line"], problem["field"]) == (8, "tune.parameters.hyperparameters.learning_rat")
    (searching.folder / "mine.yaml").write_text("model: mine\n")
    kept = searching.run("tune", "job.yaml", "--yes", "--output", "mine.yaml")
    assert kept.code == 2
    assert "has not written it" in kept.err
    assert (searching.folder / "mine.yaml").read_text() == "model: mine\n"
    (searching.folder / "single.json").write_text(json.dumps({"model": "m", "data": {"train": "rows.jsonl"}}))
    assert "no section tune" in searching.run("tune", "single.json", "--yes").err
    assert searching.vendor.jobs() == []


def test_the_result_says_how_many_costs_are_unknown(searching: Desk) -> None:
    done = searching.run("tune", "job.yaml", "--yes")
    assert "2 jobs, " in done.err
    assert done.err.splitlines()[-2].endswith("; not counted: jobs with an unknown cost, 2")
    assert "note: not measured on test rows: tune.seeds is 0" in done.out
