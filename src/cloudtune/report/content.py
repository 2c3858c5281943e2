"""What is in a report, in order: sections of blocks, for the HTML page and the Markdown text."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cloudtune.evaluation.compare import shown_interval
from cloudtune.evaluation.contamination import places_text
from cloudtune.report.blocks import (
    Block,
    Code,
    Curves,
    Facts,
    Paragraph,
    RowTable,
    Section,
    Table,
    WorstRows,
)
from cloudtune.report.plan_text import actual_cost_text, cost_text, method_text, not_in_cost, value_text
from cloudtune.report.reproduce import commands, spec_text
from cloudtune.report.rows import metric_named

if TYPE_CHECKING:
    from datetime import datetime

    from cloudtune.evaluation.compare import Comparison, Score
    from cloudtune.evaluation.result import Evaluation
    from cloudtune.plan import Plan
    from cloudtune.report.document import Report
    from cloudtune.report.rows import RowComparison

_OFTEN_CONFUSED = 10
_FILES = 3
_LINES = 20
_MINUTE, _HOUR = 60, 3600


class Outcome(NamedTuple):
    """The verdict of the report."""

    word: Literal["helped", "worse", "no evidence", "not measured"]
    headline: str
    detail: str


_HEADLINES = {
    "helped": "Tuning helped", "worse": "Tuning made it worse", "no evidence": "No evidence that tuning helped",
}  # fmt: skip
_AGAINST_OTHERS = {
    "helped": "Better than {}", "worse": "Worse than {}", "no evidence": "No evidence of a difference from {}",
}  # fmt: skip
"""Another model can be a tuned one too, so a comparison with it says nothing about tuning."""


def outcome(report: Report) -> Outcome:
    """The verdict against the base model, or else about the first comparison."""
    found = report.evaluation
    if found is None or not found.comparisons:
        return Outcome("not measured", "Not measured", "The job was not compared with another model on held-out rows.")
    lines = found.verdict.split("\n")
    number = next((number for number, one in enumerate(found.comparisons) if one.role == "base"), 0)
    one = found.comparisons[number]
    headline = _AGAINST_OTHERS[one.verdict].format(one.against) if one.role == "other" else _HEADLINES[one.verdict]
    detail = lines[number].partition(": ")[2]
    return Outcome(one.verdict, headline, detail[:1].upper() + detail[1:])


def overview(report: Report) -> tuple[tuple[str, str], ...]:
    """The facts at the top of the report."""
    job, plan, model = report.job, report.plan, report.model
    base = (job.model if job is not None else "") or (_base(plan.spec, plan.backend) if plan is not None else "")
    pairs = (
        ("State", f"{job.state}" if job is not None else "unknown"),
        ("Back end", report.ref.backend),
        ("Base model", PurePath(base).name if PurePath(base).is_absolute() else base),
        ("Method", method_text(plan) if plan is not None else ""),
        ("Training rows", f"{plan.data.splits['train'].rows:,}" if plan is not None and "train" in plan.data.splits
         else ""),
        ("Steps", f"{job.progress.step:,}" if job is not None and job.progress.step is not None else ""),
        ("Training time", _duration(job.started_at, job.finished_at) if job is not None else ""),
        ("Tuned model", model.id if model is not None else ""),
    )  # fmt: skip
    return tuple((name, value) for name, value in pairs if value)


def sections(report: Report) -> list[Section]:
    """All sections that have something in them."""
    evaluation, comparison, plan = report.evaluation, report.rows, report.plan
    guard = evaluation.guard if evaluation is not None else None
    found = [
        Section("failure", "Failure", _failure(report)),
        Section("result", "Result", _result(evaluation) if evaluation is not None else _how_to_evaluate(report)),
        Section("guard", "What it forgot", _result(guard, of_guard=True) if guard is not None else ()),
        Section("curves", "Training curves", (Curves(report.metrics),) if report.metrics else ()),
        Section("confusion", "Confusion matrix", _confusion(evaluation) if evaluation is not None else ()),
        Section("rows", "Rows that got better and worse", (RowTable(comparison),) if comparison is not None else ()),
        Section("errors", "Worst errors", _worst(comparison) if comparison is not None else ()),
        Section("data", "Data", _data(plan) if plan is not None else ()),
        Section("settings", "Plan", _settings(plan) if plan is not None else ()),
        Section("cost", "Cost and time", _cost(report)),
        Section("lineage", "Lineage", _lineage(report)),
        Section("reproduce", "How to reproduce", (
            *((Code(spec_text(plan), "job.yaml"),) if plan is not None else ()),
            Code(commands(report), "Commands"),
        )),
        Section("missing", "What is missing", tuple(Paragraph(one, "note") for one in report.missing)),
    ]  # fmt: skip
    return [one for one in found if one.blocks]


# -- the evaluation ----------------------------------------------------------------------------------------------------


def _failure(report: Report) -> tuple[Block, ...]:
    problem = report.job.problem if report.job is not None else None
    if problem is None:
        return ()
    hint = (Paragraph(problem.hint, "note"),) if problem.hint else ()
    return (Paragraph(f"{problem.code}: {problem.message}", "warning"), *hint)


def _how_to_evaluate(report: Report) -> tuple[Block, ...]:
    text = "The job has not been evaluated, so this report does not say whether tuning helped. To measure it:"
    return (Paragraph(text), Code(commands(report, only_evaluate=True), "Commands"))


def _result(found: Evaluation, *, of_guard: bool = False) -> tuple[Block, ...]:
    metrics = [(name, metric_named(name, found)) for name in found.metrics]

    def cell(name: str, one: Score | Comparison, value: float, *, signed: bool = False) -> str:
        metric = metric_named(name, found)
        if metric is None:
            return f"{value:.4g}"
        interval = shown_interval(metric, one, signed=signed)
        return metric.shown(value, signed=signed) + (f" ({interval})" if interval else "")

    headers = [f"{name}{' %' if metric is not None and metric.span == 1.0 else ''}" for name, metric in metrics]
    count = f"{found.rows:,} row{'' if found.rows == 1 else 's'}"
    groups = "" if found.groups == found.rows else f" in {found.groups:,} groups"
    files = ", ".join(PurePath(file).name for file in found.data[:_FILES]) + (", ..." if found.data[_FILES:] else "")
    scores = Table(
        f"Metrics on {count}{f' of {files}' if files else ''}{groups}, with 95% intervals", ("Model", *headers),
        tuple((one.name, *(cell(name, score, score.value) if (score := one.scores.get(name)) else "-"
                           for name in found.metrics)) for one in found.models),
        frozenset(range(1, len(headers) + 1)), tuple(one.scores.get(found.metrics[0]) for one in found.models),
    )  # fmt: skip
    blocks: list[Block] = [scores]
    if found.comparisons:
        corrected = f"; p-values are corrected for {len(found.comparisons)} comparisons (Holm)"
        first = found.comparisons[0].metric
        blocks.append(Table(
            f"Paired differences{corrected if len(found.comparisons) > 1 else ''}",
            (f"{found.models[0].name} against", f"{headers[0]} difference", "p", "Verdict"),
            tuple((one.against, cell(first, one, one.difference, signed=True), _p(one.p_value), one.verdict)
                  for one in found.comparisons),
            frozenset({1, 2}),
        ))  # fmt: skip
        if of_guard or len(found.comparisons) > 1:  # otherwise the top of the report has it
            blocks += [Paragraph(line) for line in found.verdict.split("\n")]
    blocks += [Paragraph(line) for line in (found.judged.sentences() if found.judged is not None else ())]
    blocks += [Paragraph(note, "note") for note in found.notes]
    return tuple(blocks) if of_guard else (*blocks, *_overlap(found))


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _overlap(found: Evaluation) -> list[Paragraph]:
    overlap = found.overlap
    if not overlap.checked:
        return [Paragraph(f"The test rows were not compared with the training rows: {overlap.reason}", "warning")]
    kinds = (
        (overlap.equal, "equal to a training row"),
        (overlap.similar, "different from a training row only in case, spaces or punctuation"),
        (overlap.near, "nearly equal to a training row"),
        (overlap.same_prompt, "with the prompt of a training row and another answer"),
    )
    blocks = [
        Paragraph(f"Test rows {what}: {len(rows):,} of {found.rows:,} (lines {places_text(rows, _LINES)})", "warning")
        for rows, what in kinds if rows
    ]  # fmt: skip
    if overlap.validation:
        text = "The test rows are the validation data of the training, which chose the best checkpoint."
        blocks.append(Paragraph(text, "warning"))
    return blocks or [Paragraph("No test row is in the training data.", "note")]


def _confusion(found: Evaluation) -> tuple[Block, ...]:
    if found.confusion is None:
        return ()
    labels, counts = found.confusion["labels"], found.confusion["counts"]
    has_others = any(row[-1] for row in counts)
    names = [*labels, *(["another answer"] if has_others else [])]
    rows = tuple((label, *(row if has_others else row[:-1])) for label, row in zip(labels, counts, strict=True))
    caption = f"Answers of {found.models[0].name} (columns) by expected label (rows)"
    matrix = Table(caption, ("expected", *names), rows, frozenset(range(1, len(names) + 1)), is_matrix=True)
    wrong = Counter({
        (label, name): count for label, row in zip(labels, counts, strict=True)
        for name, count in zip([*labels, "another answer"], row, strict=True) if count and label != name
    })  # fmt: skip
    if not wrong:
        return (matrix,)
    confused = tuple((*pair, count) for pair, count in wrong.most_common(_OFTEN_CONFUSED))
    return (matrix, Table("Most frequent confusions", ("Expected", "Answer", "Rows"), confused, frozenset({2})))


def _worst(comparison: RowComparison) -> tuple[Block, ...]:
    rows = tuple(comparison.rows[number] for number in comparison.worst)
    if not rows:
        return (Paragraph(f"No row has a wrong answer by {comparison.metric}."),)
    return (WorstRows(comparison, rows),)


# -- the plan ----------------------------------------------------------------------------------------------------------


def _base(spec: dict[str, Any], backend: str) -> str:
    model = spec.get("model", "")
    return str(model.get(backend, "") if isinstance(model, dict) else model)


def _data(plan: Plan) -> tuple[Block, ...]:
    rows = tuple(
        (
            name, split.kind, split.rows, split.bytes, split.longest_chars,
            "" if split.tokens is None else f"{split.tokens.least:,}" if split.tokens.least == split.tokens.most
            else f"{split.tokens.least:,} to {split.tokens.most:,}",
            f"sha256 {split.sha256[:16]}",
        )
        for name, split in plan.data.splits.items()
    )  # fmt: skip
    headers = ("Split", "Kind", "Rows", "Bytes", "Longest row, characters", "Tokens", "Content")
    table = Table("Rows that the job was trained and checked with", headers, rows, frozenset({2, 3, 4, 5}))
    problems = tuple(Paragraph(str(problem), "warning") for problem in plan.data.problems)
    return (table, Facts((("Fingerprint of all rows", plan.data.fingerprint),)), *problems)


def _settings(plan: Plan) -> tuple[Block, ...]:
    settings = tuple((one.field, value_text(one.value), one.source) for one in plan.settings)
    blocks: list[Block] = [Table("Effective settings and their sources", ("Setting", "Value", "Source"), settings)]
    if plan.dropped:
        dropped = tuple((one.field, value_text(one.value), one.reason) for one in plan.dropped)
        blocks.append(Table("Fields that the back end does not support", ("Field", "Value", "Reason"), dropped))
    known = set(plan.data.problems)
    return (*blocks, *(Paragraph(str(one), "warning") for one in plan.warnings if one not in known))


def _cost(report: Report) -> tuple[Block, ...]:
    plan, job = report.plan, report.job
    pairs = []
    if plan is not None:
        pairs = [("Estimated cost", cost_text(plan)), *(("Not in the estimate", line) for line in not_in_cost(plan))]
    if report.cost is not None:
        pairs.append(("Cost", actual_cost_text(report.cost)))
    if job is not None:
        tokens = job.progress.tokens
        pairs += [
            ("Created", _moment(job.created_at)), ("Started", _moment(job.started_at)),
            ("Finished", _moment(job.finished_at)), ("Duration", _duration(job.started_at, job.finished_at)),
            ("Tokens trained on", f"{tokens:,}" if tokens is not None else ""),
        ]  # fmt: skip
    for name, used in (report.evaluation.usage if report.evaluation is not None else {}).items():
        tokens_used = f"{used.prompt_tokens:,} prompt tokens, {used.completion_tokens:,} completion tokens"
        pairs.append((f"Evaluation of {name}", tokens_used))
    pairs = [(name, value) for name, value in pairs if value]
    return (Facts(tuple(pairs)),) if pairs else ()


def _lineage(report: Report) -> tuple[Block, ...]:
    plan, model = report.plan, report.model
    pairs = [("Job", str(report.ref))]
    pairs += [("Continues" if not number else "which continues", str(ref))
              for number, ref in enumerate(report.ancestors)]  # fmt: skip
    if plan is not None:
        pairs += [("Base model", _base(plan.spec, plan.backend))]
        pairs += [(f"Fingerprint of the {name}", str(value)) for name, value in plan.resolved.identity.items()]
        pairs += [(f"{name} rows", f"sha256 {split.sha256}") for name, split in plan.data.splits.items()]
        pairs += [("Key of spec, data and back end", plan.key), ("Attempt", str(plan.attempt)), ("Token", plan.token)]
    if model is not None:
        pairs += [("Tuned model", model.id), ("Adapter", model.adapter or ""), ("Place", model.uri or "")]
    return (Facts(tuple((name, value) for name, value in pairs if value)),)


def _moment(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S %Z}" if moment is not None else ""


def _duration(start: datetime | None, end: datetime | None) -> str:
    if start is None or end is None:
        return ""
    seconds = (end - start).total_seconds()
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    minutes = math.floor(seconds / _MINUTE)
    return f"{minutes} min {seconds % _MINUTE:.0f} s" if seconds < _HOUR else f"{minutes // 60} h {minutes % 60} min"
