"""Figures that replace those of a catalog: a refreshed file, and over it the user's own file.

Both have the catalog's format, with only the entries that replace or add to it. `cloudtune catalog refresh` writes the
refreshed file to ``catalog`` in the folder of the ledger. The user's file is in ``catalog`` next to the user's
``config.toml``. A file in a project is never read, because it can come from other people.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

import msgspec

from cloudtune.errors import ConfigError, Problem
from cloudtune.files.private_files import private_folder, write_private

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloudtune.catalog.document import Catalog, Figure

T = TypeVar("T", bound="Figure")

REFRESHED = "refreshed"
LARGEST_NAME = 300
_LISTS = ("notices", "models", "ranges", "limits", "prices", "rates")


def files(vendor: str) -> Iterator[tuple[str, Path]]:
    """The files that replace figures of a catalog, the user's last, whether they exist or not."""
    from platformdirs import user_config_dir, user_state_dir

    home = os.environ.get("CLOUDTUNE_HOME") or user_state_dir("cloudtune", appauthor=False)
    yield REFRESHED, Path(os.path.expanduser(home)).absolute() / "catalog" / f"{vendor}.json"  # noqa: PTH111 - never fails
    yield "user", Path(user_config_dir("cloudtune", appauthor=False)) / "catalog" / f"{vendor}.json"


def overlaid(base: Catalog, over: Catalog, label: str) -> Catalog:
    """The catalog with the entries of another one before its own: the first that fits applies.

    A model replaces the one with its id. ``label`` keeps the sources apart.
    """
    if over.vendor != base.vendor:
        message = f"the file is about {over.vendor!r}, not {base.vendor!r}"
        raise ConfigError([Problem(code="catalog", message=message, fix="name it after its back end")])
    given = {model.id for model in over.models}
    kept = msgspec.structs.replace(base, models=tuple(model for model in base.models if model.id not in given))
    lists = {name: (*_labeled(getattr(over, name), label), *getattr(kept, name)) for name in _LISTS}
    sources = base.sources | {f"{label}:{key}": source for key, source in over.sources.items()}
    substitutes = (*over.substitutes, *base.substitutes)
    as_of = max(base.as_of, over.as_of)
    return msgspec.structs.replace(base, as_of=as_of, sources=sources, substitutes=substitutes, **lists)


def _labeled(entries: Sequence[T], label: str) -> list[T]:
    return [msgspec.structs.replace(entry, source=f"{label}:{entry.source}") for entry in entries]


def with_other_regions(found: Catalog, old: Catalog) -> Catalog:
    """What was read, and of an older file the prices of the regions that were not read."""
    read = {rates.region for rates in found.rates}
    kept = tuple(rates for rates in old.rates if rates.region not in read)
    sources = {rates.source: old.sources[rates.source] for rates in kept}
    return msgspec.structs.replace(found, rates=(*found.rates, *kept), sources=sources | found.sources)


def save(found: Catalog, path: Path) -> None:
    """Write a refreshed catalog, with mode 0600. Another process sees the old or the new file.

    Raises:
        OSError: The file cannot be written.
    """
    private_folder(path.parent)
    part = path.with_suffix(f".{uuid4().hex}.part")
    try:
        write_private(part, msgspec.json.format(msgspec.json.encode(found), indent=1))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def usable_name(name: object) -> bool:
    """Whether a vendor's text is a plausible name of a model or an instance type: short, of printable ASCII."""
    return isinstance(name, str) and 0 < len(name) <= LARGEST_NAME and name.isascii() and name.isprintable()
