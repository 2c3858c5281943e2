"""Moves a spec to another back end: what stays, and a list of every field that changes, is lost or is added.

Pure: reads the spec, the capabilities and the catalogs. The list is the difference between the two specs, so that no
field is lost without an entry.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import ValidationError

from cloudtune.capability_check import parameter_problem, row_rules
from cloudtune.catalog import load, vendors
from cloudtune.errors import InputError, Problem, UnsupportedError
from cloudtune.spec import JobSpec
from cloudtune.state import Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.backend import Backend
    from cloudtune.catalog import Catalog


class Change(Value, frozen=True, kw_only=True):
    """One difference between a spec and the moved one. A value that is None is not set."""

    field: str
    """A field of the spec, or ``rows`` (their format) or ``verb:...`` (what can be done with the job)."""
    was: Any = None
    now: Any = None
    to: str | None = None
    """The field that has the value now, if it is another one."""
    reason: str

    @property
    def kind(self) -> Literal["changed", "moved", "lost", "added"]:
        """What happens to the field."""
        if self.to is not None:
            return "moved"
        return "lost" if self.now is None else "added" if self.was is None else "changed"


class Move(NamedTuple):
    """A spec for another back end."""

    spec: JobSpec
    source: str
    target: str
    titles: tuple[str, str]
    """Source and target in words: the name of the back end, or of the service to which it is set."""
    changes: tuple[Change, ...]
    """Differences of the specs."""
    abilities: tuple[Change, ...]
    """Differences of the back ends: the format of the rows, deployment, and verbs that the target does not support."""
    problems: tuple[Problem, ...]
    """What the target's plan would still refuse, such as missing settings, and warnings."""


def move(spec: JobSpec, source: Backend, target: Backend, *, model: str | None = None) -> Move:
    """The spec for the back end ``target``, from one for ``source``.

    Args:
        spec: The job.
        source: The back end that the spec is for.
        target: The back end to move to; it can be the same one with settings for another service.
        model: The base model on the target. Default: the spec's own model for the target, or the one that the
            target's catalog names for it.

    Raises:
        InputError: Both back ends are the same, or the base model must be named.
        UnsupportedError: The target does not support the method, or not the model.
    """
    if source.name == target.name and source.capabilities == target.capabilities:
        raise InputError(f"the spec is for {_title(source)} already", hint="name another back end with --to")
    if source.name == target.name and model is None:
        raise InputError(f"the base model of {_title(target)} must be named", hint="pass --model")
    _check_method(spec, target)
    reasons = {"backend": f"the job runs on {target.name}"}
    document: dict[str, Any] = spec.model_dump(mode="json", exclude_none=True)
    document["backend"] = target.name
    document["model"], reasons["model"] = _model(spec, source.name, target, model)
    document, renamed = _with_overrides(document, source, target, reasons)
    _drop_unsupported(document, target, reasons)
    moved, problems = _accepted(document, target, reasons)
    moved = _with_search(moved, source, target, reasons)
    before, after = (_leaves(one.model_dump(mode="json", exclude_none=True)) for one in (spec, moved))
    changes = _differences(before, after, renamed, reasons)
    abilities = [*_rows(spec, moved, source, target), *_verbs(source, target)]
    titles = _title(source), _title(target)
    return Move(moved, source.name, target.name, titles, tuple(changes), tuple(abilities), problems)


def _title(backend: Backend) -> str:
    return backend.capabilities.title or backend.name


def _check_method(spec: JobSpec, target: Backend) -> None:
    feature, capabilities = f"method:{spec.method.name}", target.capabilities
    if capabilities.can(feature):
        return
    known = sorted(name.partition(":")[2] for name in capabilities.supports if name.startswith("method:"))
    message = f"{_title(target)} does not support {spec.method.name}: {capabilities.why_not(feature)}"
    fix = f"move to another back end; {_title(target)} supports {', '.join(known)}"
    raise UnsupportedError([Problem(code="unsupported", field="method.name", message=message, fix=fix)])


# -- the base model ------------------------------------------------------------------------------------------------


def _model(spec: JobSpec, source: str, target: Backend, model: str | None) -> tuple[str | dict[str, str], str]:
    """The value of ``model`` in the moved spec, and why."""
    if model is None and isinstance(spec.model, dict) and target.name in spec.model:
        return spec.model, ""
    chosen, reason = (model, "as requested") if model else _substitute(spec.model_for(source) or "", target)
    return {**spec.model, target.name: chosen} if isinstance(spec.model, dict) else chosen, reason


