"""What vendors offer, take, cost and will end, as dated figures: each with its source and the day it was seen.

One JSON file a vendor lies in ``data``; `load` reads it into a `Catalog`, which checks and refusals ask. Nothing here
calls out, and nothing here decides: a back end says what follows from a figure.
"""

from cloudtune.catalog.document import Catalog, Limit, Model, Notice, Price, Range, Rate, Rates, Source
from cloudtune.catalog.reading import load, read, vendors

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
    "load",
    "read",
    "vendors",
]
