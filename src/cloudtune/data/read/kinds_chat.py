"""Kinds of conversation rows.

Each kind has a struct for its usual rows, which are decoded at once, and a function that reads all its dialects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec
from msgspec import UNSET, UnsetType

from cloudtune.data.read.dialects import MEDIA_KEYS, Row, from_json, read_tools, read_turns, typed, with_media
from cloudtune.data.read.kinds import Kind
from cloudtune.data.records import Chat, Item, Message, Part, TextPart, ToolCall, Tools, compact

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Words = str | list[Message]
"""A text, or the turns themselves."""
SYSTEM = {"system": str | None | UnsetType}
TOOLS = {"tools": Tools | UnsetType, "parallel_tool_calls": bool | UnsetType}
ASIDE = MEDIA_KEYS | {"system", "history", "functions", *TOOLS}
"""Keys that rows of every conversational dialect can have besides the conversation."""


class Foreign(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A part of a row with its own shape."""


# --- what all dialects share


def turns(words: Words, role: Literal["user", "assistant"]) -> list[Message]:
    """A text as one turn; turns unchanged."""
    return [Message(role, words)] if isinstance(words, str) else words


def opened(system: object, messages: list[Message]) -> list[Message]:
    """The messages, after the system prompt if there is one."""
    return [Message("system", system), *messages] if system and isinstance(system, str) else messages


def system_text(value: Any) -> str:
    """The system prompt of a text or of blocks of text. Raises ValueError for anything else."""
    if value in (None, UNSET):
        return ""
    if isinstance(value, str):
        return value
    blocks = value if isinstance(value, list) else [value]
    texts: list[Any] = [block.get("text") if isinstance(block, dict) else block for block in blocks]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("system: expected a text, or blocks that have a text")
    return "\n".join(texts)


def words_of(row: Row, key: str, role: Literal["user", "assistant"]) -> list[Message]:
    """The turns under a key: a text is one turn of that role. Raises ValueError for null."""
    value = row.pop(key)
    if value is None:
        raise ValueError(f"{key}: the value is null; write the text, or remove the row")
    if isinstance(value, list | dict):
        return read_turns(value, key, columns=not MEDIA_KEYS.isdisjoint(row))
    return [Message(role, typed(value, str, key))]


def turns_under(row: Row, key: str) -> list[Message]:
    """The turns under a key. Image parts without a URL refer to the row's images, if it has any."""
    return read_turns(row.pop(key), key, columns=not MEDIA_KEYS.isdisjoint(row))


def beside(row: Row, messages: list[Message]) -> list[Message]:
    """The conversation with the row's other fields: system prompt, earlier turns, images."""
    earlier: list[Message] = []
    for i, pair in enumerate(typed(from_json(row.pop("history", None), "history") or [], list[list[str]], "history")):
        if len(pair) != 2:
            raise ValueError(f"history[{i}]: expected a question and its answer")
        earlier += [Message("user", pair[0]), Message("assistant", pair[1])]
    return with_media(opened(system_text(row.pop("system", None)), [*earlier, *messages]), row)


def tools_of(row: Row) -> tuple[Any, Any]:
    """The assistant's tools, and whether parallel calls are allowed."""
    tools = read_tools(row.pop("tools", None), "tools")
    functions = read_tools(row.pop("functions", None), "functions")
    if tools and functions:
        raise ValueError("tools: both tools and functions")
    parallel = row.pop("parallel_tool_calls", None)
    return (
        tools if tools is not UNSET else functions,
        UNSET if parallel is None else typed(parallel, bool, "parallel_tool_calls"),
    )


def read_chat(row: Row, key: str) -> Chat:
    """A conversation under that key, with the row's other fields."""
    messages = turns_under(row, key)
    return Chat(beside(row, messages), *tools_of(row))


# --- prompt and completion, instruction and output


def _from_prompt(row: Any) -> Chat:
    return Chat(opened(row.system, turns(row.prompt, "user") + turns(row.completion, "assistant")), row.tools)


def _from_question(row: Any) -> Chat:
    """A prompt, with or without an answer."""
    answer = [] if row.completion in (UNSET, None) else turns(row.completion, "assistant")
    return Chat(opened(row.system, turns(row.prompt, "user") + answer))


def _is_prompt_alone(row: Mapping[str, Any]) -> bool:
    return row.keys() <= {"prompt", "completion", "system"} and row.get("completion") is None


def _answered(requested: str, answer: str) -> Any:
    """Reads rows of those two keys."""

    def read(row: Row) -> Chat:
        messages = words_of(row, requested, "user")
        if answer == "completion" and row.get(answer) is None:
            row.pop(answer, None)
        else:
            messages += words_of(row, answer, "assistant")
        return Chat(beside(row, messages), *tools_of(row))

    return read


