"""Rows that are not conversations: preferences, ratings, items for graders, labels, tags, questions, pairs, media."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from cloudtune.data.read.kinds import Kind
from cloudtune.data.read.kinds_chat import (
    CHAT_KINDS,
    SYSTEM,
    TOOLS,
    Converse,
    ConverseText,
    Foreign,
    Words,
    converse_message,
    is_converse,
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


class PreferenceInput(Foreign):
    """What OpenAI calls ``input``."""

    messages: list[Message]
    tools: list[dict[str, Any]] | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET


def _from_openai_preference(row: Any) -> Preference:
    tools = row.input.tools or UNSET
    answers = row.preferred_output, row.non_preferred_output
    return Preference(row.input.messages, *answers, tools, row.input.parallel_tool_calls)


class Candidate(Foreign):
    """One of the answers of a Nova preference row."""

    content: list[dict[str, Any]]
    preferenceLabel: Literal["preferred", "non-preferred"]  # noqa: N815 - the vendor's key


class NovaTurn(Foreign):
    """A turn of a Nova preference row; the last one has candidates."""

    role: Literal["user", "assistant"]
    content: list[dict[str, Any]] | UnsetType = UNSET
    candidates: list[Candidate] | UnsetType = UNSET


def _from_nova_preference(row: Any) -> Preference:
    *before, last = row.messages
    by_label = {one.preferenceLabel: one.content for one in last.candidates or ()}
    if len(by_label) != 2 or len(last.candidates) != 2:
        raise ValueError("messages: the last turn needs two candidates, one preferred and one non-preferred")
    asked = [m for turn in before for m in converse_message(Converse(turn.role, turn.content or []))]
    system = "\n".join(part.text for part in row.system) if row.system is not UNSET else ""
    better, worse = (
        converse_message(Converse("assistant", by_label[label])) for label in ("preferred", "non-preferred")
    )
    return Preference(opened(system, asked), better, worse)


def _has_candidates(row: Mapping[str, Any]) -> bool:
    last = row["messages"][-1] if isinstance(row["messages"], list) and row["messages"] else None
    return isinstance(last, dict) and "candidates" in last


def _from_rated(row: Any) -> Rated:
    return Rated(opened(row.system, turns(row.prompt, "user")), turns(row.completion, "assistant"), row.label)


def _is_bool(row: Mapping[str, Any]) -> bool:
    return isinstance(row["label"], bool) or str(row["label"]).lower() in {"true", "false", "0", "1"}


def _from_reward(row: Any) -> Item:
    return item(turns(row.prompt, "user"), reward_model=row.reward_model)


def _is_item(row: Mapping[str, Any]) -> bool:
    return bool({"reference_answer", "answer", "reference", "ground_truth"} & set(row)) and not is_converse(row)


def _input_alone(row: Mapping[str, Any]) -> bool:
    return len(row) == 1


Label = str | int
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        # First those with more keys, or that only their values tell.
        Kind("preference_record", {"messages": list[Message], "chosen": list[Message], "rejected": list[Message]},
             TOOLS, canonical=Preference),
        Kind("rated_record", {"messages": list[Message], "completion": list[Message], "label": bool},
             canonical=Rated),
        Kind("item_record", {"messages": list[Message], "fields": dict[str, Any]}, canonical=Item),
        Kind("nova_preference", {"messages": list[NovaTurn]},
             {"schemaVersion": Any, "system": list[ConverseText] | UnsetType}, _from_nova_preference,
             tell=_has_candidates),
        Kind("item", {"messages": list[Message]}, {}, lambda row: item(row.messages), tell=_is_item, keeps_extra=True),
        Kind("reward", {"prompt": Words, "reward_model": dict[str, Any]}, {}, _from_reward, keeps_extra=True),
        Kind("openai_preference", {"input": PreferenceInput, "preferred_output": list[Message],
                                   "non_preferred_output": list[Message]}, {}, _from_openai_preference),
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
        Kind("input_text", {"input": str}, {}, lambda row: Text(row.input), tell=_input_alone),
    )
}  # fmt: skip


def recognise(row: Mapping[str, Any]) -> Kind | None:
    """The kind of a row, by its keys under our names and, where they do not tell, its values."""
    return next((kind for kind in KINDS.values() if kind.matches(row)), None)


# Threads must not meet in a struct's first decoding (see ``backend``): an import is made by one.
for _kind in KINDS.values():
    if _kind.canonical is not None:
        msgspec.json.Decoder(_kind.canonical)
