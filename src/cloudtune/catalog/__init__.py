"""The catalog: vendors' models, limits, prices and end dates, each with its source and the date it was read.

``data`` has one JSON file per vendor; `load` reads it into a `Catalog`. The catalog makes no network calls and no
decisions: back ends interpret its values.
"""

from cloudtune.catalog.document import Catalog, Limit, Model, Notice, Price, Range, Rate, Rates, Source, Substitute
from cloudtune.catalog.reading import current, load, read, vendors
from cloudtune.catalog.tunable import TunableModel, tunable

__all__ = [
    "Catalog",
    "Limit",
    "Model",
    "Notice",
    "Price",
    "Range",
    "Rate",
    "Rates",
    "Source",
    "Substitute",
    "TunableModel",
    "current",
    "load",
    "read",
    "tunable",
    "vendors",
]
