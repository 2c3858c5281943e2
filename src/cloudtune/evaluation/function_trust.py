"""Remembers the files with the metrics of a spec that are Python functions, as the user confirmed them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.config.trust import is_trusted, trust
from cloudtune.files.regular_file import read_regular
from cloudtune.trust import is_function

if TYPE_CHECKING:
    from collections.abc import Mapping

_LARGEST_FILE = 16 << 20


def trust_functions(spec: Mapping[str, Any]) -> None:
    """Record that the user trusts these files with their present content. A file that is missing is left out."""
    for path in _places(spec):
        if path.suffix == ".py" and path.is_file():
            trust(path, read_regular(path, _LARGEST_FILE))


def are_functions_trusted(spec: Mapping[str, Any]) -> bool:
    """Whether all functions are in files whose content is what the user trusted on this machine.

    A function in a module is not: others can write to a shared ledger, and can name a function of any package.
    """
    try:
        return all(
            path.suffix == ".py" and is_trusted(path, read_regular(path, _LARGEST_FILE)) for path in _places(spec)
        )
    except OSError:
        return False


def _places(spec: Mapping[str, Any]) -> list[Path]:
    """The files of the functions, and the names of their modules."""
    metrics = (spec.get("evaluation") or {}).get("metrics") or ()
    return [Path(name.rpartition(":")[0]) for name in metrics if is_function(name)]
