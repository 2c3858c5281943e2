"""Estimates, cost limits and budgets of new jobs, and the recorded cost of those that have ended.

A cost limit is kept in one of two ways. A job that is billed by its run time gets a time limit, at which the back end
stops it. Any other job is refused if it may cost more. A cost that is unknown is refused, unless the user accepts it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.cost import Measured
from cloudtune.errors import PolicyRefused, Problem
from cloudtune.ledger.costs import job_costs, record_cost, recorded_cost
from cloudtune.optional import Priced
from cloudtune.pricing import actual
from cloudtune.state import JobRef, JobState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune.backend import Backend
    from cloudtune.config.budgets import Budget
    from cloudtune.cost import ActualCost, CostEstimate
    from cloudtune.ledger.ledger import Ledger
    from cloudtune.plan import Plan, PlanRequest
    from cloudtune.spec import JobSpec
    from cloudtune.state import JobSnapshot

FIELD = "limits.max_cost_usd"
_ROUNDED_USD = 1e-4
"""Estimates are rounded to this."""
_NEWEST = 50
"""How many earlier jobs of a back end are searched for their speed."""
_SUBMITTING = timedelta(minutes=1)
"""An attempt that began before that has a job, or a step that a process works on, or was refused."""
_REPORTED_LATE = timedelta(days=7)
"""How long after a job's end the vendor may still report what it is billed for."""
_ACCEPT = "pass --accept-unknown-cost to submit it without a limit"
_SAME_SPEED = ("epochs", "max_steps", "learning_rate", "scheduler", "warmup_steps", "warmup_ratio", "weight_decay",
               "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "neftune_alpha")  # fmt: skip
"""Hyperparameters that do not change how long a row takes."""


def estimated(
    request: PlanRequest, backend: Backend, ledger: Ledger, *, accept_unknown: bool
) -> tuple[PlanRequest, CostEstimate | None, list[Problem]]:
    """Estimate the cost of a job and apply its limit.

    Returns:
        The request, with the run time at which the limit is reached; the estimate; what the user must know first.

    Raises:
        PolicyRefused: The job may cost more than its limit, or its cost is unknown and not accepted.
    """
    cap = request.spec.limits.max_cost_usd
    if not isinstance(backend, Priced):
        why = f"{backend.name} reports no prices"
        return request, None, [] if cap is None else [_not_kept(why, accept_unknown=accept_unknown)]
    if request.parent is None:  # how much a resumed job has left to train is only known when it starts
        request = msgspec.structs.replace(request, measured=measured(ledger, backend.name, request.spec))
    cost = backend.estimate(request)
    if cap is None:
        return request, cost, []
    problems, limit = [], f"{FIELD} of {_usd(cap)} USD"
    spent = None if request.parent is None else _cost_with_parents(ledger, request.parent)
    if request.parent is not None and spent is None:
        problems.append(_not_kept(f"the cost of {request.parent} is unknown", accept_unknown=accept_unknown))
    if spent:
        if spent >= cap:
            raise PolicyRefused(
                f"{request.parent} and the jobs before it cost {_usd(spent)} USD, and {FIELD} is {_usd(cap)} USD",
                hint=f"raise {FIELD} in the spec file, and submit it with --resume",
            )
        cap -= spent
        limit = f"the {_usd(cap)} USD that {request.parent} left of {FIELD}"
    request, cost, found = _limited(request, backend, backend.name, cost, cap, limit, accept_unknown=accept_unknown)
    return request, cost, [*problems, *found]


def _cost_with_parents(ledger: Ledger, ref: JobRef) -> float | None:
    """What a job and those that it continued cost, or the most that they can have cost. None if that is unknown."""
    made = ledger.of_ref(ref)
    own = None if made is None else _most(made.plan, recorded_cost(ledger, ref))
    if made is None or own is None or made.plan.parent is None:
        return own
    before = _cost_with_parents(ledger, JobRef.parse(made.plan.parent))
    return None if before is None else own + before


def _limited(
    request: PlanRequest, priced: Priced, backend: str, cost: CostEstimate, cap: float, limit: str, *,
    accept_unknown: bool,
) -> tuple[PlanRequest, CostEstimate, list[Problem]]:  # fmt: skip
    """Apply a limit, which ``limit`` describes, to an estimate. See `estimated`."""
    if (floor := cost.usd if cost.usd is not None else cost.at_least_usd) is not None and floor > cap:
        raise PolicyRefused(
            f"the job would cost about {_usd(floor)} USD, more than {limit}: {cost.basis}",
            hint=f"raise {FIELD}, or train on fewer rows or epochs",
        )
    if cost.usd_per_hour and cost.time_limit != "none":
        if cost.at_most_usd is not None and cost.at_most_usd <= cap:
            return request, cost, []
        seconds = max(0.0, cap / cost.usd_per_hour * 3600 - cost.billed_after_s)
        request = msgspec.structs.replace(request, run_seconds=seconds)
        cost = priced.estimate(request) if seconds else cost
        if cost.at_most_usd is None or cost.at_most_usd > cap + _ROUNDED_USD:
            raise PolicyRefused(
                f"{limit} pays for {seconds:.3g} s, and {backend} cannot limit a job to that: {cost.basis}",
                hint=f"raise {FIELD}",
            )
        return request, cost, [_announced(backend, cost, cap, seconds)]
    if cost.at_most_usd is not None and not cost.unknown:
        if cost.at_most_usd > cap:
            raise PolicyRefused(
                f"the job may cost up to {_usd(cost.at_most_usd)} USD, more than {limit}, and {backend} cannot "
                f"stop a job there with a usable model: {cost.basis}",
                hint=f"raise {FIELD}, or train on fewer rows or epochs",
            )
        return request, cost, []
    why = f"part of the cost is unknown: {', '.join(cost.unknown) or 'its maximum'} ({cost.basis})"
    return request, cost, [_not_kept(why, accept_unknown=accept_unknown)]


def _not_kept(why: str, *, accept_unknown: bool) -> Problem:
    """The warning that the limit is not kept. Raises PolicyRefused if the user has not accepted that."""
    if not accept_unknown:
        raise PolicyRefused(f"{FIELD} cannot be kept, because {why}", hint=_ACCEPT)
    message = f"{FIELD} is not kept, because {why}"
    return Problem(code="unknown_cost", severity="warning", field=FIELD, message=message)


def _usd(amount: float) -> str:
    return f"{amount:,.2f}" if amount >= 1 else f"{amount:.4g}"


def _announced(backend: str, cost: CostEstimate, cap: float, seconds: float) -> Problem:
    left = {
        "keeps_model": "with the best checkpoint that it has by then",
        "stops": f"and {backend} then keeps no usable model",
    }[cost.time_limit if cost.time_limit != "none" else "stops"]
    message = f"{_usd(cap)} USD pay for {seconds / 3600:.3g} h: a job that needs longer is stopped before, {left}"
    return Problem(code="cost_limit", severity="warning", field=FIELD, message=message)


def measured(ledger: Ledger, backend: str, spec: JobSpec) -> Measured | None:
    """Return the speed of the ledger's jobs with the same model, method and settings, on the same back end."""
    wanted = _settings_of_speed(spec.model_dump(mode="json", exclude_none=True), backend)
    found = []
    for one in job_costs(ledger, backend=backend, recorded=True, limit=_NEWEST):
        plan, cost = one.attempt.plan, one.actual
        if cost is None or not cost.usage.seconds or _settings_of_speed(plan.spec, backend) != wanted:
            continue
        if plan.parent is not None:
            continue  # its epochs include those of its parent, its seconds do not
        epochs = cost.epochs
        if epochs is None and cost.state == JobState.SUCCEEDED:
            epochs = next((one.value for one in plan.settings if one.field == "hyperparameters.epochs"), None)
        train = plan.data.splits.get("train")
        if train is not None and isinstance(epochs, int | float) and epochs > 0 and train.bytes:
            found.append(cost.usage.seconds / (train.bytes * epochs / 1e6))
    if not found:
        return None
    return Measured(least_s=min(found), median_s=median(found), most_s=max(found), jobs=len(found))


def _settings_of_speed(spec: dict[str, Any], backend: str) -> dict[str, Any]:
    model = spec.get("model")
    hyper = {name: value for name, value in spec.get("hyperparameters", {}).items() if name not in _SAME_SPEED}
    return {
        "model": model.get(backend) if isinstance(model, dict) else model,
        "hyperparameters": hyper,
        "overrides": spec.get("overrides", {}).get(backend, {}),
        **{name: spec.get(name) for name in ("method", "adapter", "layers", "validation")},
    }


def is_awaited(cost: ActualCost | None, now: datetime) -> bool:
    """Whether the cost of a job is not recorded, or was not reported and may still be."""
    if cost is None:
        return True
    is_reported = cost.usage.tokens is not None or cost.usage.seconds is not None
    return not is_reported and bool(cost.ended_at) and now - datetime.fromisoformat(cost.ended_at) < _REPORTED_LATE


def settle(ledger: Ledger, backend: Backend, job: JobSnapshot, now: datetime) -> None:
    """Record the cost of a job that has ended, if it is awaited."""
    if not job.has_ended or not isinstance(backend, Priced):
        return
    made = ledger.of_ref(job.ref)
    if made is not None and is_awaited(recorded_cost(ledger, job.ref), now):
        cost = actual(made.plan.cost, backend.usage(job), job)
        # Not every vendor reports when a job ended: it has by now.
        record_cost(ledger, job.ref, msgspec.structs.replace(cost, ended_at=cost.ended_at or now.isoformat()))


def _most(plan: Plan, recorded: ActualCost | None) -> float | None:
    """What a job cost, or the most that it can. None if that is unknown."""
    if recorded is not None and recorded.usd is not None:
        return recorded.usd
    return None if plan.cost is None or plan.cost.unknown else plan.cost.at_most_usd


def committed(plan: Plan, recorded: ActualCost | None = None) -> float | None:
    """The cost of a job for a budget: what it cost or at most can; else its limit; else the likely cost; else None."""
    likely = None if plan.cost is None or plan.cost.unknown else plan.cost.usd
    known = (_most(plan, recorded), plan.spec.get("limits", {}).get("max_cost_usd"), likely)
    return next((value for value in known if value is not None), None)


def check_budgets(
    budgets: Sequence[Budget], ledger: Ledger, plan: Plan, now: datetime, *, accept_unknown: bool
) -> None:  # fmt: skip
    """Check the plan's job against the budgets that cover it.

    Raises:
        PolicyRefused: The job would exceed a budget, or its cost is unknown and not accepted.
        LedgerError: A row of the ledger is damaged: what was spent is unknown.
    """
    applying = [budget for budget in budgets if budget.covers(plan)]
    if not applying:
        return
    wanted = committed(plan)
    if wanted is None and not accept_unknown:
        raise PolicyRefused(
            f"the cost of the job is unknown, and the budget {applying[0].name} allows {_usd(applying[0].usd)} USD",
            hint=f"set {FIELD}, or {_ACCEPT.replace('without a limit', 'anyway')}",
        )
    known = job_costs(ledger, submitting_since=now - _SUBMITTING)
    if known.damaged:
        raise known.damaged[0].error()
    jobs = [one for one in known if one.attempt.token != plan.token]
    for budget in applying:
        since = budget.since(now)
        counted = [one for one in jobs if budget.covers(one.attempt.plan) and one.attempt.begun_at >= since]
        costs = [committed(one.attempt.plan, one.actual) for one in counted]
        spent, unknown = sum(cost or 0.0 for cost in costs), costs.count(None)
        if spent + (wanted or 0.0) > budget.usd:
            job = "the cost of the job is unknown" if wanted is None else f"the job may cost {_usd(wanted)} USD"
            others = f"; not counted: jobs with an unknown cost, {unknown}" if unknown else ""
            raise PolicyRefused(
                f"{job}, and {_usd(max(0.0, budget.usd - spent))} USD of the budget {budget.name} are left "
                f"({_usd(budget.usd)} USD per {budget.per}{others})",
                hint="run `cloudtune cost` to see what was spent, or raise the budget",
            )
