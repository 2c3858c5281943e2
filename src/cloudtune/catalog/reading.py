"""Reads catalog files. An error names the file and the place. Importing this reads the package's own files."""

from __future__ import annotations

from pathlib import Path

import msgspec

from cloudtune.catalog.document import Catalog, Figure
from cloudtune.errors import ConfigError, Problem

DATA = Path(__file__).parent / "data"


_DECODER = msgspec.json.Decoder(Catalog)  # made while importing: threads must not meet in a first decoding


def vendors() -> tuple[str, ...]:
    """Vendors that there is a file for, sorted."""
    return tuple(sorted(_CATALOGS))


def load(vendor: str) -> Catalog:
    """The catalog of a vendor. Reads no file, so that plans may call it. Raises ConfigError if there is none."""
    if vendor not in _CATALOGS:
        message = f"there is no catalog of {vendor!r}"
        raise ConfigError([Problem(code="no_catalog", message=message, fix=f"known: {', '.join(vendors())}")])
    return _CATALOGS[vendor]


def read(path: Path) -> Catalog:
    """Read a file. Raises ConfigError with every source that is named and not there."""
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
                Problem(code="catalog_source", file=str(path), message=f"source {name!r} is named but not described")
                for name in unknown
            ]
        )
    return catalog


_CATALOGS = {path.stem: read(path) for path in DATA.glob("*.json")}
