"""Reads catalog files. Errors include the file and location. Built-in files are read once per process."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec

from cloudtune.catalog.document import Catalog, Figure
from cloudtune.errors import ConfigError, Problem

DATA = Path(__file__).parent / "data"


_DECODER = msgspec.json.Decoder(Catalog)  # created at import, because the first decoding is not thread-safe


def vendors() -> tuple[str, ...]:
    """Return the vendors with a catalog file, sorted."""
    return tuple(sorted(path.stem for path in DATA.glob("*.json")))


@cache
def load(vendor: str) -> Catalog:
    """Return the catalog of a vendor. Raises ConfigError if there is none."""
    path = DATA / f"{vendor}.json"
    if not path.is_file():
        message = f"no catalog for {vendor!r}"
        raise ConfigError([Problem(code="no_catalog", message=message, fix=f"known: {', '.join(vendors())}")])
    return read(path)


def read(path: Path) -> Catalog:
    """Read a file. Raises ConfigError with every source that is used but not defined."""
    try:
        catalog = _DECODER.decode(path.read_bytes())
    except msgspec.DecodeError as error:
        raise ConfigError([Problem(code="catalog", file=str(path), message=str(error))]) from error
    entries: tuple[Figure, ...] = (
        *catalog.notices, *catalog.models, *catalog.ranges, *catalog.limits, *catalog.prices, *catalog.rates,
    )  # fmt: skip
    unknown = sorted({entry.source for entry in entries if entry.source not in catalog.sources})
    if unknown:
        raise ConfigError(
            [
                Problem(code="catalog_source", file=str(path), message=f"source {name!r} is used but not defined")
                for name in unknown
            ]
        )
    return catalog
