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
from cloudtune.evaluation.result import EvaluateOptions
from cloudtune.ledger.rows import spec_of
from cloudtune.report.blocks import Facts
from cloudtune.report.content import outcome, sections
from cloudtune.report.curves import charts
from cloudtune.report.document import evaluation_from_json
from cloudtune.report.markdown import plain
from cloudtune.report.page import LARGEST
from cloudtune.report.reproduce import commands, spec_text
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
    for text in (html, markdown):
        assert "Tuning helped" in text
        assert "+30.0 points, 95% interval +14.3 to +43.8, p" in text
        for title in ("Training curves", "Confusion matrix", "Worst errors", "Lineage", "How to reproduce"):
            assert title in text
        assert "default of scripted" in text
        assert "sha256" in text
        assert "the price is unknown" in text
    assert json.loads(document)["evaluation"]["comparisons"][0]["verdict"] == "helped"
    assert [section.id for section in sections(report)][:3] == ["result", "curves", "confusion"]


def test_without_an_evaluation_the_report_says_how_to_get_one(job: Job) -> None:
    report = job.report()
    assert report.missing == ("evaluation: the job has not been evaluated",)
    for text in (report.html(), report.markdown()):
        assert "Not measured" in text
        assert f"cloudtune evaluate {job.ref} --data test.jsonl" in text
    assert "Confusion" not in report.html()


@pytest.mark.parametrize(
    ("right", "base_right", "headline"),
    [(0.9, 0.5, "Tuning helped"), (0.5, 0.9, "Tuning made it worse"), (0.7, 0.7, "No evidence that tuning helped")],
)
def test_the_headline_is_the_verdict_against_the_base_model(
    job: Job, right: float, base_right: float, headline: str
) -> None:
    assert outcome(job.report(evaluation=labeled(60, right=right, base_right=base_right))).headline == headline


@pytest.mark.parametrize(
    ("right", "other_right", "headline"),
    [(0.9, 0.5, "Better than *v1*"), (0.5, 0.9, "Worse than *v1*"),
     (0.7, 0.7, "No evidence of a difference from *v1*")],
)  # fmt: skip
def test_another_model_says_nothing_about_tuning(job: Job, right: float, other_right: float, headline: str) -> None:
    found = labeled(60, right=right, base_right=other_right)
    other = msgspec.structs.replace(found.comparisons[0], role="other", against="*v1*")
    report = job.report(evaluation=msgspec.structs.replace(found, comparisons=(other,)))
    assert outcome(report).headline == headline
    assert f"**{plain(headline)}.**" in report.markdown()


def test_a_guard_set_shows_what_the_model_forgot(job: Job) -> None:
    evaluation = msgspec.structs.replace(labeled(60), guard=labeled(30, right=0.4, base_right=0.9))
    report = job.report(evaluation=evaluation)
    for text in (report.html(), report.markdown()):
        assert "What it forgot" in text
        assert "Metrics on 30 rows of test.jsonl, with 95% intervals" in text


def test_rows_that_got_worse_come_first() -> None:
    expected = ["a", "b", "a", "b"]
    found = compared_rows(evaluation_of(expected, ["a", "b", "b", "a"], ["a", "a", "a", "a"]))
    assert found is not None
    assert [(row.line, row.change) for row in found.rows] == [
        (3, "worse"), (2, "better"), (4, "both wrong"), (1, "both right"),
    ]  # fmt: skip
    assert [found.rows[number].line for number in found.worst] == [3, 4]
    alone = compared_rows(evaluation_of(expected, ["a", "b", "b", "a"], None))
    assert alone is not None
    assert {row.change for row in alone.rows} == {"wrong", "right"}


@pytest.mark.parametrize(
    ("task", "metrics", "changes"),
    [("numbers", ("mean_absolute_error",), ["worse", "better", "equal"]), ("text", (), ["worse", "better", "equal"]),
     ("numbers", ("spearman", "number_match"), ["both wrong", "both wrong", "both right"])],
)  # fmt: skip
def test_scores_of_rows_have_the_direction_of_the_metric(
    task: Task, metrics: tuple[str, ...], changes: list[str]
) -> None:
    expected, tuned, base = ["10", "20", "30"], ["19", "21", "30"], ["11", "29", "30"]
    if task == "text":
        expected, tuned, base = (["the answer is " + one for one in ones] for ones in (expected, tuned, base))
        tuned[0], base[1] = "no", "no"
    found = compared_rows(evaluation_of(expected, tuned, base, task=task, metrics=metrics))
    assert found is not None
    assert [row.change for row in found.rows] == changes
    assert found.rows[found.worst[0]].line == 1


