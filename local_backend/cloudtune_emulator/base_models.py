"""Which local model stands for which of the vendor's, in a small JSON file.

::

    {"gpt-4.1-mini-2025-04-14": {"model": "./smollm2", "learning_rate": 1e-4},
     "*": {"model": "./tiny.json", "adapter": "full", "learning_rate": 2e-3}}

``learning_rate`` is the rate that the vendor hides: the job's is this one times ``learning_rate_multiplier``. ``*``
stands for every base that is not named. Without a file a tiny model with random weights is built and trained whole: it
needs no network and no download, learns a file by heart in seconds, and knows nothing else.
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
    """What stands for a base model."""

    model: str
    """A folder, a .gguf file, a .json description or a hub id, as the local back end takes it."""
    learning_rate: float
    adapter: dict[str, Any] | str | None = None
    """As in a spec."""
    hyperparameters: dict[str, Any] = {}
    """More of a spec's, such as ``max_length``."""


class Stands:
    """The whole mapping. Relative paths count from its file."""

    def __init__(self, entries: dict[str, Stand], folder: Path) -> None:
        self._entries = entries
        self._folder = folder

    def of(self, base: str) -> Stand:
        """What stands for that base. Raises ConfigError."""
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
        # Twice that rate, and random weights stick to one answer.
        return Stands({"*": Stand(model="tiny.json", adapter="full", learning_rate=1.5e-3)}, scratch)
    try:
        entries = msgspec.json.decode(read_regular(file, _LARGEST_BYTES), type=dict[str, Stand])
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{file} is not a valid table of base models: {error}") from error
    return Stands(entries, file.absolute().parent)
