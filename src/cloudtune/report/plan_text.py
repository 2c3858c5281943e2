"""Parts of a plan as text, for the command line and for reports."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cloudtune.methods import DEFAULT_METHOD

if TYPE_CHECKING:
    from cloudtune.cost import ActualCost
    from cloudtune.plan import Plan


def method_text(plan: Plan) -> str:
    """The method and the adapter."""
    method = plan.spec.get("method")
    name = method.get("name") if isinstance(method, dict) else method
    kind = next((one.value for one in plan.settings if one.field == "adapter.type"), None)
    return f"{name or DEFAULT_METHOD} with {kind}" if kind else str(name or DEFAULT_METHOD)


def value_text(value: Any) -> str:
    """A setting's value."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return f"{value:g}" if isinstance(value, float) else str(value)


def cost_text(plan: Plan) -> str:
    """The estimated cost."""
    cost = plan.cost
    if cost is None:
        by_hour = "unknown; deployments may be billed by the hour, even when idle"
        return by_hour if plan.purpose == "deploy" else "not estimated"
    dated = f", prices as of {cost.prices_as_of}" if cost.prices_as_of else ""
    if cost.usd is not None:
        low, high = cost.at_least_usd, cost.at_most_usd
        bounds = ""
        if high is not None and _usd(high) != _usd(cost.usd):
            bounds = f", at most {_usd(high)}" if low is None else f", between {_usd(low)} and {_usd(high)}"
        return f"about {_usd(cost.usd)}{bounds} ({cost.basis}{dated})"
    if cost.at_most_usd is None:
        return cost.basis
    least, most = cost.at_least_usd, _usd(cost.at_most_usd)
    span = f"at most {most}" if least is None else f"{_usd(least)} to {most}"
    if least is not None and _usd(least) == most:
        span = most
    return f"{span} ({cost.basis}{dated})"


def actual_cost_text(cost: ActualCost) -> str:
    """What a job cost."""
    return f"{_usd(cost.usd)} ({cost.basis})" if cost.usd is not None else f"unknown ({cost.basis})"


def not_in_cost(plan: Plan) -> list[str]:
    """What the estimate leaves out, and what is billed later."""
    if plan.cost is None:
        return []
    later = [f"later: {text}" for text in plan.cost.later]
    if plan.cost.unknown and plan.purpose == "job":
        return [f"unknown, and not in the figures: {', '.join(plan.cost.unknown)}", *later]
    return later


def _usd(sum_: float) -> str:
    return f"${sum_:,.2f}" if sum_ >= 0.005 or sum_ == 0 else "less than $0.01"
