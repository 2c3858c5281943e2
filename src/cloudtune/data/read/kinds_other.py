"""Rows that are not conversations: preferences, ratings, items for graders, labels, tags, questions, pairs, media."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, UnsetType

from cloudtune.data.read.dialects import Row, read_turns
from cloudtune.data.read.kinds import Kind
from cloudtune.data.read.kinds_chat import (
    ASIDE,
    CHAT_KINDS,
    ITEM_KEYS,
    SYSTEM,
    TOOLS,
    Words,
    beside,
    instructed,
    item,
    opened,
    tools_of,
    turns,
    turns_under,
    words_of,
)
from cloudtune.data.records import (
    Answers,
    Chat,
    Contrastive,
    Item,
    Labelled,
    Message,
    Pair,
    Picture,
    Preference,
    Question,
    Rated,
    Similarity,
    Speech,
    Tagged,
    Text,
)
from cloudtune.errors import DataError, Problem
from cloudtune.plugins import ROW_KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def _from_pair(row: Any) -> Preference:
    chosen, rejected = turns(row.chosen, "assistant"), turns(row.rejected, "assistant")
    if row.prompt is UNSET or {turn.role for turn in (*chosen[:1], *rejected[:1])} & {"system", "user"}:
        raise ValueError("chosen: it may be a whole conversation")
    return Preference(opened(row.system, turns(row.prompt, "user")), chosen, rejected)


_PROMPTS = ("prompt", "question", "instruction", "query", "input", "conversations", "conversation", "messages")
"""Keys of the prompt of a pair, most common first."""
_SIDES = {
    "preference": ("chosen", "rejected"),
    "chosen_response": ("chosen_response", "rejected_response"),
    "rejected_response": ("response", "rejected_response"),
    "chosen_messages": ("chosen_messages", "rejected_messages"),
    "rejected_messages": ("messages", "rejected_messages"),
    "messages_and_rejected": ("messages", "rejected_response"),
    "conversations_and_rejected": ("conversations", "rejected_response"),
}
"""The kinds of pairs, and the keys of the better and the worse answer."""
_PAIR_KEYS = ASIDE | {*_PROMPTS, *(key for side in _SIDES.values() for key in side)}


def _read_pair(row: Row) -> Preference:
    """A pair: two answers to one prompt, or two conversations that begin with the same turns."""
    better, worse = next(side for side in _SIDES.values() if side[0] in row and side[1] in row)
    whole = row[better] if better in ("messages", "conversations") else None
    chosen, rejected = words_of(row, better, "assistant"), words_of(row, worse, "assistant")
    key = next((key for key in _PROMPTS if row.get(key) is not None), None)
    if whole is not None and worse == "rejected_response":
        last = 1 + max((i for i, message in enumerate(chosen) if message.role == "user"), default=-1)
        return _pair(row, chosen[:last], chosen[last:], rejected)
    if {message.role for message in (*chosen[:1], *rejected[:1])} <= {"system", "user"}:
        shared = 0
        while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
            shared += 1
        if not shared:
            raise ValueError(f"{better}: it and {worse} do not start with the same turns")
        start = chosen[:shared]
        if key is not None:
            same = turns_under(row, key)[:shared] == start if key == "messages" else _repeats(row, key, start)
            if not same:
                raise ValueError(f"{key}: it is not what {better} and {worse} start with")
        return _pair(row, chosen[:shared], chosen[shared:], rejected[shared:])
    if key is None:
        raise ValueError(f"prompt: missing, and {better} and {worse} are answers alone")
    if key in ("conversations", "conversation", "messages"):
        requested = turns_under(row, key)
    else:
        requested = instructed(row, "input") if key == "instruction" else words_of(row, key, "user")
    return _pair(row, requested, chosen, rejected)


def _repeats(row: Row, key: str, messages: list[Message]) -> bool:
    """Whether the messages contain the key's text or turns; if so, the key is removed."""
    requested = words_of(row, key, "user")
    return all(turn in messages for turn in requested)


def _pair(row: Row, requested: list[Message], chosen: list[Message], rejected: list[Message]) -> Preference:
    return Preference(beside(row, requested), chosen, rejected, *tools_of(row))


def _from_rated(row: Any) -> Rated:
    requested, answer = opened(row.system, turns(row.prompt, "user")), turns(row.completion, "assistant")
    return Rated(requested, answer, row.label, row.tools, row.parallel_tool_calls)


_RATINGS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


