"""Entities in sequences of tags, such as B-PER, I-PER and O, and how many of them a prediction finds.

The definition is that of the CoNLL evaluation, also the default of the seqeval library: an entity begins with B or S,
or with another prefix after another type, after O or after an end; a predicted entity counts if its type, its start and
its end are right.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_TAG = re.compile(r"O|[BIESLU]-.+", re.DOTALL)


def are_entities(tags: Iterable[str]) -> bool:
    """Whether the tags mark entities: O, and types with the prefix B or I (also E, S, L and U)."""
    tags = list(tags)
    return all(_TAG.fullmatch(tag) for tag in tags) and any(tag[:2] in ("B-", "I-") for tag in tags)


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Type, first and last word of each entity."""
    found = set()
    before, kind, start = "O", "", 0
    for place, tag in enumerate([*tags, "O"]):
        inside = before != "O"
        ended = before[0] in "ESLU" or tag[0] in "BSUO" or tag[2:] != kind
        if inside and ended:
            found.add((kind, start, place - 1))
        if tag != "O" and (not inside or ended):
            kind, start = tag[2:], place
        before = tag
    return found


def counts(predicted: Sequence[str], actual: Sequence[str]) -> tuple[int, int, int]:
    """The number of entities that are right, predicted, and actual."""
    one, other = entities(predicted), entities(actual)
    return len(one & other), len(one), len(other)
