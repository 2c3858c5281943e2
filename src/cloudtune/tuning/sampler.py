"""Chooses the parameters of the next trial, and trials that are not worth continuing, with optuna.

The ledger has all trials, so optuna's study is built from them each time and lives in memory. Both decisions are
functions of the ended trials, the trial's number and the seed: a search that is killed and started again makes them
in the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune.errors import InputError
from cloudtune.install_command import install_command
from cloudtune.tuning.space import distribution, from_optuna, to_optuna

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune.ledger.trials import Trial
    from cloudtune.spec_tune import Tune

_JUDGED_AFTER = 5
"""Trials that are never pruned: the median of fewer says little."""


class Sampler:
    """Optuna's TPE sampler and median pruner, without its storage."""

    def __init__(self, tune: Tune) -> None:
        try:
            import optuna
        except ImportError as error:
            raise InputError("a search requires optuna", hint=f"run: {install_command('tune')}") from error
        self._optuna, self._tune = optuna, tune
        self._space = {path: distribution(one) for path, one in tune.parameters.items()}

    def suggest(self, trials: Sequence[Trial], number: int) -> dict[str, Any]:
        """The parameters of the trial with that number, after these trials."""
        sampler = self._optuna.samplers.TPESampler(seed=(self._tune.seed + 7919 * number) % 2**32, constant_liar=True)
        asked = self._study(trials, sampler).ask(self._space)
        return {path: from_optuna(one, asked.params[path]) for path, one in self._tune.parameters.items()}

    def pruned_at(self, trials: Sequence[Trial], curve: Sequence[tuple[int, float]], start: int) -> int | None:
        """The first position of the curve, from ``start``, at which a trial is worse than the median of others."""
        complete = [one for one in trials if one.outcome is not None and one.outcome.state == "complete"]
        if not self._tune.prune or len(complete) < _JUDGED_AFTER or start >= len(curve):
            return None
        study = self._study(complete, None)
        pruner = self._optuna.pruners.MedianPruner(n_startup_trials=_JUDGED_AFTER)
        for position in range(start, len(curve)):
            running = self._optuna.trial.create_trial(
                state=self._optuna.trial.TrialState.RUNNING, intermediate_values=dict(curve[: position + 1])
            )
            if pruner.prune(study, running):
                return position
        return None

    def _study(self, trials: Sequence[Trial], sampler: Any) -> Any:
        optuna = self._optuna
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # it announces each study
        try:
            study = optuna.create_study(direction="minimize" if self._tune.minimizes else "maximize", sampler=sampler)
        finally:
            optuna.logging.set_verbosity(verbosity)
        study.add_trials([self._as_optuna(one) for one in trials])
        return study

    def _as_optuna(self, one: Trial) -> Any:
        """The trial for optuna; without parameters if the spec's own ones are outside of the search space."""
        outcome, states = one.outcome, self._optuna.trial.TrialState
        try:
            parameters = {path: to_optuna(it, one.parameters[path]) for path, it in self._tune.parameters.items()}
        except (KeyError, ValueError):
            parameters = {}
        state, value = states.RUNNING, None
        if outcome is not None:
            state = {"complete": states.COMPLETE, "pruned": states.PRUNED}.get(outcome.state, states.FAIL)
            value = outcome.value if state != states.FAIL else None
        return self._optuna.trial.create_trial(
            state=state, value=value, params=parameters, distributions=self._space if parameters else {},
            intermediate_values={} if outcome is None else dict(outcome.curve),
        )  # fmt: skip