def instructed(row: Row, more: str) -> list[Message]:
    """The instruction and its input, as the user's turn."""
    text = typed(row.pop("instruction"), str, "instruction")
    given = row.pop(more, None)
    return [Message("user", text if given in (None, "") else f"{text}\n\n{compact(given)}")]


def _instructed(answer: str, more: str) -> Any:
    def read(row: Row) -> Chat:
        messages = instructed(row, more)
        said = row.pop(answer)
        if said is None:
            raise ValueError(f"{answer}: the value is null; write the answer, or remove the row")
        return Chat(beside(row, [*messages, Message("assistant", compact(said))]), *tools_of(row))

    return read


def _instruct(instruction: str, given: Any, answer: Any, system: object) -> Chat:
    if answer is None:
        raise ValueError("the answer is null")
    if given is not UNSET and given is not None and given != "":
        instruction = f"{instruction}\n\n{compact(given)}"
    return Chat(opened(system, [Message("user", instruction), Message("assistant", compact(answer))]))


def _from_instruction(row: Any) -> Chat:
    return _instruct(row.instruction, row.input, row.output, row.system)


def _from_response(row: Any) -> Chat:
    return _instruct(row.instruction, row.context, row.response, row.system)


# --- ShareGPT


class ShareGptTurn(Foreign, rename={"who": "from"}):
    """``{"from": "human", "value": "..."}``."""

    who: Literal["human", "gpt", "system", "user", "assistant"]
    value: str
    weight: Literal[0, 1] | UnsetType = UNSET


_SHAREGPT = {"human": "user", "gpt": "assistant"}


def _from_sharegpt(row: Any) -> Chat:
    messages = [
        Message(cast("Any", _SHAREGPT.get(turn.who, turn.who)), turn.value, turn.weight) for turn in row.conversations
    ]
    return Chat(opened(row.system, messages), row.tools)


# --- for kinds whose turns are made of blocks


def blocks_of(row: Mapping[str, Any]) -> Iterable[Any]:
    """The blocks of all messages whose content is a list."""
    messages = row["messages"] if isinstance(row["messages"], list) else ()
    for message in messages:
        if isinstance(message, dict) and isinstance(message.get("content"), list):
            yield from message["content"]


def spoken(
    role: Literal["user", "assistant"], parts: list[Part], calls: list[ToolCall], thought: list[str],
    results: list[Message],
) -> list[Message]:  # fmt: skip
    """The message of a turn's blocks; none if all of them are tool results."""
    if results and not (parts or calls or thought):
        return []
    one = parts[0] if len(parts) == 1 else None
    content = one.text if isinstance(one, TextPart) else parts or None
    return [Message(role, content, tool_calls=calls or UNSET, reasoning_content="\n".join(thought) or UNSET)]


def one_text(parts: list[Part]) -> str | list[Part]:
    """Text parts joined into one text, usual in a tool's result; other parts unchanged."""
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    return "\n".join(texts) if len(texts) == len(parts) else parts


_WITH_TOOLS = {**SYSTEM, "tools": Tools | UnsetType}
CHAT_KINDS: tuple[Kind, ...] = (
    Kind("chat", {"messages": list[Message]}, TOOLS, canonical=Chat, also=ASIDE,
         read=lambda row: read_chat(row, "messages")),
    Kind("sharegpt", {"conversations": list[ShareGptTurn]}, _WITH_TOOLS, _from_sharegpt, also=ASIDE,
         read=lambda row: read_chat(row, "conversations")),
    Kind("conversation", {"conversation": list[Any]}, also=ASIDE, read=lambda row: read_chat(row, "conversation")),
    Kind("prompt_completion", {"prompt": Words, "completion": Words}, _WITH_TOOLS, _from_prompt, also=ASIDE,
         read=_answered("prompt", "completion")),
    Kind("prompt", {"prompt": Words}, {"completion": Words | None | UnsetType, **SYSTEM}, _from_question,
         tell=_is_prompt_alone, read=_answered("prompt", "completion")),
    Kind("instruction", {"instruction": str, "output": Any}, {"input": Any, **SYSTEM}, _from_instruction, also=ASIDE,
         read=_instructed("output", "input")),
    Kind("instruction_response", {"instruction": str, "response": Any}, {"context": Any, **SYSTEM}, _from_response,
         also=ASIDE, read=_instructed("response", "context")),
    Kind("query_response", {"query": Words, "response": Words}, also=ASIDE, read=_answered("query", "response")),
)  # fmt: skip


GRADER_KEYS = ("reference_answer", "answer", "reference", "ground_truth")
"""Keys of a grader's reference answer."""
ITEM_KEYS = frozenset({*GRADER_KEYS, "reward_model"})
"""Keys that make a conversation a task for a grader."""


def item(messages: list[Message], **fields: Any) -> Item:
    """A prompt for a grader, with the row's other fields."""
    return Item(messages, {key: value for key, value in fields.items() if value is not UNSET})
