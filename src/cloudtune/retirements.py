"""End dates: which models, tuned models, jobs and specs stop working, and when, from the back ends' catalogs."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Literal

from cloudtune.catalog import load, vendors
from cloudtune.state import JobState, Value

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from cloudtune.catalog import Catalog, Model, Notice
    from cloudtune.ledger.costs import JobCost

_SERVICE = ("no_new_jobs", "service_ends")


class Retirement(Value, frozen=True, kw_only=True):
    """One end date, of one thing."""

    on: date
    kind: Literal["service", "model", "tuned model", "spec"]
    name: str
    """The back end, the model, the job's reference or the spec's file."""
    backend: str
    text: str
    """What happens from that day on."""
    source: str
    """Where the date comes from, and when it was read."""


def of_catalogs(names: Iterable[str] | None = None) -> Iterator[Retirement]:
    """All end dates of services and models."""
    for name in vendors() if names is None else names:
        catalog = load(name)
        for notice in catalog.notices:
            if notice.what in (*_SERVICE, "feature_ends"):
                yield _of(catalog, notice.on, "service", name, notice.text, notice.source)
        for model in catalog.models:
            yield from _of_model(catalog, model, "model", model.id)


def of_jobs(jobs: Iterable[JobCost], *, elsewhere: Container[tuple[str, str]] = ()) -> Iterator[Retirement]:
    """When the tuned models of jobs stop working. Jobs that are recorded as failed or cancelled have none.

    ``elsewhere``: back ends, with the scope of their jobs, that are set to another service than their vendor's.
    """
    for job in jobs:
        if job.attempt.ref is not None and (job.attempt.backend, job.attempt.ref.scope) in elsewhere:
            continue
        if job.actual is not None and job.actual.state in (JobState.FAILED, JobState.CANCELLED):
            continue
        made = job.attempt
        catalog = _catalog(made.backend)
        if catalog is None or made.ref is None or made.gone_at is not None:
            continue
        given = made.plan.spec.get("model")
        base = given.get(made.backend) if isinstance(given, dict) else given
        model = _model(catalog, str(base or ""))
        if model is not None and model.ends is not None:
            text = f"its base model {model.id} ends: the tuned model stops responding"
            yield _of(catalog, model.ends, "tuned model", str(made.ref), text, model.source)
        for notice in catalog.notices:
            if notice.what == "service_ends":
                yield _of(catalog, notice.on, "tuned model", str(made.ref), notice.text, notice.source)


def of_spec(place: str, backend: str, model: str, method: str) -> Iterator[Retirement]:
    """When a spec can no longer be submitted, and its tuned model stops working."""
    catalog = _catalog(backend)
    if catalog is None:
        return
    for notice in catalog.notices:
        if notice.what in (*_SERVICE, "feature_ends") and _concerns(notice, method):
            yield _of(catalog, notice.on, "spec", place, notice.text, notice.source)
    if (found := _model(catalog, model)) is not None:
        yield from _of_model(catalog, found, "spec", place)


def _of_model(catalog: Catalog, model: Model, kind: Literal["model", "spec"], name: str) -> Iterator[Retirement]:
    if model.no_new_jobs_from is not None and model.no_new_jobs_from != model.ends:
        text = f"{model.id} accepts no new jobs"
        yield _of(catalog, model.no_new_jobs_from, kind, name, text, model.source)
    if model.ends is not None:
        text = f"{model.id} and its tuned models stop responding, and it accepts no new jobs"
        yield _of(catalog, model.ends, kind, name, text, model.source)


def _of(
    catalog: Catalog, on: date, kind: Literal["service", "model", "tuned model", "spec"], name: str, text: str,
    source: str,
) -> Retirement:  # fmt: skip
    return Retirement(on=on, kind=kind, name=name, backend=catalog.vendor, text=text, source=catalog.cite(source))


def _concerns(notice: Notice, method: str) -> bool:
    return not notice.methods or method in notice.methods


def _catalog(backend: str) -> Catalog | None:
    return load(backend) if backend in vendors() else None


def _model(catalog: Catalog, name: str) -> Model | None:
    """The catalog's model with that id, or whose id is part of the name of a tuned model, or begins with the name."""
    named = [one for one in catalog.models if one.id in name or (name and one.id.startswith(f"{name}:"))]
    return max(named, key=lambda one: len(one.id), default=None)
