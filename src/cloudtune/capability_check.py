"""Checks a spec against a back end's Capabilities: every field is applied, translated, dropped on request or rejected.

All rejections are reported at once, before any I/O. No field is dropped silently.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from cloudtune.errors import InputError, Problem, UnsupportedError
from cloudtune.optional import DataRules
from cloudtune.plan import Dropped
from cloudtune.redaction.masking import looks_secret
from cloudtune.spec import JobSpec
from cloudtune.spec_tune import Choices

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cloudtune.backend import Backend
    from cloudtune.data.checks.targets import Target
    from cloudtune.spec_tune import Parameter


class Fitted(NamedTuple):
    """A spec as a back end can carry it out."""

    spec: JobSpec
    dropped: tuple[Dropped, ...]
    advice: tuple[Problem, ...]
    """The warnings of the back end's ``check``."""


def fit(spec: JobSpec, backend: Backend) -> Fitted:
    """The spec as that back end can carry it out. Raises UnsupportedError."""
    problems: list[Problem] = []
    dropped: list[Dropped] = []
    capabilities = backend.capabilities
    given = spec.overrides.get(backend.name, {})
    for feature, value in spec.requested_fields().items():
        if capabilities.can(feature):
            continue
        reason = capabilities.why_not(feature)
        override = capabilities.overridden_by.get(feature)
        if override is not None and given.get(override) is not None:
            reason = f"overrides.{backend.name}.{override} overrides it"
            dropped.append(Dropped(field=feature, value=_plain(value), reason=reason))
            continue
        if spec.unsupported == "drop" and _droppable(feature):
            dropped.append(Dropped(field=feature, value=_plain(value), reason=reason))
        else:
            problems.append(_refusal(backend.name, feature, value, reason))
    problems += _model_problems(spec, backend.name) + _override_problems(spec, backend) + _secrets(spec)
    fitted = without(spec, [drop.field for drop in dropped])
    found = backend.check(fitted)
    refused = {problem.field for problem in problems if problem.code == "unsupported"}
    problems += [problem for problem in found if problem.severity == "error" and problem.field not in refused]
    if problems:
        raise UnsupportedError(problems)
    return Fitted(fitted, tuple(dropped), tuple(found))


def with_parameters(spec: JobSpec, parameters: Mapping[str, Any], **more: Any) -> JobSpec:
    """The spec of a single job with these values, by path. Raises pydantic's ValidationError."""
    document: dict[str, Any] = spec.model_dump(mode="json", exclude_none=True, exclude={"tune", "evaluation"})
    for path, value in parameters.items():
        *parts, last = path.split(".")
        here = document
        for part in parts:
            inner = here.get(part)
            here[part] = inner if isinstance(inner, dict) else {}
            here = here[part]
        here[last] = value
    return JobSpec.model_validate(document | more)


def parameter_problem(
    spec: JobSpec, backend: Backend, path: str, parameter: Parameter, known: Collection[tuple[str | None, str]] = ()
) -> str | None:  # fmt: skip
    """Why a search cannot vary that parameter: a problem with an end of its range, or one of its choices.

    ``known`` are fields and messages of the problems that the spec has without it.
    """
    ends = parameter.choices if isinstance(parameter, Choices) else (parameter.low, parameter.high)
    found = (_problem_of_value(spec, backend, path, value, known) for value in ends)
    return next((problem for problem in found if problem is not None), None)


def _problem_of_value(
    spec: JobSpec, backend: Backend, path: str, value: Any, known: Collection[tuple[str | None, str]]
) -> str | None:  # fmt: skip
    try:
        dropped = fit(with_parameters(spec, {path: value}), backend).dropped
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        if fault["type"] == "extra_forbidden":
            return f"a spec has no field {path}"
        return f"{value!r} is not valid: {fault['msg']}"
    except InputError as error:
        new = [one for one in error.problems if (one.field, one.message) not in known]
        return f"{value!r} is refused: {new[0].message}" if new else None
    without_effect = (one for one in dropped if f"{path}.".startswith(f"{one.field}."))
    return next((f"{one.field} has no effect on {backend.name}: {one.reason}" for one in without_effect), None)


def row_rules(spec: JobSpec, backend: Backend) -> Target | None:
    """The back end's rules for rows; None if it has none."""
    return backend.data_target(spec) if isinstance(backend, DataRules) else None


def without(spec: JobSpec, fields: list[str]) -> JobSpec:
    """Return the spec without those fields."""
    document: dict[str, Any] = spec.model_dump(mode="json", exclude_none=True)
    for field in fields:
        *parts, last = field.split(".")
        holder = document
        for part in parts:
            holder = holder.get(part, {})
        holder.pop(last, None)
    return JobSpec.model_validate(document) if fields else spec


def _droppable(feature: str) -> bool:
    # Dropping the method or adapter would change the training itself.
    return ":" not in feature


def _refusal(backend: str, feature: str, value: Any, reason: str) -> Problem:
    if _droppable(feature):
        field = feature
        message = f"{backend} does not support it: {reason}"
        fix = "remove it, or set `unsupported: drop` to submit without it"
    else:
        kind = feature.partition(":")[0]
        field = f"{kind}.{'name' if kind == 'method' else 'type'}"
        message = f"{backend} does not support {value}: {reason}"
        fix = f"choose another {kind} or another back end; run `cloudtune backends {backend}` to see what it supports"
    return Problem(code="unsupported", field=field, message=message, fix=fix)


def _model_problems(spec: JobSpec, backend: str) -> list[Problem]:
    if spec.model_for(backend):
        return []
    named = ", ".join(spec.model) if isinstance(spec.model, dict) else ""
    return [
        Problem(
            code="no_model", field="model", message=f"no model is set for {backend}, only for: {named}",
            fix=f"add `{backend}: ...` under model",
        )
    ]  # fmt: skip


def _override_problems(spec: JobSpec, backend: Backend) -> list[Problem]:
    given = spec.overrides.get(backend.name, {})
    try:
        backend.Overrides.model_validate(given)
    except ValidationError as error:
        return [_override_problem(backend, fault) for fault in error.errors()]
    return []


def _override_problem(backend: Backend, fault: Any) -> Problem:
    field = ".".join(str(part) for part in fault["loc"])
    fix = None
    if fault["type"] == "extra_forbidden":
        known = list(backend.Overrides.model_fields)
        near = get_close_matches(field, known, n=1)
        fix = (f"did you mean {near[0]!r}? " if near else "") + f"known: {', '.join(known) or 'none'}"
    return Problem(
        code="override", field=f"overrides.{backend.name}.{field}".rstrip("."), message=str(fault["msg"]), fix=fix
    )


def _secrets(spec: JobSpec) -> list[Problem]:
    """Check for secrets: a spec is stored in the ledger and shown in plans, so it must contain none."""
    fix = "remove it; put secrets in the vendor's credentials, or reference them as ${NAME} in `cloudtune.toml`"
    return [
        Problem(code="secret", field=".".join(path), message="this looks like a secret", fix=fix)
        for path, value in _texts(spec.model_dump(mode="json", exclude_none=True))
        if looks_secret(path, value)
    ]


def _texts(value: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str]]:
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in _texts(item, (*path, str(key)))]
    if isinstance(value, list):
        return [found for number, item in enumerate(value) for found in _texts(item, (*path, str(number)))]
    return [(path, value)] if isinstance(value, str) else []


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value
