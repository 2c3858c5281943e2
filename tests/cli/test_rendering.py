"""What is drawn and written: curves, tables, durations, the lines of a watch, plans."""

from __future__ import annotations

import io
import itertools
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtune.cli import render
from cloudtune.cli.render_errors import as_json, as_text, exit_code
from cloudtune.cli.render_job import next_steps
from cloudtune.cli.render_plan import plan_text, warnings_text
from cloudtune.cli.render_plot import curves
from cloudtune.cli.render_watch import EARLIER_EVENTS, LiveView, PlainView, sparkline
from cloudtune.cost import CostEstimate
from cloudtune.errors import InputError, JobFailed, Problem, RateLimited
from cloudtune.plan import DataReport, Dropped, Plan, Resolved, Setting, SplitInfo, Step
from cloudtune.state import Event, JobProblem, JobRef, JobSnapshot, JobState, Metric, Progress
from cloudtune.watch import Update

REF = JobRef("local", "/runs", "job-1")
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def _update(step: int, total: int | None = 100, *, state: JobState = JobState.RUNNING, **more: Any) -> Update:
    progress = Progress(step=step, total_steps=total, eta_s=30.0, epoch=step / 50)
    detail = more.pop("detail", "")
    snapshot = JobSnapshot(ref=REF, state=state, native_state="x", name="job", progress=progress, detail=detail)
    return Update(snapshot=snapshot, **more)


def _metric(step: int, split: Any = "train", **values: float) -> Metric:
    return Metric(cursor=str(step), step=step, split=split, values=values or {"loss": 4.0 - step / 50})


def _event(number: int, message: str = "", **more: Any) -> Event:
    when = NOON + timedelta(seconds=number)
    return Event(cursor=str(number), time=when, message=message or f"event {number}", **more)


# -- figures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (60, "1m00s"), (3599, "59m59s"), (3600, "1h00m"), (90061, "1d1h"), (None, "")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert render.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (2.34567, "2.346"), (0.0002, "2.00e-04"), (1554.4, "1,554"), (12345, "12,345"), ("x", "x"),
     (float("nan"), "nan"), (float("inf"), "inf")],
)  # fmt: skip
def test_figures(value: Any, text: str) -> None:
    assert render.figure(value).replace("nane+00", "nan") == text


@given(st.lists(st.floats(allow_nan=True, allow_infinity=False, width=32), max_size=300), st.integers(1, 120))
def test_a_sparkline_is_never_wider_than_asked_and_shows_low_and_high(values: list[float], width: int) -> None:
    line = sparkline(values, width)
    assert len(line) <= width
    finite = [value for value in values if value == value]
    assert bool(line) == (len(finite) >= 2)
    if line and len(finite) <= width and max(finite) > min(finite):
        assert "▁" in line
        assert "█" in line


def test_a_sparkline_falls_as_the_loss_does() -> None:
    line = sparkline([10.0 - number for number in range(10)], 10)
    assert list(line) == sorted(line, reverse=True)


points = st.lists(
    st.tuples(st.integers(0, 10**6), st.floats(allow_nan=True, allow_infinity=True, width=32)), max_size=60
)


@given(st.dictionaries(st.sampled_from(["train", "validation"]), points), st.integers(1, 150), st.integers(1, 40))
def test_a_curve_fits_its_frame(series: dict[str, Any], width: int, height: int) -> None:
    text = curves(series, width=width, height=height, colour=False)
    for line in text.splitlines()[:-2]:
        margin = max(line.find("┤"), line.find("└")) + 1
        assert len(line) <= max(width, margin + 10)
    assert text.count("┤") == (0 if not text else max(height - 2, 3))


def test_a_falling_loss_is_drawn_from_top_left_to_bottom_right() -> None:
    text = curves({"train": [(step, 10.0 - step) for step in range(11)]}, width=40, height=12, colour=False)
    rows = [line.split("┤")[1] for line in text.splitlines() if "┤" in line]
    inked = [[number for number, char in enumerate(row) if char != " "] for row in rows]
    assert all(inked)
    assert inked[0][0] == 0
    assert inked[-1][-1] == max(itertools.chain.from_iterable(inked))
    middles = [sum(columns) / len(columns) for columns in inked]
    assert middles == sorted(middles)
    assert "10 ┤" in text
    assert "0 ┤" in text


# -- tables --------------------------------------------------------------------------------------------------------


def test_a_table_in_a_pipe_is_aligned_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300
    render.table(["NAME", "STEP", "REF"], [["a", 5, long], ["bcd", 10, "r"]], right=["STEP"])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["NAME  STEP  REF", f"a        5  {long}", "bcd     10  r"]


def test_markup_in_names_is_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    monkeypatch.setattr("sys.stdout", shown)
    monkeypatch.setenv("COLUMNS", "80")
    render.table(["NAME"], [["[red]a[/red] :smile:"]])
    assert "[red]a[/red] :smile:" in shown.getvalue()


# -- a watch in lines ----------------------------------------------------------------------------------------------