def test_a_report_loads_no_function_of_an_evaluation(job: Job, tmp_path: Path) -> None:
    file = tmp_path / "score.py"
    file.write_text("raise SystemExit('it was imported')")
    name = f"{file}:score"
    found = labeled(20)
    models = tuple(msgspec.structs.replace(one, scores={name: one.scores["accuracy"]}) for one in found.models[:2])
    found = msgspec.structs.replace(found, metrics=(name, "roc_auc"), models=models, comparisons=())
    report = job.report(evaluation=found)
    assert report.rows is not None
    assert report.rows.metric == "exact_match"
    assert "score.py:score" in report.html()
    assert "score.py:score" in report.markdown()


def test_long_rows_are_left_out_of_the_page_and_counted(job: Job) -> None:
    report = job.report(evaluation=labeled(1100, prompt="{} " + "é" * 1000, metrics=("accuracy",)))
    html = report.html()
    assert len(html.encode()) < LARGEST
    assert re.search(r"[\d,]+ more rows do not fit into this page", html)
    assert "… (1," in html
    assert report.rows is not None
    assert len(report.rows.rows) == 1100


def test_markdown_marks_cut_cells_and_names_files(job: Job) -> None:
    found = evaluation_of(["a", "b"], ["b", "b"], ["a", "a"], ["x" * 300, "y"])
    assert "x… (300 characters) |" in job.report(evaluation=found).markdown()
    assert "| worse | 1 |" in job.report(evaluation=found).markdown()
    rows = ({**found.answers[0], "file": "more/other.jsonl"}, found.answers[1])
    assert "| worse | other.jsonl:1 |" in job.report(evaluation=msgspec.structs.replace(found, answers=rows)).markdown()


def test_secrets_in_use_are_in_no_format(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "correct-horse-battery-staple"
    monkeypatch.setenv("SERVICE_API_KEY", secret)
    report = job.report(evaluation=evaluation_of([f"say {secret}"], [f"{secret}!"], ["no"], [f"key {secret}"]))
    for text in texts(report):
        assert secret not in text
        assert text.replace("\\*", "*").count("***") >= 3


def test_text_from_rows_is_no_markdown() -> None:
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


def test_the_commands_repeat_the_evaluation(job: Job) -> None:
    options = EvaluateOptions(metrics=("accuracy", "regex:a b"), few_shot=5, max_rows=60, group="site", baselines=False)
    found = msgspec.structs.replace(labeled(4), options=options, guard=labeled(4), data=("test.jsonl", "b.jsonl"),
                                    against=("openai=m",))  # fmt: skip
    assert (
        f"cloudtune evaluate {job.ref} --data test.jsonl --data b.jsonl --metric accuracy --metric 'regex:a b'"
        " --against openai=m --guard test.jsonl"
        " --few-shot 5 --max-rows 60 --group site --no-baselines\n" in commands(job.report(evaluation=found))
    )


@pytest.mark.parametrize(("from_spec", "options"), [(True, ""), (False, " --data test.jsonl --few-shot 5")])
def test_the_commands_name_options_that_the_spec_lacks(job: Job, from_spec: bool, options: str) -> None:
    report = job.report(
        evaluation=msgspec.structs.replace(labeled(4), from_spec=from_spec, options=EvaluateOptions(few_shot=5))
    )
    assert report.plan is not None
    plan = msgspec.structs.replace(report.plan, spec={**report.plan.spec, "evaluation": {"data": "other.jsonl"}})
    assert f"cloudtune evaluate {job.ref}{options}\n" in commands(msgspec.structs.replace(report, plan=plan))


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
        (changed(answers=[{"file": "f", "line": 1, "group": 0, "expected": "x", "answers": {}}]),
         "is not a complete evaluation"),
        (changed(metrics=[]), "is not a complete evaluation"), (changed(verdict=""), "is not a complete evaluation"),
        (changed(confusion={"labels": ["a"], "counts": [[1]]}), "is not a complete evaluation"),
        (changed(confusion={"labels": ["a"], "counts": "x"}), "is not an evaluation"),
    ],
)  # fmt: skip
def test_other_files_are_refused(document: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluation_from_json(document, "e.json", JobRef("a", "b", "c"))
