"""The local models used in place of the vendors' base models, listed in a small JSON file.

::

    {"gpt-4.1-mini-2025-04-14": {"model": "./smollm2", "learning_rate": 1e-4},
     "*": {"model": "./tiny.json", "adapter": "full", "learning_rate": 2e-3}}

``learning_rate`` is the base rate, which the vendor does not publish: a job uses it times ``learning_rate_multiplier``.
``*`` matches every base model that is not named. Without a file, a tiny model with random weights is built and all its
weights are trained. It needs no network or download, and memorizes a small file in seconds.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.errors import ConfigError
from cloudtune.files.regular_file import read_regular

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST_BYTES = 16 << 20
_TINY = {"model": {"hidden_size": 128, "intermediate_size": 256}, "tokenizer": {"vocab_size": 512}}


class Stand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The local model used in place of a vendor's base model."""

    model: str
    """A folder, a .gguf file, a .json description or a hub id, as in the local back end."""
    learning_rate: float
    adapter: dict[str, Any] | str | None = None
    """The adapter, as in a spec."""
    hyperparameters: dict[str, Any] = {}
    """Other fields of a spec, such as ``max_length``."""


class Stands:
    """The whole mapping. Paths are relative to its file."""

    def __init__(self, entries: dict[str, Stand], folder: Path) -> None:
        self._entries = entries
        self._folder = folder

    def of(self, base: str) -> Stand:
        """The local model for a base model. Raises ConfigError."""
        found = self._entries.get(base) or self._entries.get("*")
        if found is None:
            raise ConfigError(f"no local model is configured for {base}: add one, or one for '*'")
        path = self._folder / found.model
        return msgspec.structs.replace(found, model=str(path)) if path.exists() else found


def read(file: Path | None, scratch: Path) -> Stands:
    """The mapping of a file; without one, the tiny model, described in ``scratch``. Raises ConfigError."""
    if file is None:
        scratch.mkdir(parents=True, exist_ok=True)
        (scratch / "tiny.json").write_text(json.dumps(_TINY), encoding="utf-8")
        # At twice that rate, the model with random weights collapses to one answer.
        return Stands({"*": Stand(model="tiny.json", adapter="full", learning_rate=1.5e-3)}, scratch)
    try:
        entries = msgspec.json.decode(read_regular(file, _LARGEST_BYTES), type=dict[str, Stand])
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{file} is not a valid table of base models: {error}") from error
    return Stands(entries, file.absolute().parent)
