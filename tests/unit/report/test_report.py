"""What a report says, in each format, and what it says where something is unknown."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING

import msgspec
import pytest
from tests.unit.report.conftest import evaluation_of, labeled, with_curves

from cloudtune.client import Client
from cloudtune.document.formats import parse_yaml
from cloudtune.errors import InputError, JobNotFound
from cloudtune.ledger.rows import spec_of
from cloudtune.report.blocks import Facts
from cloudtune.report.content import outcome, sections
from cloudtune.report.curves import charts
from cloudtune.report.document import evaluation_from_json
from cloudtune.report.markdown import plain
from cloudtune.report.page import LARGEST
from cloudtune.report.reproduce import spec_text
from cloudtune.report.rows import compared_rows
from cloudtune.spec import JobSpec
from cloudtune.state import JobRef, JobState, Metric, to_json
from cloudtune.testing import faults
from cloudtune.testing.scripted_world import ScriptedWorld

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtune.evaluation.metrics import Task
    from cloudtune.job import Job
    from cloudtune.report.document import Report


def texts(report: Report) -> list[str]:
    """The report in each format."""
    return [report.html(), report.markdown(), json.dumps(report.to_json(), ensure_ascii=False)]


def test_every_format_says_what_the_evaluation_found(job: Job) -> None:
    report = with_curves(job.report(evaluation=labeled(60)))
    html, markdown, document = texts(report)
    markup = ("<img src=x>", "[a](http://x)", "| cell |", "**bold** _it_ `code` ~~no~~", "# title", "- item", "1. one")
    for text in markup:
        assert re.sub(r"\\(.)", r"\1", plain(text)) == text
        assert not re.search(r"(?<!\\)[<\[|*`~]|^[#-]|^1\.|(?<!\\)://", plain(text))
    assert plain("a\n\n# b\x1b\u202e") == "a # b\\\\u001b\\\\u202e"
    assert plain("f1_macro 0.5 (a-b)") == "f1_macro 0.5 (a-b)"


def test_the_spec_in_the_report_is_that_of_the_job(job: Job) -> None:
    plan = job.report().plan
    assert plan is not None
    assert JobSpec.model_validate(parse_yaml(spec_text(plan)).values) == spec_of(plan)


def test_what_the_back_end_cannot_return_is_named(tmp_path: Path) -> None:
    world = ScriptedWorld(tmp_path)
    client = Client(world.backend(), ledger=f"sqlite:///{world.root}/ledger.db", clock=world.clock)
    job = client.submit(world.spec())
    world.reach(job.ref, JobState.FAILED, message="out of luck")
    assert "out of luck" in client.report(job).html()
    with pytest.raises(JobNotFound):
        client.report(JobRef(job.ref.backend, job.ref.scope, "ftjob-999999"))
    world.fail("get", faults.server_error(times=100))
    report = client.report(str(job.ref))
    assert report.missing[0].startswith("state: ")
    assert (report.job, report.plan is not None) == (None, True)
    for text in texts(report):
        assert "not been evaluated" in text


def test_a_resumed_job_names_its_ancestors(tmp_path: Path) -> None:
    world = ScriptedWorld(tmp_path)
    client = Client(world.backend(), ledger=f"sqlite:///{world.root}/ledger.db", clock=world.clock)
    first = client.submit(world.spec())
    world.reach(first.ref, JobState.FAILED)
    report = client.submit(world.spec(), again=True).report()
    assert report.ancestors == ()
    report = msgspec.structs.replace(report, ancestors=(first.ref,))
    facts = next(block for one in sections(report) if one.id == "lineage" for block in one.blocks)
    assert isinstance(facts, Facts)
    assert ("Continues", str(first.ref)) in facts.pairs


# -- curves ------------------------------------------------------------------------------------------------------------


def metrics_of(values: list[float], name: str = "loss") -> list[Metric]:
    return [Metric(cursor=str(step), step=step, values={name: value}) for step, value in enumerate(values, 1)]


@pytest.mark.parametrize(
    "values", [[1.0], [0.0, 0.0], [5.0, 5.0], [-1e300, 1e300], [1e-12, 2e-12], [math.nan, 1.0, math.inf]]
)
def test_any_finite_values_are_drawn(values: list[float]) -> None:
    drawn = str(charts(metrics_of(values)))
    finite = [value for value in values if math.isfinite(value)]
    assert drawn.count("<circle") == len(finite)
    assert not re.search(r'="[^"]*(nan|inf)', drawn)
    places = re.search(r'points="([^"]+)"', drawn)
    for pair in places[1].split() if places else []:
        x, y = map(float, pair.split(","))
        assert (0 <= x <= 640, 0 <= y <= 240) == (True, True)


def test_long_curves_keep_their_extremes() -> None:
    values = [math.sin(step / 500) for step in range(20_000)]
    values[4_321] = 9.0
    drawn = str(charts(metrics_of(values)))
    assert len(drawn) < 20_000
    assert "9</td>" in drawn


def test_no_finite_value_draws_nothing() -> None:
    assert "<svg" not in charts(metrics_of([math.nan]))


# -- evaluations from files --------------------------------------------------------------------------------------------


def changed(**changes: object) -> bytes:
    found = to_json(labeled(4)) | {"ref": "a:b:c"} | changes
    return json.dumps(found).encode()


def test_a_printed_evaluation_is_read() -> None:
    assert evaluation_from_json(changed(), "e.json", JobRef("a", "b", "c")).rows == 4


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"", "is not an evaluation"), (b"[]", "is not an evaluation"), (b"\xff", "is not an evaluation"),
        (b"[" * 100_000, "is not an evaluation"), (changed(ref="a:b:d"), "is an evaluation of a:b:d, not of a:b:c"),
        (changed(answers=[{"file": 1}]), "is not an evaluation"), (changed(models=[]), "is not a complete evaluation"),
        (changed(answers=[{"file": "f", "line": 1, "expected": "x", "answers": {}}]), "is not a complete evaluation"),
        (changed(metrics=["chrf"]), "is not a complete evaluation"),
        (changed(confusion={"labels": ["a"], "counts": [[1]]}), "is not a complete evaluation"),
        (changed(confusion={"labels": ["a"], "counts": "x"}), "is not an evaluation"),
    ],
)  # fmt: skip
def test_other_files_are_refused(document: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluation_from_json(document, "e.json", JobRef("a", "b", "c"))