def _plain() -> tuple[PlainView, list[str], list[float]]:
    said: list[str] = []
    time = [0.0]
    return PlainView(said.append, lambda: time[0]), said, time


def test_lines_come_at_every_twentieth_of_the_way() -> None:
    view, said, _ = _plain()
    for step in range(1, 101):
        view.update(_update(step, metrics=(_metric(step),)))
    steps = [int(found[1]) for line in said if (found := re.match(r"step (\d+)/100  loss", line))]
    assert steps == [*range(1, 100, 5), 100]


def test_lines_come_at_least_every_half_minute() -> None:
    view, said, time = _plain()
    for step in range(1, 11):
        view.update(_update(step, 100_000, metrics=(_metric(step),)))
        time[0] += 10.0
    assert [line.split()[1] for line in said if line.startswith("step")] == [f"{step}/100000" for step in (1, 4, 7, 10)]


def test_validation_notes_and_warnings_are_always_told() -> None:
    view, said, _ = _plain()
    view.update(_update(1, metrics=(_metric(1),)))
    view.update(_update(2, metrics=(_metric(2), _metric(2, "validation", loss=3.0, token_accuracy=0.5))))
    view.update(_update(2, note="stalled: no new step for 600 s"))
    view.update(_update(2, events=(_event(1, "low disk", level="warning"), _event(2, "figures", type="metrics"))))
    assert "step 2/100  validation  loss 3  token accuracy 0.5" in said
    assert "note: stalled: no new step for 600 s" in said
    assert next(line for line in said if "low disk" in line).endswith("warning  low disk")
    assert not any("figures" in line for line in said)


def test_what_repeats_in_every_epoch_is_no_line() -> None:
    view, said, _ = _plain()
    for step, detail in enumerate(["evaluating", "saving: checkpoint 3", ""]):
        repeated = (_event(step, detail, type="state"), _event(step, "checkpoint at step 3", type="checkpoint"))
        view.update(_update(step, detail=detail, events=repeated))
    assert said == ["running"]


def test_of_the_past_only_the_end_is_told() -> None:
    view, said, _ = _plain()
    past = tuple(_event(number) for number in range(500))
    figures = tuple(_metric(step) for step in range(1, 400))
    view.update(_update(399, 1000, events=past, metrics=figures))
    assert [line.split()[-1] for line in said if "event" in line] == [str(n) for n in range(500 - EARLIER_EVENTS, 500)]
    assert [line for line in said if line.startswith("step")] == ["step 399/1000  loss -3.98  remaining 30s"]
    view.update(_update(400, 1000, events=tuple(_event(500 + number) for number in range(30))))
    assert "event 500" in said[-30]


def test_a_state_that_no_event_tells_is_told_once() -> None:
    view, said, _ = _plain()
    for _ in range(3):
        view.update(_update(0, state=JobState.QUEUED, detail="2 before it"))
    view.update(_update(1, state=JobState.RUNNING))
    assert said == ["queued: 2 before it", "running"]


# -- a watch that is drawn -----------------------------------------------------------------------------------------


def _drawn(view: LiveView, width: int = 90) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(view._draw())
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_the_picture_shows_how_far_how_well_and_how_long() -> None:
    time = [0.0]
    view = LiveView(lambda: time[0])
    assert "waiting for the first response" in _drawn(view)
    for step in range(1, 31):
        view.update(_update(step, metrics=(_metric(step, loss=4.0 - step / 50, learning_rate=2e-4),)))
    view.update(_update(30, detail="evaluating", metrics=(_metric(30, "validation", loss=3.1),)))
    time[0] = 12.0
    shown = _drawn(view)
    for words in ("job-1", "running", "evaluating", "12s", "30/100", "30%", "epoch 0.60", "remaining 18s", "loss 3.4",
                  "lr 2.00e-04", "loss 3.1", "█", "Ctrl-C to stop watching"):  # fmt: skip
        assert words in shown
    view.update(_update(100, state=JobState.SUCCEEDED))
    assert "Ctrl-C" not in _drawn(view)
    assert all(len(line) <= 40 for line in _drawn(view, 40).splitlines())


# -- plans and errors ----------------------------------------------------------------------------------------------


def _plan(**changes: Any) -> Plan:
    split = SplitInfo(rows=1234, bytes=56_789, sha256="ab" * 32, kind="chat")
    plan = Plan(
        name="headlines", backend="local", scope="/runs", key="k", attempt=1, token="t" * 32,
        spec={"model": {"local": "/m"}, "method": {"name": "sft"}, "adapter": {"type": "lora"}},
        steps=(Step(id="a", kind="encode", title="write the rows"),
               Step(id="b", kind="call", title="create it", once="reconciled", request={"body": {"ñ": [1]}})),
        data=DataReport(splits={"train": split}, fingerprint="f"), resolved=Resolved(scope="/runs"),
        settings=(Setting(field="hyperparameters.epochs", value=3.0, source="spec"),
                  Setting(field="adapter.type", value="lora", source="spec")),
    )  # fmt: skip
    return msgspec.structs.replace(plan, **changes)


