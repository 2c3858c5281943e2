"""Format a plan as text: steps, data, settings with their sources, and cost."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from cloudtune.cli.render import size
from cloudtune.methods import DEFAULT_METHOD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune.errors import Problem
    from cloudtune.plan import Plan, Step

_ONCE = {"atomic": "idempotent by request token", "reconciled": "idempotent, checked before sending"}
_OF_ONE_CODE = 5
"""Problems of one code that are shown."""
_PURE = {"encode": "local", "await": "read-only"}


def plan_text(plan: Plan, *, requests: bool = False, settings: bool = True) -> str:
    """Format the whole plan."""
    model = plan.spec.get("model")
    model = model.get(plan.backend) if isinstance(model, dict) else model
    verb = "for" if plan.purpose == "job" else f"to {plan.purpose}"
    parts = [f"Plan {verb} {plan.name} on {plan.backend} ({plan.scope})"]
    attempt = f"attempt {plan.attempt}, " if plan.attempt > 1 else ""
    method = f"method {_method(plan)}, " if plan.purpose == "job" else ""
    parts.append(f"  model {model}, {method}{attempt}token {plan.token[:10]}")
    if plan.parent:
        parts.append(f"  continues from the newest valid checkpoint of {plan.parent}")
    parts += _section("Data", _data_lines(plan))
    parts += _section("Steps", [line for number, step in enumerate(plan.steps, 1)
                                for line in _step_lines(number, step, requests)])  # fmt: skip
    if settings:
        parts += _section("Settings", _aligned([(one.field, _value(one.value), one.source) for one in plan.settings]))
    parts += _section("Dropped fields (not supported by the back end)",
                      [f"{one.field} = {_value(one.value)}: {one.reason}" for one in plan.dropped])  # fmt: skip
    parts += _section("Warnings", _first_of_each(plan.warnings))
    return "\n".join([*parts, "", f"Cost: {_cost(plan)}"])


def _method(plan: Plan) -> str:
    method = plan.spec.get("method")
    name = method.get("name") if isinstance(method, dict) else method
    kind = next((one.value for one in plan.settings if one.field == "adapter.type"), None)
    return f"{name or DEFAULT_METHOD} with {kind}" if kind else str(name or DEFAULT_METHOD)


def _first_of_each(problems: Sequence[Problem]) -> list[str]:
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
    return lines + _first_of_each([problem for problem in plan.data.problems if problem not in known])


def _step_lines(number: int, step: Step, requests: bool) -> list[str]:
    lines = [f"{number}. {step.title}  [{step.kind}: {_once(step)}]"]
    if requests:
        text = json.dumps(step.request, ensure_ascii=False, indent=2, default=str)
        lines += [f"   {line}" for line in text.splitlines()]
    return lines


def _once(step: Step) -> str:
    return _ONCE.get(step.once) or _PURE.get(step.kind, "safe to repeat")


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cost(plan: Plan) -> str:
    if plan.cost is None:
        by_hour = "unknown; deployments may be billed by the hour, even when idle"
        return by_hour if plan.purpose == "deploy" else "not estimated"
    dated = f", prices as of {plan.cost.prices_as_of}" if plan.cost.prices_as_of else ""
    if plan.cost.usd is not None:
        return f"about {_usd(plan.cost.usd)} ({plan.cost.basis}{dated})"
    if plan.cost.at_most_usd is None:
        return plan.cost.basis
    least, most = plan.cost.at_least_usd, _usd(plan.cost.at_most_usd)
    span = f"at most {most}" if least is None else f"{_usd(least)} to {most}"
    if least is not None and _usd(least) == most:
        span = most
    return f"{span} ({plan.cost.basis}{dated})"


def _usd(sum_: float) -> str:
    return f"${sum_:,.2f}" if sum_ >= 0.005 or sum_ == 0 else "less than $0.01"


def warnings_text(problems: tuple[Problem, ...]) -> str:
    """Format the warnings, for commands that do not show the plan."""
    return "\n".join(f"warning: {line}" for line in _first_of_each(problems))
