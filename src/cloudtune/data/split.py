"""Assigns records to splits by their content and a seed only.

Equal records are in the same split, the order of rows does not matter, and added rows do not change the split of
existing ones.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cloudtune.spec import Data

_SPAN = 1 << 64


class Shares(NamedTuple):
    """The shares of the held-out splits."""

    validation: float
    test: float
    seed: int

    def side(self, record: bytes) -> str:
        """``train``, ``validation`` or ``test`` for a canonical record."""
        if not (self.validation or self.test):
            return "train"
        at = int.from_bytes(blake2b(record, digest_size=8, key=b"%d" % self.seed).digest(), "big") / _SPAN
        if at < self.validation:
            return "validation"
        return "test" if at >= 1 - self.test else "train"


def shares(data: Data) -> Shares:
    """The shares in the spec."""
    return Shares(
        data.validation if isinstance(data.validation, float) else 0.0,
        data.test if isinstance(data.test, float) else 0.0,
        data.split_seed,
    )
