"""Rows that are not conversations: preferences, ratings, items for graders, labels, tags, questions, pairs, media."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, UnsetType

from cloudtune.data.read.kinds import Kind
from cloudtune.data.read.kinds_chat import (
    CHAT_KINDS,
    GRADER_KEYS,
    SYSTEM,
    TOOLS,
    Words,
    item,
    opened,
    turns,
)
from cloudtune.data.records import (
    Answers,
    Item,
    Labelled,
    Message,
    Pair,
    Picture,
    Preference,
    Question,
    Rated,
    Speech,
    Tagged,
    Text,
)
from cloudtune.errors import DataError, Problem
from cloudtune.plugins import ROW_KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping


def _from_pair(row: Any) -> Preference:
    chosen, rejected = turns(row.chosen, "assistant"), turns(row.rejected, "assistant")
    if row.prompt is not UNSET:
        return Preference(opened(row.system, turns(row.prompt, "user")), chosen, rejected)
    # Without a prompt both sides hold the whole conversation: what they share is the question.
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    if not shared:
        raise ValueError("prompt: missing, and chosen and rejected do not start with the same turns")
    return Preference(opened(row.system, chosen[:shared]), chosen[shared:], rejected[shared:])


def _from_rated(row: Any) -> Rated:
    return Rated(opened(row.system, turns(row.prompt, "user")), turns(row.completion, "assistant"), row.label)


def _is_bool(row: Mapping[str, Any]) -> bool:
    return isinstance(row["label"], bool) or str(row["label"]).lower() in {"true", "false", "0", "1"}


def _from_reward(row: Any) -> Item:
    return item(turns(row.prompt, "user"), reward_model=row.reward_model)


def _is_item(row: Mapping[str, Any]) -> bool:
    return not row.keys().isdisjoint(GRADER_KEYS)


Label = str | int
_RECORDS = (
        Kind("preference_record", {"messages": list[Message], "chosen": list[Message], "rejected": list[Message]},
             TOOLS, canonical=Preference),
        Kind("rated_record", {"messages": list[Message], "completion": list[Message], "label": bool},
             canonical=Rated),
        Kind("item_record", {"messages": list[Message], "fields": dict[str, Any]}, canonical=Item),
)  # fmt: skip
"""Canonical records with more keys than conversations. Rows are compared with these before any other kind."""
_OTHERS = (
        # First those with more keys, or that only their values tell.
        Kind("item", {"messages": list[Message]}, {}, lambda row: item(row.messages), tell=_is_item, keeps_extra=True),
        Kind("reward", {"prompt": Words, "reward_model": dict[str, Any]}, {}, _from_reward, keeps_extra=True),
        Kind("preference", {"chosen": Words, "rejected": Words}, {"prompt": Words | UnsetType, **SYSTEM}, _from_pair),
        Kind("rated", {"prompt": Words, "completion": Words, "label": bool}, SYSTEM, _from_rated, tell=_is_bool),
        *CHAT_KINDS,
        Kind("text_label", {"text": str, "label": Label}, canonical=Labelled),
        Kind("text", {"text": str}, canonical=Text),
        Kind("tags", {"tokens": list[str], "tags": list[Label]}, canonical=Tagged),
        Kind("question", {"question": str, "context": str, "answers": Answers}, canonical=Question),
        Kind("pair", {"source": str, "target": str}, canonical=Pair),
        Kind("image_label", {"image": str, "label": Label}, canonical=Picture),
        Kind("speech", {"audio": str, "transcript": str}, canonical=Speech),
)  # fmt: skip
KINDS: dict[str, Kind] = {kind.name: kind for kind in (*_RECORDS, *_OTHERS)}
"""The core's own kinds by name."""


def kind_named(name: str) -> Kind:
    """The kind of that name. Raises DataError for an unknown name, BackendNotInstalled."""
    if name in KINDS:
        return KINDS[name]
    if name in ROW_KINDS.plugins:
        return ROW_KINDS.load(name, Kind)
    message = f"there is no kind of rows called {name!r}"
    fix = f"use one of auto, {', '.join([*KINDS, *ROW_KINDS.plugins])}"
    raise DataError([Problem(code="unknown_kind", message=message, field="kind", fix=fix)])


@cache
def all_kinds() -> tuple[Kind, ...]:
    """The core's kinds and those of plugins, in the order in which rows are compared with them."""
    return (*_RECORDS, *ROW_KINDS.load_all(Kind), *_OTHERS)


def recognise(row: Mapping[str, Any]) -> Kind | None:
    """The kind of a row, by its keys under our names and, where they do not tell, its values."""
    return next((kind for kind in all_kinds() if kind.matches(row)), None)


# Threads must not meet in a struct's first decoding (see ``backend``): an import is made by one.
for _kind in KINDS.values():
    if _kind.canonical is not None:
        msgspec.json.Decoder(_kind.canonical)
