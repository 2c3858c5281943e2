"""Parts of a plan as text, for the command line and for reports."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cloudtune.methods import DEFAULT_METHOD

if TYPE_CHECKING:
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
