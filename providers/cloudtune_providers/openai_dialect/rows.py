"""Training rows of OpenAI's dialect: chat messages, pairs for DPO, items for graders.

developers.openai.com/api/docs/guides/supervised-fine-tuning and the inputs of fine-tuning in the published schema
(github.com/openai/openai-openapi), seen 2026-11-21.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import UNSET, UnsetType, to_builtins

from cloudtune.data.read.dialects import Row, read_turns, typed
from cloudtune.data.read.kinds import Kind
from cloudtune.data.read.kinds_chat import Foreign, tools_of
from cloudtune.data.records import Message, Preference, Tools
from cloudtune.data.write.dropped_features import ALL
from cloudtune.data.write.formats import Format

if TYPE_CHECKING:
    from cloudtune.data.records import Item


class PreferenceInput(Foreign):
    """The prompt of a pair, under ``input``."""

    messages: list[Message]
    tools: Tools | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET


def _from_preference(row: Any) -> Preference:
    answers = row.preferred_output, row.non_preferred_output
    return Preference(row.input.messages, *answers, row.input.tools, row.input.parallel_tool_calls)


def _read_preference(row: Row) -> Preference:
    """The row in any dialect of its turns and tools."""
    given = typed(row.pop("input"), dict[str, Any], "input")
    if unknown := sorted(given.keys() - {"messages", "tools", "functions", "parallel_tool_calls"}):
        raise ValueError(f"input.{unknown[0]}: unknown key {unknown[0]!r}")
    better, worse = (read_turns(row.pop(key), key) for key in ("preferred_output", "non_preferred_output"))
    messages = read_turns(given.get("messages"), "input.messages")
    return Preference(messages, better, worse, *tools_of(given))


def _write_preference(row: Preference) -> dict[str, Any]:
    given: dict[str, Any] = {"messages": row.messages}
    if row.tools is not UNSET:
        given["tools"] = row.tools
    if row.parallel_tool_calls is not UNSET:
        given["parallel_tool_calls"] = row.parallel_tool_calls
    return {"input": given, "preferred_output": row.chosen, "non_preferred_output": row.rejected}


def _write_item(row: Item) -> dict[str, Any]:
    """Prompts for graders are for reasoning models, whose system turns are called developer turns."""
    messages = [
        to_builtins(message) | {"role": "developer"} if message.role == "system" else message
        for message in row.messages
    ]
    return {"messages": messages, **row.fields}


_CARRIED = ALL - {"thoughts", "videos", "bucket_owners", "media_formats", "unanswered", "tool_errors", "tool_images"}
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
    _from_preference,
    read=_read_preference,
    makes=Preference,
)