def _substitute(model: str, target: Backend) -> tuple[str, str]:
    """The model on the target for a model of another back end, and why. Raises InputError if it must be named."""
    catalog = _catalog(target)
    if catalog is not None and catalog.model(model) is not None:
        return model, "the same model"
    if catalog is not None:
        for entry in catalog.substitutes:
            if any(fnmatchcase(model, pattern) for pattern in entry.models):
                return entry.to or model, entry.why
    is_portable = "/" in model and not model.startswith("arn:")  # a folder, or a name on a hub
    probe = JobSpec.model_validate({"model": model, "data": {"train": "-"}})
    if is_portable and not any(problem.field == "model" for problem in target.check(probe)):
        return model, "the same model"
    known = [] if catalog is None else [one.id for one in catalog.models if one.methods]
    fix = f"pass --model with a model that {_title(target)} tunes" + (f"; known: {', '.join(known)}" if known else "")
    message = f"no model of {_title(target)} is known to replace {model}"
    raise InputError([Problem(code="no_model", field="model", message=message, fix=fix)])


def _catalog(target: Backend) -> Catalog | None:
    """The catalog of the back end, which says nothing about the models and ranges of another service."""
    return load(target.name) if target.name in vendors() and not target.capabilities.title else None


# -- overrides -----------------------------------------------------------------------------------------------------


