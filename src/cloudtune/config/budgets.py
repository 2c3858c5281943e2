"""Budgets: the most that jobs may cost in a period, from ``[budgets.NAME]`` in the configuration."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from cloudtune.state import Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune.plan import Plan


class Budget(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The most that the jobs of a back end, or with some tags, may cost in a period."""

    name: str
    usd: float
    per: Literal["day", "week", "month", "year", "total"] = "month"
    """The calendar period, in UTC."""
    backend: str | None = None
    tags: dict[str, str] = {}
    """Only jobs with all of these tags."""

    def covers(self, plan: Plan) -> bool:
        """Whether a job counts for this budget."""
        tags = plan.spec.get("tags", {})
        return self.backend in (None, plan.backend) and self.tags.items() <= tags.items()

    def since(self, now: datetime) -> str:
        """The start of the current period, ISO 8601."""
        day = now.replace(hour=0, minute=0, second=0, microsecond=0)
        starts = {
            "day": day,
            "week": day - timedelta(days=day.weekday()),
            "month": day.replace(day=1),
            "year": day.replace(month=1, day=1),
        }
        return starts[self.per].isoformat() if self.per in starts else ""


def budget_fault(name: str, values: Any) -> str | None:
    """Return what is wrong with a budget, or None."""
    if not isinstance(values, dict):
        return f"must be a table: write [budgets.{name}] above its settings"
    if "name" in values:
        return f"it has unknown field `name`: the name of the budget is that of the table, {name}"
    try:
        budget = msgspec.convert({"name": name, **values}, Budget)
    except msgspec.ValidationError as error:
        return str(error).replace("Object contains", "it has").split(" - at")[0]
    return None if budget.usd >= 0 else "usd cannot be negative"


def budgets_of(tables: Mapping[str, Mapping[str, Any]]) -> tuple[Budget, ...]:
    """Return the budgets of checked tables."""
    return tuple(msgspec.convert({"name": name, **values}, Budget) for name, values in tables.items())
