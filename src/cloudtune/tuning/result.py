"""A whole search: the trials, the final trainings, their comparison on the test rows, and the best spec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune.capability_check import with_parameters
from cloudtune.errors import BackendError, InputError, PolicyRefused
from cloudtune.evaluation.prepared import prepare
from cloudtune.evaluation.repeats import Repeats
from cloudtune.ledger.trials import Trial
from cloudtune.state import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloudtune.evaluation.evaluating import Evaluator
    from cloudtune.evaluation.result import EvaluateOptions
    from cloudtune.spec import Data, JobSpec, Source
    from cloudtune.tuning.study import Study

DEFAULTS, BEST = "original parameters", "tuned parameters"


class TuneResult(Value, frozen=True, kw_only=True):
    """What a search has found."""

    study: str
    """The identity of the search."""
    backend: str
    metric: str
    minimizes: bool
    trials: tuple[Trial, ...]
    """In the order in which they were started. The first one has the spec's own parameters."""
    best: Trial
    """The trial with the best metric on the validation rows."""
    reruns: tuple[Trial, ...]
    """The best and the original parameters, trained again with other seeds."""
    measured: Repeats | None
    """Their models compared on the test rows, which no trial has seen."""
    verdict: str
    """What tuning was worth, in words."""
    notes: tuple[str, ...]
    """What limits the result."""
    jobs: int
    """How many jobs the search has had, those of a former best trial included."""
    cost_usd: float
    """Of all jobs whose cost is known: recorded costs, and the most that a job can cost where nothing is recorded."""
    unknown_costs: int
    """How many jobs have an unknown cost, which is not in ``cost_usd``."""
    seconds: float
    """The run time of all jobs."""
    spec: dict[str, Any]
    """The spec with the best parameters, without its section ``tune``."""


def tuned(study: Study, evaluator: Callable[[], Evaluator]) -> TuneResult:
    """Search, train the best and the original parameters again, and compare them on the test rows."""
    asked = _test_rows(study.spec) if study.tune.seeds else None
    if asked is not None:
        prepare(*asked, study.spec, trusted=evaluator().trust_reward)  # raises now, and not after all trials
    seeds = 0 if asked is None else study.tune.seeds
    study.search(final_trainings=2 * seeds)
    trials = study.trials()
    best = study.best(trials)
    if best is None:  # `search` has raised an error if all have failed
        raise PolicyRefused(
            f"no trial was complete: {study.stopped or 'the time of the search was over'}",
            hint="raise the budget, and run the same command again",
        )
    notes = [f"{len(trials)} of {study.tune.trials} trials: {study.stopped}"] if study.stopped else []
    reruns: list[Trial] = []
    measured: Repeats | None = None
    verdict = "No trial was better than the original parameters."
    if best.number:
        chosen = f"{study.tune.metric} on the validation rows: {_shown(best)}, originally {_shown(trials[0])}"
        verdict = f"{chosen}. What that is worth on other rows was not measured."
        if asked is None:
            problem = "tune.seeds is 0" if not study.tune.seeds else "the spec has neither data.test nor evaluation"
        else:
            problem = _why_silent(study, best, evaluator, asked)
        if asked is not None and not problem:
            reruns = study.rerun([best.number, 0])
            if study.stopped:
                notes.append(f"{len(reruns)} of {2 * seeds} final trainings: {study.stopped}")
            measured, problem = _measured(study, best, reruns, evaluator, asked)
        if measured is not None:
            verdict = measured.worth
            if measured.overlap.has_seen:
                notes.append("some test rows are training rows: see `cloudtune evaluate`")
        else:
            notes.append(f"not measured on test rows: {problem}")
    every = [one for one in study.every() if one.outcome is None or one.outcome.ref is not None]
    costs = [study.budget.cost(one) for one in every]
    return TuneResult(
        study=study.id, backend=study.backend.name, metric=study.tune.metric, minimizes=study.tune.minimizes,
        trials=tuple(trials), best=best, reruns=tuple(reruns), measured=measured, verdict=verdict, notes=tuple(notes),
        jobs=len(every), cost_usd=sum(cost for cost in costs if cost is not None), unknown_costs=costs.count(None),
        seconds=sum(one.outcome.seconds for one in every if one.outcome is not None),
        spec=best_spec(study.spec, best).model_dump(mode="json", exclude_none=True, exclude_defaults=True),
    )  # fmt: skip


def best_spec(spec: JobSpec, best: Trial) -> JobSpec:
    """The spec with the parameters of a trial."""
    found = with_parameters(spec, best.parameters)
    return found.model_copy(update={"evaluation": spec.evaluation})


def _why_silent(
    study: Study, best: Trial, evaluator: Callable[[], Evaluator], asked: tuple[Source | Data, EvaluateOptions]
) -> str:
    """Why the best model does not answer, for example because it must be deployed first; empty if it does.

    Asked before the final trainings, which cost money and are of no use then.
    """
    asking = evaluator()
    test = prepare(*asked, study.spec, trusted=asking.trust_reward)
    one_row = test._replace(rows=test.rows[:1], expected=test.expected[:1])
    try:
        asking.answered({BEST: [study.job(best)]}, one_row, asked[1])
    except (InputError, BackendError, PolicyRefused) as error:
        return error.message
    return ""


def _measured(
    study: Study, best: Trial, reruns: Sequence[Trial], evaluator: Callable[[], Evaluator],
    asked: tuple[Source | Data, EvaluateOptions],
) -> tuple[Repeats | None, str]:  # fmt: skip
    """The comparison on the test rows, or why there is none."""
    from cloudtune.evaluation.repeats import compare_repeats

    good = [one for one in reruns if one.outcome is not None and one.outcome.state == "complete"]
    ways = {
        name: [study.job(one) for one in good if one.number == number]
        for name, number in ((BEST, best.number), (DEFAULTS, 0))
    }
    if not all(ways.values()):
        return None, "the final trainings are not complete"
    try:
        return compare_repeats(evaluator(), ways, *asked, study.spec), ""
    except (InputError, BackendError, PolicyRefused) as error:
        return None, error.message


def _test_rows(spec: JobSpec) -> tuple[Source | Data, EvaluateOptions] | None:
    """The rows that measure, and how; None if the spec has none."""
    from cloudtune.evaluation.prepared import requested
    from cloudtune.evaluation.result import EvaluateOptions

    asked = requested(spec)
    if asked is not None:
        return asked.data, asked.options
    return None if spec.data.test is None else (spec.data, EvaluateOptions())


def _shown(trial: Trial) -> str:
    outcome = trial.outcome
    return "unknown" if outcome is None or outcome.value is None else f"{outcome.value:.4g}"
