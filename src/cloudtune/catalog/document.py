"""The catalog's format: frozen values, as in the data files. Unknown keys are rejected.

Every entry refers to its source by a key of ``sources``. ``models`` of an entry is a list of shell patterns for model
ids. The first matching entry wins, so specific entries come before general ones.
"""

from __future__ import annotations

from datetime import date
from fnmatch import fnmatchcase
from typing import Literal

import msgspec

from cloudtune.methods import MethodName

Trust = Literal["official", "reported"]


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the entries."""


class Figure(Entry, frozen=True, kw_only=True):
    """An entry with a source."""

    source: str
    """A key of the catalog's ``sources``."""


class Source(Entry, frozen=True, kw_only=True):
    """The source of an entry."""

    title: str
    seen: date
    """When it was read."""
    url: str | None = None
    trust: Trust = "official"
    """``official``: the vendor's page, schema or SDK. ``reported``: a third party."""
    shelf_days: int = 90
    """How long after ``seen`` the figures are taken as current."""

    def is_stale(self, on: date) -> bool:
        """Whether the figures should be read again by that day."""
        return (on - self.seen).days > self.shelf_days


class Model(Figure, frozen=True, kw_only=True):
    """A base model that can be tuned, or could be in the past."""

    id: str
    methods: tuple[MethodName, ...] = ()
    """Empty: it cannot be tuned any more."""
    inputs: tuple[Literal["text", "image", "video"], ...] = ("text",)
    regions: tuple[str, ...] = ()
    """Regions where it can be tuned. Empty means everywhere, or unknown."""
    tiers: tuple[str, ...] = ()
    no_new_customers_from: date | None = None
    no_new_jobs_from: date | None = None
    ends: date | None = None
    """From this date, neither the base model nor its tuned models are available."""
    api: str = ""
    """The API that tunes it, if the vendor has more than one. Empty: the vendor's main API."""
    note: str = ""


class Substitute(Entry, frozen=True, kw_only=True):
    """The model that replaces one of another back end. It is cloudtune's choice, not the vendor's."""

    models: tuple[str, ...]
    """Patterns of the other back ends' models."""
    to: str = ""
    """Empty: the model with the same name."""
    why: str


class Limit(Figure, frozen=True, kw_only=True):
    """A numeric limit."""

    name: str
    """``rows.min``, ``rows.max``, ``file.bytes.max``, ``row.tokens.max`` and the like."""
    value: float
    models: tuple[str, ...] = ("*",)
    methods: tuple[MethodName, ...] = ()
    """Empty: all."""
    together: bool = False
    """Whether training and validation rows count together."""
    note: str = ""


class Range(Figure, frozen=True, kw_only=True):
    """The allowed values of a hyperparameter, under the vendor's name."""

    name: str
    kind: Literal["integer", "number", "choice"]
    models: tuple[str, ...] = ("*",)
    methods: tuple[MethodName, ...] = ()
    min: float | None = None
    max: float | None = None
    above: float | None = None
    """The value must be greater than this."""
    choices: tuple[str | int | float, ...] = ()
    auto: bool = False
    """Whether ``auto`` is allowed."""
    default: str | int | float | None = None
    note: str = ""

    def fault(self, value: object) -> str | None:
        """Return the problem of a value, or None."""
        if self.auto and value == "auto":
            return None
        if self.kind == "choice":
            return None if value in self.choices else f"must be one of {', '.join(map(str, self.choices))}"
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"must be {'a whole number' if self.kind == 'integer' else 'a number'}"
        if self.kind == "integer" and value != int(value):
            return "must be a whole number"
        return None if self._holds(value) else f"must be {self.words()}"

    def _holds(self, value: float) -> bool:
        return (
            (self.min is None or value >= self.min)
            and (self.max is None or value <= self.max)
            and (self.above is None or value > self.above)
            and (not self.choices or value in self.choices)
        )

    def words(self) -> str:
        """Return the range as text."""
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        parts = [f"greater than {self.above:g}"] if self.above is not None else []
        parts += [f"at least {self.min:g}"] if self.min is not None else []
        parts += [f"at most {self.max:g}"] if self.max is not None else []
        return " and ".join(parts) or "a number"


