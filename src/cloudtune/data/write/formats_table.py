"""The vendor-neutral formats, and the lookup of formats by name."""

from __future__ import annotations

import difflib
from functools import cache
from typing import TYPE_CHECKING

from msgspec import UNSET

from cloudtune.data.records import Pair
from cloudtune.data.write.dropped_features import ALL
from cloudtune.data.write.formats import Format
from cloudtune.data.write.turns import TALK, Json, question_and_answer, short, to_pairs, to_prompt, tools_of
from cloudtune.errors import DataError, Problem
from cloudtune.plugins import FORMATS as PLUGINS

if TYPE_CHECKING:
    from cloudtune.data.records import Chat, Rated


def _to_alpaca(chat: Chat) -> Json:
    instruction, output = question_and_answer(chat.messages)
    return {"instruction": instruction, "input": "", "output": output}


_SHAREGPT = {"user": "human", "assistant": "gpt", "system": "system"}


def _to_sharegpt(chat: Chat) -> Json:
    turns = []
    for message in chat.messages:
        turn: Json = {"from": _SHAREGPT[message.role], "value": message.text}
        turns.append(turn if message.weight is UNSET else {**turn, "weight": message.weight})
    return {"conversations": turns}


def _to_pair(record: Chat | Pair) -> Json | Pair:
    if isinstance(record, Pair):
        return record
    source, target = question_and_answer(record.messages)
    return {"source": source, "target": target}


def _to_kto(row: Rated) -> Json:
    prompt, answer = short(row.messages, "user"), short(row.completion, "assistant")
    if not (isinstance(prompt, str) and isinstance(answer, str)):
        prompt, answer = row.messages, row.completion
    return {"prompt": prompt, "completion": answer, "label": row.label, **tools_of(row)}


_CHAT, _NONE = frozenset({"chat"}), frozenset[str]()
FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        # Canonical records name no kind that reads them: they are always encoded again.
        Format("cloudtune", "cloudtune's own canonical records", _NONE, ALL),
        Format("prompt-completion", "prompt and completion", _CHAT, _NONE, to_prompt, own="prompt_completion"),
        Format("alpaca", "instruction, input, output", _CHAT, _NONE, _to_alpaca, own="instruction"),
        Format("sharegpt", "conversations of from and value", _CHAT,
               TALK | {"weights", "repeated_roles", "later_system"}, _to_sharegpt, own="sharegpt"),
        Format("preference", "prompt, chosen, rejected", frozenset({"preference"}), ALL, to_pairs,
               own="preference"),
        Format("kto", "prompt, completion, label", frozenset({"rated"}), ALL, _to_kto, own="rated"),
        Format("pair", "source and target", frozenset({"chat", "pair"}), _NONE, _to_pair, own="pair"),
    )
}  # fmt: skip
"""The core's own formats by name."""


def format_names() -> list[str]:
    """The names of all formats, sorted."""
    return sorted({*FORMATS, *PLUGINS.plugins})


@cache
def find_format(name: str) -> Format:
    """The format of that name. Raises DataError for an unknown name, BackendNotInstalled."""
    if name in FORMATS:
        return FORMATS[name]
    if name in PLUGINS.plugins:
        return PLUGINS.load(name, Format)
    names = format_names()
    near = difflib.get_close_matches(name, names, n=1)
    fix = f"did you mean {near[0]}?" if near else f"use one of {', '.join(names)}"
    raise DataError([Problem(code="unknown_format", message=f"unknown format {name!r}", field="format", fix=fix)])
