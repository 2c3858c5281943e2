"""The catalog's format: frozen values, as they stand in the data files. Unknown keys are refused.

Every entry names its source by a key of ``sources``. ``models`` of an entry is a list of shell patterns over model ids;
the first entry that fits wins, so special ones stand before general ones.
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
    """An entry that says where it comes from."""

    source: str
    """A key of the catalog's ``sources``."""


class Source(Entry, frozen=True, kw_only=True):
    """Where figures come from."""

    title: str
    seen: date
    """When it was read."""
    url: str | None = None
    trust: Trust = "official"
    """``official``: the vendor's own page, schema or SDK. ``reported``: somebody else's word."""


class Model(Figure, frozen=True, kw_only=True):
    """A base model that can be, or could once be, tuned."""

    id: str
    methods: tuple[MethodName, ...] = ()
    """Empty: it cannot be tuned any more."""
    inputs: tuple[Literal["text", "image", "video"], ...] = ("text",)
    regions: tuple[str, ...] = ()
    """Where it can be tuned; empty: everywhere, or not known."""
    tiers: tuple[str, ...] = ()
    no_new_customers_from: date | None = None
    no_new_jobs_from: date | None = None
    ends: date | None = None
    """From then on neither the base nor what was tuned on it answers."""
    note: str = ""


class Limit(Figure, frozen=True, kw_only=True):
    """A number that may not be passed."""

    name: str
    """``rows.min``, ``rows.max``, ``file.bytes.max``, ``row.tokens.max`` and the like."""
    value: float
    models: tuple[str, ...] = ("*",)
    methods: tuple[MethodName, ...] = ()
    """Empty: all."""
    note: str = ""


class Range(Figure, frozen=True, kw_only=True):
    """What a hyperparameter may be, in the vendor's own name for it."""

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
    """Whether the word ``auto`` is taken."""
    default: str | int | float | None = None
    note: str = ""

    def fault(self, value: object) -> str | None:
        """What is wrong with a value, or None."""
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
        """The range in words."""
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        parts = [f"greater than {self.above:g}"] if self.above is not None else []
        parts += [f"at least {self.min:g}"] if self.min is not None else []
        parts += [f"at most {self.max:g}"] if self.max is not None else []
        return " and ".join(parts) or "a number"


class Price(Figure, frozen=True, kw_only=True):
    """A list price."""

    what: Literal["training", "input", "cached_input", "output", "hosting", "storage", "provisioned"]
    usd: float
    per: str
    """``1M tokens``, ``hour``, ``model and month`` ..."""
    models: tuple[str, ...] = ("*",)
    methods: tuple[MethodName, ...] = ()
    tier: str = ""
    note: str = ""


class Rates(Figure, frozen=True, kw_only=True):
    """What an hour of instances costs in a region, by their type."""

    use: Literal["training", "hosting"]
    region: str
    usd: dict[str, float]
    """Instance type -> price of an hour."""
    as_of: date | None = None
    """The day of the price list; None where the source does not tell it, and the day it was seen stands for it."""


class Rate(Entry, frozen=True, kw_only=True):
    """One of them, found."""

    usd: float
    as_of: str
    cited: str
    """Its source in words."""


class Notice(Figure, frozen=True, kw_only=True):
    """A date from which something of the whole service is over."""

    what: Literal["no_new_customers", "no_idle_customers", "no_new_jobs", "service_ends", "feature_ends"]
    on: date
    text: str
    """One sentence; it may say what to use instead."""
    methods: tuple[MethodName, ...] = ()


class Catalog(Entry, frozen=True, kw_only=True):
    """All that is known of one vendor."""

    format: Literal[1]
    vendor: str
    as_of: date
    """When the file as a whole was last gone through."""
    sources: dict[str, Source]
    notices: tuple[Notice, ...] = ()
    models: tuple[Model, ...] = ()
    ranges: tuple[Range, ...] = ()
    limits: tuple[Limit, ...] = ()
    prices: tuple[Price, ...] = ()
    rates: tuple[Rates, ...] = ()

    def model(self, name: str) -> Model | None:
        """The model of that id."""
        return next((model for model in self.models if model.id == name), None)

    def tunable(self, method: str, on: date) -> list[str]:
        """Ids of the models that take new jobs of that method on that day."""
        return [
            model.id for model in self.models
            if method in model.methods and (model.no_new_jobs_from is None or on < model.no_new_jobs_from)
        ]  # fmt: skip

    def limit(self, name: str, model: str = "", method: str = "") -> Limit | None:
        """The limit that holds for that model and method."""
        return next((limit for limit in self.limits if limit.name == name and _fits(limit, model, method)), None)

    def range(self, name: str, model: str = "", method: str = "") -> Range | None:
        """The range that holds for that model and method."""
        return next((entry for entry in self.ranges if entry.name == name and _fits(entry, model, method)), None)

    def price(self, what: str, model: str, method: str = "", tier: str = "") -> Price | None:
        """The price for that model and method; a price of no tier holds for all."""
        return next(
            (price for price in self.prices
             if price.what == what and price.tier in ("", tier) and _fits(price, model, method)), None,
        )  # fmt: skip

    def rate(self, use: str, instance: str, region: str) -> Rate | None:
        """The price of an hour of that instance type; None where no source tells it for that region."""
        for rates in self.rates:
            if (rates.use, rates.region) == (use, region) and instance in rates.usd:
                source = self.sources[rates.source]
                as_of, word = str(rates.as_of or source.seen), "" if source.trust == "official" else ", as reported"
                return Rate(usd=rates.usd[instance], as_of=as_of, cited=f"{source.title}{word}")
        return None

    def cite(self, source: str) -> str:
        """A source in words, with its date."""
        entry = self.sources[source]
        return f"{entry.title}, seen {entry.seen}"


def _fits(entry: Limit | Range | Price, model: str, method: str) -> bool:
    named = not entry.methods or not method or method in entry.methods
    return named and any(fnmatchcase(model, pattern) for pattern in entry.models)
