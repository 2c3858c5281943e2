"""Reads catalogs: the file ``catalog.json`` in the package of a back end. An error names the file and the place.

Those of the bundled back ends are read at import, so that a plan reads no file. A refreshed file and the user's file
replace their figures (see `overlay`).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import msgspec

from cloudtune.catalog.document import Catalog, Figure
from cloudtune.catalog.overlay import REFRESHED, files, overlaid
from cloudtune.errors import ConfigError, Problem
from cloudtune.files.regular_file import read_regular
from cloudtune.plugins import package_folder
from cloudtune.registry import BUILT_IN, backends

if TYPE_CHECKING:
    from pathlib import Path

LARGEST_BYTES = 64 << 20

_DECODER = msgspec.json.Decoder(Catalog)  # created at import, because the first decoding is not thread-safe


def vendors() -> tuple[str, ...]:
    """The back ends that have a catalog, sorted."""
    return tuple(name for name in backends() if name in _BUNDLED or _file_of(name) is not None)


@cache
def load(vendor: str) -> Catalog:
    """The catalog of a back end. Raises ConfigError if there is none."""
    if vendor in _BUNDLED:
        found = _BUNDLED[vendor]
        if isinstance(found, ConfigError):
            raise found
        return found
    path = _file_of(vendor)
    if path is None:
        message = f"no catalog for {vendor!r}"
        raise ConfigError([Problem(code="no_catalog", message=message, fix=f"known: {', '.join(vendors())}")])
    return current(vendor)


def current(vendor: str, *, refreshed: Catalog | None = None) -> Catalog:
    """Read a catalog of a back end that has one, with the files that replace its figures.

    Args:
        vendor: The back end.
        refreshed: Replaces the content of the refreshed file.

    Raises:
        ConfigError: A file is not valid. The error names it.
    """
    path = _file_of(vendor)
    assert path is not None
    found = read(path)
    for label, file in files(vendor):
        if label == REFRESHED and refreshed is not None:
            found = overlaid(found, refreshed, label)
        elif (given := read_if_there(file)) is not None:
            found = overlaid(found, given, label)
    return found


def read_if_there(path: Path) -> Catalog | None:
    """Read a file that replaces figures; None if it does not exist. Raises ConfigError."""
    try:
        return read(path)
    except ConfigError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return None
        fix = "correct the file, or delete it"
        raise ConfigError([msgspec.structs.replace(one, fix=one.fix or fix) for one in error.problems]) from error


def _file_of(name: str) -> Path | None:
    """The catalog in the package of the module that holds the back end's class."""
    info = backends().get(name)
    folder = package_folder(info.target.partition(":")[0].rpartition(".")[0]) if info is not None else None
    return folder / "catalog.json" if folder is not None and (folder / "catalog.json").is_file() else None


def read(path: Path) -> Catalog:
    """Read a file. Raises ConfigError with every source that is used but not defined."""
    try:
        catalog = _DECODER.decode(read_regular(path, LARGEST_BYTES))
    except OSError as error:
        raise ConfigError([Problem(code="catalog", file=str(path), message=f"it cannot be read: {error}")]) from error
    except msgspec.DecodeError as error:
        raise ConfigError([Problem(code="catalog", file=str(path), message=str(error))]) from error
    if problems := source_problems(catalog, str(path)):
        raise ConfigError(problems)
    return catalog


def source_problems(catalog: Catalog, file: str) -> list[Problem]:
    """One problem for each source that is used but not defined."""
    entries: tuple[Figure, ...] = (
        *catalog.notices, *catalog.models, *catalog.ranges, *catalog.limits, *catalog.prices, *catalog.rates,
    )  # fmt: skip
    unknown = sorted({entry.source for entry in entries if entry.source not in catalog.sources})
    return [Problem(code="catalog_source", file=file, message=f"source {name!r} is used but not defined")
            for name in unknown]  # fmt: skip


def _read_bundled(name: str) -> Catalog | ConfigError:
    """The catalog, or the error that each use of it raises: the import of cloudtune must not fail."""
    try:
        return current(name)
    except ConfigError as error:
        return error


_BUNDLED = {name: _read_bundled(name) for name in BUILT_IN if _file_of(name) is not None}
