"""Checks of a spec and its rows against the catalog: models and their dates, ranges, names, counts, sizes.

Pure. Token counts are bounded, not guessed.
"""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cloudtune.errors import Problem
from cloudtune_providers.openai_dialect.costs import estimate
from cloudtune_providers.openai_dialect.model_names import base_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

    from cloudtune.catalog import Catalog, Model, Notice
    from cloudtune.cost import CostEstimate
    from cloudtune.errors import Severity
    from cloudtune.plan import DataReport
    from cloudtune.spec import JobSpec

NEAR = timedelta(days=90)


class Rules:
    """One vendor's catalog. ``rehearsal``: an emulator, for which end dates are warnings only."""

    def __init__(self, catalog: Catalog, backend: str, *, rehearsal: bool = False) -> None:
        self._catalog = catalog
        self._backend = backend
        self._rehearsal = rehearsal

    # -- dates and models ------------------------------------------------------------------------------------------

    def dates(self, spec: JobSpec, today: date) -> Iterator[Problem]:
        """End dates of the service, the method and the model, past and upcoming."""
        method = spec.method.name
        for notice in self._catalog.notices:
            if notice.methods and method not in notice.methods:
                continue
            yield from self._notice(notice, today)
        name = spec.model_for(self._backend)
        if name is None:
            return
        model = self._catalog.model(base_of(name))
        if model is None:
            yield self._unknown(name, method, today)
            return
        yield from self._model(model, method, today)

    def _notice(self, notice: Notice, today: date) -> Iterator[Problem]:
        source = self._catalog.cite(notice.source)
        if notice.what in ("no_new_jobs", "service_ends", "feature_ends"):
            field, other = ("method.name", "method") if notice.methods else ("backend", "back end")
            message = f"{notice.text} (from {notice.on} on; {source})"
            yield from self._over("closed", field, notice.on, today, message, f"choose another {other}")
        elif today >= notice.on and not self._rehearsal:
            message = f"{notice.text} (since {notice.on}; {source})"
            yield Problem(code="closed_in_part", severity="warning", field="backend", message=message)

    def _over(self, code: str, field: str, on: date, today: date, message: str, fix: str) -> Iterator[Problem]:
        if today >= on:
            yield Problem(code=code, severity=self._severity(), field=field, message=message, fix=fix)
        elif today >= on - NEAR:
            yield Problem(code=f"{code}_soon", severity="warning", field=field, message=message, fix=fix)

    def _severity(self) -> Severity:
        return "warning" if self._rehearsal else "error"

    def _unknown(self, name: str, method: str, today: date) -> Problem:
        known = ", ".join(self._catalog.tunable(method, today)) or "none"
        if name.startswith((".", "/", "~")) or name.endswith((".gguf", ".json")):
            return Problem(
                code="unknown_model", field="model",
                message=f"{name!r} is a path, but {self._backend} tunes its own models only",
                fix=f"set one of them (`model: {{{self._backend}: ...}}`); models that support {method}: {known}",
            )  # fmt: skip
        return Problem(
            code="unknown_model", severity="warning", field="model",
            message=f"{name!r} is not in the catalog of {self._catalog.as_of}; it is sent unchanged",
            fix=f"models known to support {method}: {known}",
        )  # fmt: skip

    def _model(self, model: Model, method: str, today: date) -> Iterator[Problem]:
        others = ", ".join(self._catalog.tunable(method, today)) or "none is left"
        source = self._catalog.cite(model.source)
        fix = f"models that support {method}: {others}"
        if method not in model.methods:
            offered = ", ".join(model.methods) or "nothing"
            message = f"{model.id} does not support {method}, only: {offered} ({source})"
            yield Problem(code="method_not_offered", field="model", message=message, fix=fix)
        for on, what in (
            (model.no_new_jobs_from, "accepts no new jobs"), (model.ends, "and its tuned models stop responding")
        ):  # fmt: skip
            if on is not None:
                yield from self._over(
                    "model_ends", "model", on, today, f"{model.id} {what} from {on} on ({source})", fix
                )
        if model.no_new_customers_from is not None and today >= model.no_new_customers_from and not self._rehearsal:
            message = f"only customers from before {model.no_new_customers_from} can tune {model.id} ({source})"
            yield Problem(code="no_new_customers", severity="warning", field="model", message=message, fix=fix)

    def retires(self, base: str) -> date | None:
        """When models tuned on that base become unavailable."""
        model = self._catalog.model(base_of(base))
        return model.ends if model else None

    # -- values ----------------------------------------------------------------------------------------------------

    def values(self, spec: JobSpec) -> Iterator[Problem]:
        """Values out of range, by the spec's names."""
        given = spec.overrides.get(self._backend, {})
        portable = {
            "hyperparameters.epochs": ("n_epochs", spec.hyperparameters.epochs),
            "hyperparameters.batch_size": ("batch_size", spec.hyperparameters.batch_size),
            "method.beta": ("beta", spec.method.beta),
            "seed": ("seed", spec.seed),
        }
        requested = {field: pair for field, pair in portable.items() if pair[1] is not None}
        requested |= {
            f"overrides.{self._backend}.{name}": (name, value) for name, value in given.items() if value is not None
        }
        for field, (name, value) in requested.items():
            yield from self._value(spec, field, name, value)

    def _value(self, spec: JobSpec, field: str, name: str, value: Any) -> Iterator[Problem]:
        model, method = spec.model_for(self._backend) or "", spec.method.name
        entry = self._catalog.range(name, base_of(model), method)
        if entry is None:
            if any(other.name == name for other in self._catalog.ranges):
                message = f"{method} does not use {name}"
                yield Problem(code="not_of_method", field=field, message=message, fix="remove it")
            return
        if fault := entry.fault(value):
            message = f"{name} {fault}, not {value} ({self._catalog.cite(entry.source)})"
            yield Problem(code="out_of_range", field=field, message=message, fix=f"{name} is {entry.words()}")

    def tags(self, spec: JobSpec, own: int) -> Iterator[Problem]:
        """Tags become metadata, of which the service allows few."""
        limit = self._catalog.limit("metadata.pairs.max")
        if limit is not None and len(spec.tags) + own > limit.value:
            most = int(limit.value) - own
            message = f"{len(spec.tags)} tags; at most {most} are allowed besides cloudtune's own"
            yield Problem(code="too_many_tags", field="tags", message=message, fix=f"keep at most {most}")
        for key in spec.tags:
            if key.startswith("cloudtune_"):
                message = "names that start with cloudtune_ are reserved"
                yield Problem(code="reserved_tag", field=f"tags.{key}", message=message, fix="use another name")

    def cost(self, spec: JobSpec, data: DataReport, tier: str = "") -> CostEstimate:
        """The cost of the job, by the catalog's price."""
        return estimate(spec, data, self._catalog, self._backend, tier)

    # -- rows ------------------------------------------------------------------------------------------------------

    def rows(self, spec: JobSpec, data: DataReport, *, kind: str) -> Iterator[Problem]:
        """Rows of another kind, too many tokens in total. cloudtune itself checks the number and length of rows."""
        model, method = base_of(spec.model_for(self._backend) or ""), spec.method.name
        train = data.splits["train"]
        if train.kind != kind:
            message = f"{method} requires {kind} rows; these are {train.kind}"
            yield Problem(code="kind", field="data.train", message=message, fix="use another kind of rows")
        if train.tokens is not None:
            yield from self._whole_job(spec, train.tokens.most, model, method)

    def _whole_job(self, spec: JobSpec, tokens: int, model: str, method: str) -> Iterator[Problem]:
        limit = self._catalog.limit("job.tokens.max", model, method)
        epochs = spec.hyperparameters.epochs or 1
        if limit is not None and tokens * epochs > limit.value:
            most = f"{limit.value:,.0f} ({self._catalog.cite(limit.source)})"
            message = f"up to {tokens * epochs:,.0f} tokens in {epochs:g} epochs, and a job may have {most}"
            fix = "use fewer rows or epochs"
            yield Problem(code="many_tokens", severity="warning", field="data.train", message=message, fix=fix)


def loss(spec: JobSpec) -> Iterator[Problem]:
    """The API supports only one choice of trained tokens."""
    if spec.method.loss_on not in (None, "assistant"):
        yield Problem(
            code="loss_on", field="method.loss_on", message="the service trains on all assistant turns only",
            fix="use assistant, and `weight: 0` on the turns to exclude",
        )  # fmt: skip


def is_loopback(url: str) -> bool:
    """Whether the host is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