def rating(value: object) -> bool | None:
    """The rating that a value means: true or false, 1 or 0, or one of them as text. None for any other value."""
    return _RATINGS.get(str(value).lower()) if isinstance(value, str | int | float) else None


def _is_bool(row: Mapping[str, Any]) -> bool:
    return rating(row["label"]) is not None


RATINGS = ("label", "kto_tag")
"""Keys of an answer's rating."""


def _is_rated(key: str) -> Callable[[Mapping[str, Any]], bool]:
    def tell(row: Mapping[str, Any]) -> bool:
        """Whether a row has a conversation and a rating."""
        rest = {name: value for name, value in row.items() if name != key}
        kind = recognise(rest) if _is_bool({"label": row[key]}) else None
        return kind is not None and kind.makes is Chat and kind.name != "prompt" and not _is_unanswered(rest)

    return tell


def _is_unanswered(row: Mapping[str, Any]) -> bool:
    """Whether the last turn is not the assistant's, as in rows that a classifier learns from."""
    turns = row.get("messages")
    last = turns[-1] if isinstance(turns, list) and turns else None
    return isinstance(last, dict) and last.get("role") in ("user", "system")


def _read_rated(key: str) -> Callable[[Row], Rated]:
    def read(row: Row) -> Rated:
        label = rating(row.pop(key))
        if label is None:
            raise ValueError(f"{key}: a rating is true or false, or 1 or 0; correct it, or remove the row")
        question = next((name for name in ("prompt", "messages") if name in row), None)
        if question is not None and "completion" in row:
            requested, said = words_of(row, question, "user"), words_of(row, "completion", "assistant")
            return Rated(beside(row, requested), said, label, *tools_of(row))
        kind = KINDS["chat"] if "messages" in row else recognise(row)
        chat = kind.read(row) if kind is not None and kind.read is not None else None
        if not isinstance(chat, Chat):
            raise ValueError(f"{key}: this kind of conversation cannot have a rating")  # noqa: TRY004 - a row's fault
        last = 1 + max((i for i, message in enumerate(chat.messages) if message.role == "user"), default=-1)
        return Rated(chat.messages[:last], chat.messages[last:], label, chat.tools, chat.parallel_tool_calls)

    return read


def _from_reward(row: Any) -> Item:
    return item(turns(row.prompt, "user"), reward_model=row.reward_model)


def _read_item(row: Row) -> Item:
    return item(read_turns(row.pop("messages"), "messages"))


def _is_item(row: Mapping[str, Any]) -> bool:
    return not row.keys().isdisjoint(ITEM_KEYS)


def _is_preference_record(row: Mapping[str, Any]) -> bool:
    """Not where both sides repeat the question."""
    sides = [row["chosen"], row["rejected"]]
    return not any(isinstance(side, str) for side in sides) and not any(
        isinstance(side, list) and side and isinstance(side[0], dict) and side[0].get("role") in ("user", "system")
        for side in sides
    )


_NEGATIVES = ("negatives", "negative", "neg")
"""Keys of the negatives of a row; `_NUMBERED` are further ones."""
_NUMBERED = re.compile(r"negative_(0|[1-9][0-9]{0,3})")
_SOME_NEGATIVES = frozenset({*_NEGATIVES, *(f"negative_{number}" for number in range(1, 11))})
"""The keys that a template can fill."""
_CONTRASTIVE = {
    "contrastive": ("anchor", "positive"), "query_positive": ("query", "positive"), "query_pos": ("query", "pos"),
}  # fmt: skip
"""The kinds of rows for contrastive training, and their keys of the anchor and the positive."""


def _read_contrastive(row: Row) -> Contrastive:
    anchor, positive = next(keys for keys in _CONTRASTIVE.values() if keys[0] in row and keys[1] in row)
    numbered = {int(match[1]): key for key in row if (match := _NUMBERED.fullmatch(key))}
    others = (*_NEGATIVES, *(key for _, key in sorted(numbered.items())))
    found = {key: row.pop(key) for key in (anchor, positive, *others) if key in row}
    texts = {
        key: value if isinstance(value, list) else [value]
        for key, value in found.items()
        if value is not None and (value != "" or key not in others)  # an empty cell is no negative
    }
    for key, values in texts.items():
        if not all(isinstance(value, str) for value in values):
            raise ValueError(f"{key}: it must be text")
    for key in (anchor, positive):
        if len(texts.get(key, ())) != 1:
            raise ValueError(f"{key}: a row has exactly one; write a row for each")
    negatives = [value for key in others for value in texts.get(key, ())]
    return Contrastive(texts[anchor][0], texts[positive][0], negatives or UNSET)


