"""Format a plan as text: steps, data, settings with their sources, and cost."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from cloudtune.cli.render import size
from cloudtune.report.plan_text import cost_text, method_text, not_in_cost, value_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune.errors import Problem
    from cloudtune.plan import Plan, Step

_ONCE = {"atomic": "idempotent by request token", "reconciled": "idempotent, checked before sending"}
_OF_ONE_CODE = 5
"""Problems of one code that are shown."""
_PURE = {"encode": "local", "await": "read-only"}


def plan_text(plan: Plan, *, requests: bool = False, settings: bool = True, every: bool = True) -> str:
    """Format the whole plan. Without ``every``, settings with the back end's default are only counted."""
    model = plan.spec.get("model")
    model = model.get(plan.backend) if isinstance(model, dict) else model
    verb = "for" if plan.purpose == "job" else f"to {plan.purpose}"
    parts = [f"Plan {verb} {plan.name} on {plan.backend} ({plan.scope})"]
    attempt = f"attempt {plan.attempt}, " if plan.attempt > 1 else ""
    method = f"method {method_text(plan)}, " if plan.purpose == "job" else ""
    parts.append(f"  model {model}, {method}{attempt}token {plan.token[:10]}")
    if plan.parent:
        parts.append(f"  continues from the newest valid checkpoint of {plan.parent}")
    parts += _section("Data", _data_lines(plan))
    parts += _section("Steps", [line for number, step in enumerate(plan.steps, 1)
                                for line in _step_lines(number, step, requests)])  # fmt: skip
    if settings:
        parts += _section("Settings", _setting_lines(plan, every=every))
    parts += _section("Evaluation, after the job has succeeded", _evaluation_lines(plan))
    parts += _section("Dropped fields (not supported by the back end)",
                      [f"{one.field} = {value_text(one.value)}: {one.reason}" for one in plan.dropped])  # fmt: skip
    parts += _section("Warnings", first_of_each(plan.warnings))
    return "\n".join([*parts, "", f"Cost: {cost_text(plan)}", *(f"  {line}" for line in not_in_cost(plan))])


def _setting_lines(plan: Plan, *, every: bool) -> list[str]:
    shown = [one for one in plan.settings if every or one.source != f"default of {plan.backend}"]
    lines = _aligned([(one.field, value_text(one.value), one.source) for one in shown])
    folded = len(plan.settings) - len(shown)
    return [*lines, f"and {folded} defaults of {plan.backend} (--all lists them)"] if folded else lines


def first_of_each(problems: Sequence[Problem]) -> list[str]:
    """The first problems of each code, in order, and how many more there are."""
    counts: Counter[str] = Counter()
    lines = []
    for problem in problems:
        counts[problem.code] += 1
        if counts[problem.code] <= _OF_ONE_CODE:
            lines.append(str(problem))
    more = [f"{code} {count - _OF_ONE_CODE:,}" for code, count in counts.items() if count > _OF_ONE_CODE]
    return [*lines, f"not shown: {', '.join(more)} (--json lists them)"] if more else lines


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", title, *(f"  {line}" for line in lines)] if lines else []


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))] if rows else []
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _data_lines(plan: Plan) -> list[str]:
    lines = _aligned(
        [
            (name, f"{split.rows:,} rows", size(split.bytes), split.kind, f"sha256 {split.sha256[:12]}")
            for name, split in plan.data.splits.items()
        ]
    )
    # Core may already have added the warnings of the data report to the plan.
    known = set(plan.warnings)
    return lines + first_of_each([problem for problem in plan.data.problems if problem not in known])


def _evaluation_lines(plan: Plan) -> list[str]:
    asked = plan.evaluation
    if asked is None:
        return []
    guard = f" and {asked.guard_rows:,} guard rows" if asked.guard_rows else ""
    lines = [
        f"{asked.rows:,} rows{guard}: {', '.join(asked.metrics)}",
        f"asks {', '.join(asked.models)}: at most {asked.answers:,} answers of at most {asked.max_tokens:,} tokens",
    ]
    if asked.judge:
        lines.append(f"asks {asked.judge} to judge: at most {asked.judge_questions:,} questions")
    if asked.max_cost_usd is not None:
        lines.append(f"asks nothing if this may cost more than {asked.max_cost_usd:g} USD, or if the price is unknown")
    elif plan.backend != "local" or asked.judge:
        lines.append("what the answers cost is estimated before the first one, and not limited: see max_cost_usd")
    return lines


def _step_lines(number: int, step: Step, requests: bool) -> list[str]:
    lines = [f"{number}. {step.title}  [{step.kind}: {_once(step)}]"]
    if requests:
        text = json.dumps(step.request, ensure_ascii=False, indent=2, default=str)
        lines += [f"   {line}" for line in text.splitlines()]
    return lines


def _once(step: Step) -> str:
    return _ONCE.get(step.once) or _PURE.get(step.kind, "safe to repeat")


def warnings_text(problems: tuple[Problem, ...]) -> str:
    """Format the warnings, for commands that do not show the plan."""
    return "\n".join(f"warning: {line}" for line in first_of_each(problems))
