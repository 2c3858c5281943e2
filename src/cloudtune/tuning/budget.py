"""The budget of a search in dollars and in run time, counted over all of its jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.errors import PolicyRefused
from cloudtune.ledger.costs import recorded_cost
from cloudtune.state import JobRef

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloudtune.ledger.ledger import Ledger
    from cloudtune.ledger.trials import Trial
    from cloudtune.plan import Plan
    from cloudtune.spec import JobSpec
    from cloudtune.spec_tune import Tune


class Budget:
    """What a search may use. ``reserve`` is the number of final trainings for which it keeps the cost of a trial."""

    def __init__(self, tune: Tune, ledger: Ledger, plan: Callable[[JobSpec], Plan]) -> None:
        self._tune, self._ledger, self._plan = tune, ledger, plan
        self.is_out_of_time = False
        """Running jobs were cancelled because the time was over."""
        self.running: dict[str, float] = {}
        """For how many seconds the job of each open trial had run when it was last read."""

    def affordable(self, spec: JobSpec, every: Sequence[Trial], free: int, reserve: int) -> Plan:
        """The plan of a trial, limited to what it may cost. Raises PolicyRefused if the budget does not suffice."""
        budget = self._tune.max_cost_usd
        if budget is None:
            return self._plan(spec)
        ended = [self.cost(one) or 0.0 for one in every if one.outcome is not None]
        left = budget - sum(self.cost(one) or 0.0 for one in every) - reserve * max(ended, default=0.0)
        why = ""
        # The cost of a trial is not known before one has ended: each final training keeps an equal share, if it can.
        for share in range(free if any(ended) else free + reserve, 0, -1):
            limit = min(spec.limits.max_cost_usd or left, left / share)
            if limit <= 0:
                break
            limits = spec.limits.model_copy(update={"max_cost_usd": limit})
            try:
                return self._plan(spec.model_copy(update={"limits": limits}))
            except PolicyRefused as error:
                if share == 1 and not every:
                    raise
                why = f": {error.message}"
        kept = ", and keeps the cost of the final trainings" if reserve else ""
        raise PolicyRefused(f"tune.max_cost_usd of {budget:g} USD does not pay for another trial{kept}{why}")

    def cost(self, trial: Trial) -> float | None:
        """What a trial costs: the recorded cost of its job, or else the most that it can cost. None if it is unknown.

        It is never unknown with ``tune.max_cost_usd``: each job then has a limit.
        """
        ref = trial.outcome.ref if trial.outcome is not None else None
        if trial.outcome is not None and ref is None:
            return 0.0
        recorded = None if ref is None else recorded_cost(self._ledger, JobRef.parse(ref))
        known = recorded.usd if recorded is not None else None
        return known if known is not None else trial.committed_usd

    def why_out_of_time(self, every: Sequence[Trial], reserve: int) -> str:
        """Why no trial can start now; empty if one can."""
        limit = self._tune.max_time
        if limit is None:
            return ""
        longest = max((one.outcome.seconds for one in every if one.outcome is not None), default=0.0)
        if not self.is_out_of_time and self._seconds(every) + reserve * longest < limit:
            return ""
        kept = ", and keeps the time of the final trainings" if reserve else ""
        return f"tune.max_time of {limit:g} s does not allow another trial{kept}"

    def time_left(self, every: Sequence[Trial], jobs: int) -> float | None:
        """For how many seconds so many jobs can continue. None: without a limit."""
        if self._tune.max_time is None or self.is_out_of_time:
            return None
        return max(0.0, (self._tune.max_time - self._seconds(every)) / jobs)

    def _seconds(self, every: Sequence[Trial]) -> float:
        return sum(self.running.get(one.name, 0.0) if one.outcome is None else one.outcome.seconds for one in every)
