"""The rows that OpenAI's dialect trains on: chat messages, pairs for DPO, items for graders.

developers.openai.com/api/docs/guides/supervised-fine-tuning and the inputs of fine-tuning in the published schema
(github.com/openai/openai-openapi), seen 2026-11-21.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import UNSET, UnsetType, to_builtins

from cloudtune.data.read.kinds import Kind
from cloudtune.data.read.kinds_chat import Foreign
from cloudtune.data.records import Message, Preference
from cloudtune.data.write.dropped_features import ALL
from cloudtune.data.write.formats import Format

if TYPE_CHECKING:
    from cloudtune.data.records import Item


class PreferenceInput(Foreign):
    """The question of a pair, under ``input``."""

    messages: list[Message]
    tools: list[dict[str, Any]] | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET


def _read_preference(row: Any) -> Preference:
    tools = row.input.tools or UNSET
    answers = row.preferred_output, row.non_preferred_output
    return Preference(row.input.messages, *answers, tools, row.input.parallel_tool_calls)


def _write_preference(row: Preference) -> dict[str, Any]:
    given: dict[str, Any] = {"messages": row.messages}
    if row.tools is not UNSET:
        given["tools"] = row.tools
    if row.parallel_tool_calls is not UNSET:
        given["parallel_tool_calls"] = row.parallel_tool_calls
    return {"input": given, "preferred_output": row.chosen, "non_preferred_output": row.rejected}


def _write_item(row: Item) -> dict[str, Any]:
    """Prompts for graders are of reasoning models, whose system turns are called developer turns."""
    messages = [
        to_builtins(message) | {"role": "developer"} if message.role == "system" else message
        for message in row.messages
    ]
    return {"messages": messages, **row.fields}


_CARRIED = ALL - {"thoughts", "videos", "bucket_owners", "media_formats", "unanswered"}
CHAT = Format("openai", "OpenAI's chat messages", frozenset({"chat"}), _CARRIED, own="chat")
PREFERENCE = Format(
    "openai-preference", "OpenAI's pairs for DPO", frozenset({"preference"}), _CARRIED, _write_preference,
    own="openai_preference",
)  # fmt: skip
ITEMS = Format("openai-rft", "OpenAI's items for graders", frozenset({"item"}), _CARRIED, _write_item, own="item")

PREFERENCE_ROWS = Kind(
    "openai_preference",
    {"input": PreferenceInput, "preferred_output": list[Message], "non_preferred_output": list[Message]},
    {},
    _read_preference,
)