class Price(Figure, frozen=True, kw_only=True):
    """A list price."""

    what: Literal[
        "training", "input", "cached_input", "output", "base_input", "base_output", "hosting", "storage", "provisioned"
    ]  # fmt: skip
    """``input`` and ``output`` are prices of the tuned model, ``base_input`` and ``base_output`` of the base model."""
    usd: float
    per: str
    """``1M tokens``, ``hour``, ``model and month`` ..."""
    models: tuple[str, ...] = ("*",)
    methods: tuple[MethodName, ...] = ()
    tier: str = ""
    note: str = ""


class Rates(Figure, frozen=True, kw_only=True):
    """Hourly prices of instance types in a region."""

    use: Literal["training", "hosting"]
    region: str
    usd: dict[str, float]
    """Maps instance types to hourly prices."""
    as_of: date | None = None
    """Date of the price list. None if the source does not give it; then the date it was read applies."""


class Rate(Entry, frozen=True, kw_only=True):
    """The hourly price of one instance type."""

    usd: float
    as_of: str
    cited: str
    """The source as text."""


class Notice(Figure, frozen=True, kw_only=True):
    """A date on which a part of the service ends."""

    what: Literal["no_new_customers", "no_idle_customers", "no_new_jobs", "service_ends", "feature_ends"]
    on: date
    text: str
    """One sentence; it may say what to use instead."""
    methods: tuple[MethodName, ...] = ()


class Catalog(Entry, frozen=True, kw_only=True):
    """The catalog of one vendor."""

    format: Literal[1]
    vendor: str
    as_of: date
    """The last day on which a figure was read."""
    sources: dict[str, Source]
    notices: tuple[Notice, ...] = ()
    models: tuple[Model, ...] = ()
    ranges: tuple[Range, ...] = ()
    limits: tuple[Limit, ...] = ()
    prices: tuple[Price, ...] = ()
    rates: tuple[Rates, ...] = ()
    substitutes: tuple[Substitute, ...] = ()

    def model(self, name: str) -> Model | None:
        """Return the model with that id."""
        return next((model for model in self.models if model.id == name), None)

    def tunable(self, method: str, on: date) -> list[str]:
        """Return the ids of the models that accept new jobs with that method on that day."""
        return [
            model.id for model in self.models
            if method in model.methods and (model.no_new_jobs_from is None or on < model.no_new_jobs_from)
        ]  # fmt: skip

    def limit(self, name: str, model: str = "", method: str = "") -> Limit | None:
        """Return the limit for that model and method."""
        return next((limit for limit in self.limits if limit.name == name and _fits(limit, model, method)), None)

    def range(self, name: str, model: str = "", method: str = "") -> Range | None:
        """Return the range for that model and method."""
        return next((entry for entry in self.ranges if entry.name == name and _fits(entry, model, method)), None)

    def price(self, what: str, model: str, method: str = "", tier: str = "") -> Price | None:
        """Return the price for that model and method. A price without a tier applies to all tiers."""
        return next(
            (price for price in self.prices
             if price.what == what and price.tier in ("", tier) and _fits(price, model, method)), None,
        )  # fmt: skip

    def rate(self, use: str, instance: str, region: str) -> Rate | None:
        """Return the hourly price of that instance type, or None if no source has it for that region."""
        for rates in self.rates:
            if (rates.use, rates.region) == (use, region) and instance in rates.usd:
                source = self.sources[rates.source]
                as_of, word = str(rates.as_of or source.seen), "" if source.trust == "official" else ", as reported"
                return Rate(usd=rates.usd[instance], as_of=as_of, cited=f"{source.title}{word}")
        return None

    def cite(self, source: str) -> str:
        """Return a source as text, with its date."""
        entry = self.sources[source]
        return f"{entry.title}, seen {entry.seen}"


def _fits(entry: Limit | Range | Price, model: str, method: str) -> bool:
    named = not entry.methods or not method or method in entry.methods
    return named and any(fnmatchcase(model, pattern) for pattern in entry.models)