def test_a_plan_shows_every_part_that_it_has() -> None:
    text = plan_text(_plan())
    for words in ("Plan for headlines on local (/runs)", "model /m, method sft with lora", "1,234 rows", "56.8 kB",
                  "1. write the rows  [encode: local]", "2. create it  [call: idempotent, checked before sending]",
                  "hyperparameters.epochs  3     spec", "adapter.type            lora  spec",
                  "Cost: not estimated"):  # fmt: skip
        assert words in text
    assert "Warnings" not in text
    assert "Dropped fields" not in text
    harmless = plan_text(
        _plan(steps=(Step(id="c", kind="call", title="cancel duplicates"), Step(id="d", kind="await", title="wait")))
    )
    assert "1. cancel duplicates  [call: safe to repeat]" in harmless
    assert "2. wait  [await: read-only]" in harmless
    assert "encode" not in harmless
    assert '"ñ"' in plan_text(_plan(), requests=True)
    fuller = plan_text(
        _plan(
            attempt=2, parent="local:/runs:job-0",
            warnings=(Problem(code="w", severity="warning", message="few rows", file="a.jsonl"),),
            dropped=(Dropped(field="tags", value={"a": "b"}, reason="it has none"),),
            cost=CostEstimate(usd=1234.5, basis="20 k tokens", prices_as_of="2026-03-01"),
        )
    )  # fmt: skip
    for words in ("attempt 2", "checkpoint of local:/runs:job-0", "a.jsonl: few rows", 'tags = {"a": "b"}: it has none',
                  "about $1,234.50 (20 k tokens, prices as of 2026-03-01)"):  # fmt: skip
        assert words in fuller


def test_many_warnings_of_one_kind_leave_the_plan_readable() -> None:
    many = [Problem(code="duplicate", severity="warning", message="twice", line=n) for n in range(1, 40)]
    other = Problem(code="w", severity="warning", message="few rows")
    for text in (plan_text(_plan(warnings=(*many, other))), warnings_text((*many, other))):
        assert (text.count("twice"), text.count("few rows")) == (5, 1)
        assert "not shown: duplicate 34 (--json lists them)" in text
    assert "not shown" not in plan_text(_plan(warnings=(*many[:5], other)))


@pytest.mark.parametrize(("least", "told"), [(1.5, "$1.50 to $12.00 (bounds, prices as of 2026-03-01)"),
                                             (None, "at most $12.00 (bounds, prices as of 2026-03-01)"),
                                             (12.0, "$12.00 (bounds, prices as of 2026-03-01)"),
                                             (0.0001, "less than $0.01 to $12.00 (bounds, ")])  # fmt: skip
def test_bounds_of_the_cost_are_shown_as_such(least: float | None, told: str) -> None:
    cost = CostEstimate(usd=None, basis="bounds", prices_as_of="2026-03-01", at_least_usd=least, at_most_usd=12.0)
    assert f"Cost: {told}" in plan_text(_plan(cost=cost))


def test_errors_as_text_and_as_json() -> None:
    problems = [Problem(code="a", message="bad", file="f", line=3, field="x", fix="do y"),
                Problem(code="b", message="odd", severity="warning")]  # fmt: skip
    wrong = InputError(problems, hint="read on")
    assert as_text(wrong) == "error: f:3: x: bad (do y)\nwarning: odd\nread on\n"
    failed = JobSnapshot(ref=REF, state=JobState.FAILED, native_state="Failed", problem=JobProblem(message="oom"))
    error = JobFailed("it failed: oom", ref=REF, snapshot=failed, hint="less")
    document = as_json(error)
    assert document["error"]["exit_code"] == exit_code(error) == 3
    assert document["job"]["problem"]["message"] == "oom"
    assert as_json(JobFailed("x", ref=REF, snapshot=None))["job"] == {"ref": str(REF)}
    assert as_text(RateLimited("slow down")) == "error: slow down\n"
    assert as_text(FileNotFoundError(2, "No such file", "a/b")) == "error: a/b: No such file\n"
    assert "bug in cloudtune" in as_text(ZeroDivisionError("x"))
    assert exit_code(ZeroDivisionError()) == 1


@pytest.mark.parametrize(("method", "command"), [
    (None, "generate local:/runs:job-1 'a prompt' --base"), ("dpo", "generate local:/runs:job-1 'a prompt' --base"),
    ("token_classification", "predict local:/runs:job-1 'a text'"), ("seq2seq", "predict local:/runs:job-1 'a text'"),
    ("question_answering", "predict local:/runs:job-1 --question 'a question' 'a context'"),
    ("reward", "predict local:/runs:job-1 --file ROWS.jsonl"),
])  # fmt: skip
def test_the_next_steps_use_a_model_as_its_method_allows(method: str | None, command: str) -> None:
    done = JobSnapshot(ref=REF, state=JobState.SUCCEEDED, native_state="succeeded")
    assert next_steps(done, lambda verb: verb == "verb:generate", method) == [f"cloudtune {command}"]