def _with_overrides(
    document: dict[str, Any], source: Backend, target: Backend, reasons: dict[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Replace the source's overrides with fields of the spec, or with the target's overrides of the same meaning.

    Returns the document, and the new field of each override that has one.
    """
    renamed: dict[str, str] = {}
    given = _leaves(document["overrides"].pop(source.name, {}))
    own = _leaves(document["overrides"].get(target.name, {}), f"overrides.{target.name}.")
    for key, value in given.items():
        field = f"overrides.{source.name}.{key}"
        place = _place(source.capabilities.common_overrides.get(key), target)
        if place is None:
            reasons[field] = _own(source, target, key)
            continue
        if place in own:
            reasons[field] = f"the spec already has {place}"
            continue
        changed = _with(document, place, value)
        if problem := _problem_of(changed, target):
            reasons[field] = f"{place} does not accept {value!r}: {problem}"
            continue
        document, renamed[field] = changed, place
        reasons[field] = "the same setting"
        reasons[place] = f"from {field}"
    return document, renamed


def _place(common: str | None, target: Backend) -> str | None:
    """The field of the moved spec for a setting with that meaning: the spec's own, or an override of the target."""
    if common is None or target.capabilities.can(common):
        return common
    found = (key for key, meaning in target.capabilities.common_overrides.items() if meaning == common)
    return next((f"overrides.{target.name}.{key}" for key in found), None)


def _own(source: Backend, target: Backend, key: str) -> str:
    """Why an override of the source cannot move: what it means there."""
    field = source.Overrides.model_fields.get(key.partition(".")[0])
    what = " ".join(((field.description if field is not None else "") or "").replace("``", "`").split())
    return f"{_title(target)} has no setting with this meaning" + (f" ({_title(source)}: {what})" if what else "")


def _with(document: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    """A copy of the document with another value of one field."""
    head, _, rest = field.partition(".")
    inner = document.get(head)
    if not rest:
        return {**document, head: value}
    return {**document, head: _with(inner if isinstance(inner, dict) else {}, rest, value)}


def _problem_of(document: dict[str, Any], target: Backend) -> str:
    """The first problem of the spec's and of the overrides' schema."""
    try:
        JobSpec.model_validate(document)
        target.Overrides.model_validate(document["overrides"].get(target.name, {}))
    except ValidationError as error:
        return str(error.errors()[0]["msg"])
    return ""


def _with_search(spec: JobSpec, source: Backend, target: Backend, reasons: dict[str, str]) -> JobSpec:
    """The spec with the searched parameters that the target has, under its names; without a search if it has none."""
    if spec.tune is None:
        return spec
    own, kept = f"overrides.{source.name}.", {}
    for path, parameter in spec.tune.parameters.items():
        field, place = f"tune.parameters.{path}", path
        if path.startswith(own):
            place = _place(source.capabilities.common_overrides.get(path.removeprefix(own)), target) or ""
        problem = _own(source, target, path.removeprefix(own)) if not place else None
        problem = problem or parameter_problem(spec, target, place, parameter)
        if problem is not None:
            reasons[field] = problem
        else:
            kept[place] = parameter
            if place != path:
                reasons[field], reasons[f"tune.parameters.{place}"] = f"{place} is the same setting", f"from {field}"
    if not kept or not target.capabilities.can("verb:metrics"):
        reasons["tune"] = f"{_title(target)} has nothing that can be searched"
        return spec.model_copy(update={"tune": None})
    return spec.model_copy(update={"tune": spec.tune.model_copy(update={"parameters": kept})})


# -- what the target does not accept -------------------------------------------------------------------------------


def _drop_unsupported(document: dict[str, Any], target: Backend, reasons: dict[str, str]) -> None:
    capabilities = target.capabilities
    for feature in JobSpec.model_validate(document).requested_fields():
        if not capabilities.can(feature):
            field = feature.partition(":")[0]  # an adapter is dropped with its settings
            reasons[field] = capabilities.why_not(feature)
            _drop(document, field)


def _accepted(
    document: dict[str, Any], target: Backend, reasons: dict[str, str]
) -> tuple[JobSpec, tuple[Problem, ...]]:
    """The spec without the values that the target refuses, and the problems that are left.

    A number out of the catalog's range becomes the nearest one in it. Other values are left out.
    """
    while True:
        spec = JobSpec.model_validate(document)
        found = list(target.check(spec))
        errors = {problem.field or "": problem.message for problem in found if problem.severity == "error"}
        refused = {field: message for field, message in errors.items() if _is_value(field, document)}
        if not refused:
            break
        for place, message in refused.items():
            field = "adapter" if place == "adapter.type" else place
            is_new = field not in reasons
            reasons[field] = f"{_title(target)} refuses the value: {message}"
            nearest = _nearest(spec, field, document, target) if is_new else None
            _drop(document, field)
            if nearest is not None:
                document = _with(document, field, nearest)
    models = [problem for problem in found if problem.severity == "error" and problem.field == "model"]
    if models:
        raise UnsupportedError(models)
    return spec, tuple(found)


def _nearest(spec: JobSpec, field: str, document: dict[str, Any], target: Backend) -> float | None:
    """The nearest value in the range of the target's catalog; None if it has none."""
    name, value = target.capabilities.translated.get(field), _leaves(document).get(field)
    catalog = _catalog(target)
    if name is None or not isinstance(value, int | float) or catalog is None:
        return None
    entry = catalog.range(name, spec.model_for(target.name) or "", spec.method.name)
    if entry is None:
        return None
    least, most = (value if limit is None else limit for limit in (entry.min, entry.max))
    nearest = min(max(value, least), most)
    return nearest if nearest != value and entry.fault(nearest) is None else None


def _is_value(field: str, document: dict[str, Any]) -> bool:
    """Whether the field has a value that can be left out."""
    kept = ("model", "backend", "backends", "data", "name", "method.name", "method")
    return field not in kept and field.partition(".")[0] not in kept[:4] and _holds(document, field)


def _holds(document: Any, field: str) -> bool:
    for part in field.split("."):
        if not isinstance(document, dict) or part not in document:
            return False
        document = document[part]
    return bool(field)


def _drop(document: dict[str, Any], field: str) -> None:
    *parts, last = field.split(".")
    holder: Any = document
    for part in parts:
        holder = holder.get(part)
        if not isinstance(holder, dict):
            return
    holder.pop(last, None)


# -- differences ---------------------------------------------------------------------------------------------------


def _leaves(document: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Dotted names of all values that are not tables."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        name = f"{above}{key}"
        if isinstance(value, dict):
            found |= _leaves(value, f"{name}.")
        else:
            found[name] = value
    return found


def _differences(
    before: dict[str, Any], after: dict[str, Any], renamed: dict[str, str], reasons: dict[str, str]
) -> Iterator[Change]:
    places = set()
    for field in dict.fromkeys([*before, *after]):
        was, now = before.get(field), after.get(field)
        place = renamed.get(field)
        if place not in (None, field) and after.get(place) == was:
            places.add(place)
            yield Change(field=field, was=was, now=was, to=place, reason=_reason(field, reasons))
        elif was != now and not (was is None and field in places):
            yield Change(field=field, was=was, now=now, reason=_reason(field, reasons))


def _reason(field: str, reasons: dict[str, str]) -> str:
    """The reason for a field, or for what holds it."""
    name = field
    while name not in reasons and "." in name:
        name = name.rpartition(".")[0]
    return reasons[name]


def _rows(spec: JobSpec, moved: JobSpec, source: Backend, target: Backend) -> Iterator[Change]:
    """The format of the uploaded rows. The files stay as they are: cloudtune converts them."""
    was, now = (
        None if rules is None else rules.formats.get(spec.method.name)
        for rules in (row_rules(spec, source), row_rules(moved, target))
    )
    if was != now:
        reason = "the files stay as they are; the rows are converted when they are uploaded"
        yield Change(field="rows", was=was or "canonical", now=now or "canonical", reason=reason)


def _verbs(source: Backend, target: Backend) -> Iterator[Change]:
    ours, theirs = source.capabilities, target.capabilities
    for verb in sorted(name for name in ours.supports | theirs.supports if name.startswith("verb:")):
        if ours.can(verb) and not theirs.can(verb):
            yield Change(field=verb, was="supported", reason=theirs.why_not(verb))
        elif verb == "verb:deploy" and not ours.can(verb):
            reason = "a tuned model must be deployed before it answers: cloudtune deploy JOB"
            yield Change(field=verb, now="required", reason=reason)
