"""The search space: which parameters a trial can vary, and the spec of a trial."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune.capability_check import fit, parameter_problem, with_parameters
from cloudtune.errors import InputError, Problem, SpecError
from cloudtune.spec_tune import Choices

if TYPE_CHECKING:
    from cloudtune.backend import Backend
    from cloudtune.spec import JobSpec
    from cloudtune.spec_tune import Parameter, Tune

TUNABLE = ("adapter", "checkpoints", "hyperparameters", "layers", "method", "overrides", "seed", "validation")
"""The parts of a spec that a trial can vary. With others, the metrics of two trials are not comparable."""


def check_space(spec: JobSpec, tune: Tune, backend: Backend) -> None:
    """Check the ends of every range and every choice against the spec and the back end.

    Raises:
        SpecError: Values that a job cannot have, all of them.
    """
    try:
        fit(with_parameters(spec, {}), backend)
        known: set[tuple[str | None, str]] = set()
    except InputError as error:  # planning the first trial reports these
        known = {(one.field, one.message) for one in error.problems}
    problems: list[Problem] = []
    for path, parameter in tune.parameters.items():
        if path.split(".")[0] not in TUNABLE:
            message = f"{path} cannot be tuned; a trial can vary: {', '.join(TUNABLE)}"
            problems.append(Problem(code="not_tunable", field=f"tune.parameters.{path}", message=message))
            continue
        if outer := next((one for one in tune.parameters if path.startswith(f"{one}.")), None):
            message = f"{outer} is tuned too, and contains it"
            problems.append(Problem(code="overlap", field=f"tune.parameters.{path}", message=message))
            continue
        if (found := parameter_problem(spec, backend, path, parameter, known)) is not None:
            problems.append(Problem(code="parameter", field=f"tune.parameters.{path}", message=found))
    if problems:
        raise SpecError(problems)


def distribution(parameter: Parameter) -> Any:
    """The optuna distribution. That of choices has their numbers, so that they can be of any type."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(parameter, Choices):
        return CategoricalDistribution(range(len(parameter.choices)))
    if parameter.is_whole:
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def to_optuna(parameter: Parameter, value: Any) -> Any:
    """The value for optuna: the number of a choice, or the value itself. Raises ValueError for one that is outside."""
    if isinstance(parameter, Choices):
        return parameter.choices.index(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not parameter.low <= value <= parameter.high:
        raise ValueError(f"{value!r} is outside of the range")
    return value


def from_optuna(parameter: Parameter, value: Any) -> Any:
    """The reverse of `to_optuna`. Fractions get 4 significant digits, so that a spec is easy to read."""
    if isinstance(parameter, Choices):
        return parameter.choices[value]
    if parameter.is_whole:
        return int(value)
    return min(max(float(f"{value:.4g}"), float(parameter.low)), float(parameter.high))


def parameters_in(spec: JobSpec, tune: Tune) -> dict[str, Any]:
    """The tuned parameters that the spec itself sets, by path."""
    document = spec.model_dump(mode="json", exclude_none=True)
    found: dict[str, Any] = {}
    for path in tune.parameters:
        here: Any = document
        for part in path.split("."):
            here = here.get(part) if isinstance(here, dict) else None
        if here is not None:
            found[path] = here
    return found