Label = str | int
_RECORDS = (
        Kind("preference_record", {"messages": list[Message], "chosen": list[Message], "rejected": list[Message]},
             TOOLS, canonical=Preference, makes=Preference, tell=_is_preference_record),
        Kind("rated_record", {"messages": list[Message], "completion": list[Message], "label": bool},
             TOOLS, canonical=Rated, makes=Rated, read=_read_rated("label"), also=ASIDE),
        Kind("item_record", {"messages": list[Message], "fields": dict[str, Any]}, canonical=Item, makes=Item),
)  # fmt: skip
"""Canonical records with more keys than conversations. Rows are compared with these before any other kind."""
_OTHERS = (
        # First the kinds with more keys, or that only their values identify.
        Kind("item", {"messages": list[Message]}, {}, lambda row: item(row.messages), tell=_is_item, keeps_extra=True,
             makes=Item, read=_read_item),
        Kind("reward", {"prompt": Words, "reward_model": dict[str, Any]}, {}, _from_reward, keeps_extra=True,
             makes=Item),
        Kind("preference", {"chosen": Words, "rejected": Words}, {"prompt": Words | UnsetType, **SYSTEM}, _from_pair,
             makes=Preference, read=_read_pair, also=_PAIR_KEYS),
        *(Kind(name, {better: Words, worse: Words}, makes=Preference, read=_read_pair, also=_PAIR_KEYS)
          for name, (better, worse) in _SIDES.items() if name != "preference"),
        Kind("rated", {"prompt": Words, "completion": Words, "label": bool}, {**SYSTEM, **TOOLS}, _from_rated,
             tell=_is_bool, makes=Rated, read=_read_rated("label"), also=ASIDE),
        *(Kind(f"rated_{key}", {key: Any}, tell=_is_rated(key), makes=Rated, read=_read_rated(key))
          for key in RATINGS),
        *CHAT_KINDS,
        Kind("text_label", {"text": str, "label": Label | float | list[Label]}, canonical=Labelled, makes=Labelled),
        Kind("text", {"text": str}, canonical=Text, makes=Text),
        Kind("tags", {"tokens": list[str], "tags": list[Label]}, canonical=Tagged, makes=Tagged),
        Kind("question", {"question": str, "context": str, "answers": Answers}, canonical=Question, makes=Question),
        Kind("pair", {"source": str, "target": str}, canonical=Pair, makes=Pair),
        Kind("contrastive", {"anchor": str, "positive": str}, {"negatives": list[str]}, canonical=Contrastive,
             makes=Contrastive, read=_read_contrastive, also=_SOME_NEGATIVES),
        *(Kind(name, {anchor: str, positive: Any}, makes=Contrastive, read=_read_contrastive,
               also=_SOME_NEGATIVES)
          for name, (anchor, positive) in _CONTRASTIVE.items() if name != "contrastive"),
        Kind("similarity", {"sentence1": str, "sentence2": str, "score": float}, canonical=Similarity,
             makes=Similarity),
        Kind("similarity_label", {"sentence1": str, "sentence2": str, "label": float}, {},
             lambda row: Similarity(row.sentence1, row.sentence2, row.label), makes=Similarity),
        Kind("image_label", {"image": str, "label": Label}, canonical=Picture, makes=Picture),
        Kind("speech", {"audio": str, "transcript": str}, canonical=Speech, makes=Speech),
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
    """The kind of a row, by its keys under canonical names and, if ambiguous, its values."""
    return next((kind for kind in _candidates(frozenset(row)) if kind.tell is None or kind.tell(row)), None)


@lru_cache(maxsize=1024)
def _candidates(keys: frozenset[str]) -> tuple[Kind, ...]:
    """The possible kinds of rows with these keys."""
    return tuple(kind for kind in all_kinds() if kind.required.keys() <= keys)


@cache
def deciding(name: str) -> frozenset[str]:
    """Keys that make a row of that kind another one, or change its meaning: never ignored as unused."""
    kind = kind_named(name)
    found = set() if kind.keeps_extra else {*ITEM_KEYS, *kind.also}
    for other in all_kinds():
        if other.required.keys() & kind.required.keys() or (kind.makes is Chat and other.makes in (Preference, Rated)):
            found |= other.keys
    return frozenset(found)


# Threads must not meet in a struct's first decoding (see ``backend``): an import is made by one.
for _kind in KINDS.values():
    if _kind.canonical is not None:
        msgspec.json.Decoder(_kind.canonical)
