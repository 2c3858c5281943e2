"""Reads conversations in the common dialects: OpenAI, ShareGPT, LLaMA-Factory, ms-swift, TRL.

A dialect names roles, texts, weights, tool calls and images differently. Here each of them becomes the canonical field
that means the same. What has no canonical field raises an error that names its place.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import UNSET

from cloudtune.data.read.duplicate_keys import duplicate_key
from cloudtune.data.read.json_syntax import NestedError
from cloudtune.data.records import Message, Tool, compact

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

Row = dict[str, Any]
ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "bard": "assistant", "bing": "assistant", "model": "assistant", "system": "system", "tool": "tool",
    "observation": "tool", "tool_response": "tool", "function": "tool", "function_call": "assistant",
    "tool_call": "assistant",
}  # fmt: skip
"""Every dialect's roles, and the canonical ones."""
_CALL_ROLES = {"function_call", "tool_call"}
"""Roles whose text is the call itself, as JSON."""
_WEIGHTS = ("weight", "loss", "loss_weight", "train")
_ARGUMENTS = ("arguments", "parameters")
_REASONING = ("reasoning_content", "reasoning", "thinking")
_SIDES = (("human", "user"), ("user", "user"), ("assistant", "assistant"), ("bot", "assistant"))
_TOOL = 'a tool must be {"type": "function", "function": {"name": ..., "parameters": ...}}'
_CALL = "a tool call must have a name and arguments"


OPAQUE = frozenset(
    {"parameters", "input_schema", "inputSchema", "input", "arguments", "json", "fields", "reward_model"}
)
"""Keys whose values are other programs' JSON, in which null can have a meaning."""


def without_nulls(value: Any, opaque: Collection[str] = OPAQUE) -> Any:
    """The value without the keys of its objects that hold null: null is the same as a missing key."""
    if isinstance(value, dict):
        return {
            key: one if key in opaque else without_nulls(one, opaque) for key, one in value.items() if one is not None
        }
    return [without_nulls(one, opaque) for one in value] if isinstance(value, list) else value


class TurnError(ValueError):
    """A turn has a value of the wrong type or an unknown key."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field, self.detail = field, detail


def from_json(value: Any, field: str) -> Any:
    """The value of a JSON text; other values unchanged.

    Raises ValueError for a text that is not JSON, and NestedError for a key that occurs twice.
    """
    if not isinstance(value, str):
        return value
    try:
        found = msgspec.json.decode(value)
    except msgspec.MsgspecError as error:
        raise TurnError(field, "expected JSON, got a text that is not valid JSON") from error
    if problem := duplicate_key(value.encode()):
        raise NestedError(msgspec.structs.replace(problem, field=field))
    return found


def typed(value: Any, wanted: Any, field: str) -> Any:
    """The value as that type. Raises TurnError."""
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        raise TurnError(field, str(error)) from error


def read_turns(value: Any, field: str, *, columns: bool = False) -> list[Message]:
    """The messages of a list of turns, in any dialect. Raises ValueError, with the turn's place.

    With ``columns``, an image part without a URL refers to one of the row's images.
    """
    turns = [value] if isinstance(value, dict) else from_json(value, field)
    reader = _Turns(columns=columns)
    for i, turn in enumerate(typed(without_nulls(turns), list[dict[str, Any]], field)):
        for place, one in _each(turn, f"{field}[{i}]"):
            reader.add(one, place)
    return reader.messages


def _each(turn: Row, place: str) -> Iterator[tuple[str, Row]]:
    """The turn; two of them where one object holds a question and its answer."""
    sides = [(key, role) for key, role in _SIDES if key in turn]
    if not sides or "role" in turn or "from" in turn:
        yield place, turn
        return
    _check_keys(turn, {"system", *(key for key, _ in sides)}, place)
    for key, role in (("system", "system"), *sides):
        if turn.get(key) is not None:
            yield f"{place}.{key}", {"role": role, "content": turn[key]}


class _Turns:
    """Makes messages of turns. Calls without an id get one, and the results that follow refer to it."""

    def __init__(self, *, columns: bool) -> None:
        self.messages: list[Message] = []
        self._columns = columns
        self._calls = 0
        self._waiting: list[tuple[str, str]] = []
        """Ids made here, and the functions' names, of calls without a result so far."""

    def add(self, turn: Row, place: str) -> None:
        turn = {key: value for key, value in turn.items() if value != []}
        who = _one_of(turn, ("from", "role"), place) or "role"
        what = _one_of(turn, ("value", "content"), place) or "content"
        role, content = turn.pop(who, None), turn.pop(what, None)
        if role is not None:
            role = typed(role, str, f"{place}.{who}")
        if who == "from" and role not in ROLES:
            raise ValueError(f"{place}.from: unknown role {role!r}; use {', '.join(ROLES)}")
        known = ROLES.get(role, role)
        message: Row = {} if known is None else {"role": known}
        if known != "tool" and role not in _CALL_ROLES:
            self._waiting.clear()
        calls = self._called(turn.pop("tool_calls", []), f"{place}.tool_calls")
        calls += self._called(turn.pop("function_call", []), f"{place}.function_call")
        thoughts: list[str] = []
        if role in _CALL_ROLES:
            calls, content = self._called(content, f"{place}.{what}"), None
        elif isinstance(content, list):
            content, thoughts, said = _parts(content, f"{place}.{what}", columns=self._columns)
            calls += self._called(said, f"{place}.{what}")
        if known == "tool":
            content = content if isinstance(content, str | list) or content is None else compact(content)
            self._answer(turn, role)
        message |= {"content": content, **_weight(turn, place, known), **_reasoning(turn, thoughts, place)}
        if role in _CALL_ROLES and not turn and self._join(calls):
            return
        if calls:
            message["tool_calls"] = calls
        try:
            self.messages.append(msgspec.convert(message | turn, Message))
        except msgspec.ValidationError as error:
            names = {"$.role": f"$.{who}", "$.content": f"$.{what}"}
            detail = re.sub(r"\$\.(role|content)\b", lambda found: names[found.group()], str(error))
            raise TurnError(place, detail) from error

    def _answer(self, turn: Row, role: Any) -> None:
        """Set the id of a tool's result to that of its call, if the id was generated here."""
        if "tool_call_id" in turn or not self._waiting:
            return
        name = turn.get("name")
        index = next((i for i, (_, called) in enumerate(self._waiting) if called == name), 0)
        turn["tool_call_id"], called = self._waiting.pop(index)
        if called == name and role == "function":
            del turn["name"]  # the call has it

    def _called(self, calls: Any, place: str) -> list[Row]:
        calls = from_json(calls, place)
        if not isinstance(calls, list):
            return [self._call(from_json(calls, place), place)]
        return [self._call(from_json(call, f"{place}[{i}]"), f"{place}[{i}]") for i, call in enumerate(calls)]

    def _call(self, call: Any, place: str) -> Row:
        function = from_json(call.get("function", call), place) if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise ValueError(f"{place}: {_CALL}")  # noqa: TRY004 - a row's fault
        for key in ("name", *_ARGUMENTS):
            _one_of(call, ("function", key), place)
        name, arguments = function.get("name"), function.get(_one_of(function, _ARGUMENTS, place) or "")
        if not isinstance(name, str) or not isinstance(arguments, str | dict):
            raise ValueError(f"{place}: {_CALL}")  # noqa: TRY004 - a row's fault
        inner = {"name", *_ARGUMENTS}
        _check_keys(function, inner if "function" in call else {"id", "type", "index", *inner}, place)
        _check_keys(call, {"id", "type", "index", "function", *inner}, place)
        given = call.get("id")
        if not given:
            given = f"call_{self._calls}"
            self._waiting.append((given, name))
        self._calls += 1
        said = {"name": name, "arguments": compact(arguments)}
        return {"id": given, "type": call.get("type", "function"), "function": said}

    def _join(self, calls: list[Row]) -> bool:
        """Add calls that have a turn of their own to the assistant's turn before them."""
        last = self.messages[-1] if self.messages else None
        if last is None or last.role != "assistant":
            return False
        earlier = msgspec.to_builtins(last.tool_calls or [])
        self.messages[-1] = msgspec.convert(msgspec.to_builtins(last) | {"tool_calls": earlier + calls}, Message)
        return True


def _one_of(row: Row, keys: Iterable[str], place: str) -> str | None:
    """The one of these keys that has a value. Raises ValueError for two: one of the values would be lost."""
    given = [key for key in keys if row.get(key) is not None]
    if len(given) > 1:
        raise ValueError(f"{place}: both {given[0]} and {given[1]}")
    return given[0] if given else None


def _check_keys(keys: Iterable[str], known: Iterable[str], place: str) -> None:
    """Raise ValueError for a key that is not known."""
    if unknown := sorted(set(keys).difference(known)):
        raise ValueError(f"{place}: unknown key {unknown[0]!r}")


def _reasoning(turn: Row, thoughts: list[str], place: str) -> Row:
    """What the assistant thought: the value of a key of the turn, or the reasoning parts of its content."""
    key = _one_of(turn, _REASONING, place)
    if key is None:
        return {"reasoning_content": "\n".join(thoughts)} if thoughts else {}
    if thoughts:
        raise ValueError(f"{place}: both {key} and reasoning in the content")
    return {"reasoning_content": turn.pop(key)}


def _weight(turn: Row, place: str, role: Any) -> Row:
    """Whether the turn is trained on. Dialects set it for every turn; canonical messages for assistant turns only."""
    for key in _WEIGHTS:
        if key in turn:
            value = turn.pop(key)
            if value not in (0, 1) or isinstance(value, str):
                raise TurnError(f"{place}.{key}", f"expected 0 or 1, got {compact(value)}")
            if role == "assistant" or value or key == "weight":
                return {"weight": int(value)}
            return {}
    return {}


def _parts(content: list[Any], place: str, *, columns: bool) -> tuple[Any, list[str], list[Any]]:
    """Content in canonical parts, and the reasoning and calls in a turn's other parts."""
    if not all(isinstance(part, dict) for part in content):
        return content, [], []
    parts: list[Row] = []
    thoughts: list[str] = []
    calls: list[Any] = []
    for i, part in enumerate(content):
        sort, value = part.get("type"), part.get("value")
        media = sort.removesuffix("_url") if isinstance(sort, str) else None
        at = f"{place}[{i}]"
        if sort in {"reasoning", "thinking"} and isinstance(said := value or part.get("thinking"), str):
            _one_of(part, ("value", "thinking"), at)
            _check_keys(part, {"type", "value", "thinking", "signature"}, at)
            thoughts.append(said)
        elif sort == "tool_call" and value is not None:
            _check_keys(part, {"type", "value"}, at)
            calls.append(value)
        elif sort == "text" and value is not None:
            _one_of(part, ("text", "value"), at)
            _check_keys(part, {"type", "value"}, at)
            parts.append({"type": "text", "text": value})
        elif columns and part in ({"type": "image"}, {"type": "video"}):
            parts.append({"type": "text", "text": f"<{sort}>"})
        elif media in {"image", "video"}:
            parts.append(_medium(media, part, at))
        elif media in {"audio", "input_audio"}:
            raise ValueError(f"{at}: audio in conversations is not supported")
        else:
            parts.append(part)
    return parts or None, thoughts, calls


def _medium(media: Any, part: Row, place: str) -> Row:
    """An image or a video under any of its keys."""
    keys = (f"{media}_url", media, "url", "path", "value")
    _check_keys(part, {"type", *keys}, place)
    given = _one_of(part, keys, place)
    if given is None:
        raise ValueError(f"{place}: expected one of {', '.join(keys)}")
    at = part[given]
    return {"type": f"{media}_url", f"{media}_url": at if isinstance(at, dict) else {"url": at}}


def read_tools(value: Any, field: str) -> Any:
    """The tools that a row describes, flat or as OpenAI has them, as JSON or as a text. Raises ValueError."""
    tools = from_json(value, field) if value else None
    if not tools:
        return UNSET
    found = []
    for i, one in enumerate(typed(tools, list[Any], field)):
        tool = without_nulls(from_json(one, f"{field}[{i}]"))
        tool = tool if isinstance(tool, dict) else {}
        sort = tool.pop("type", "function")
        function = tool.pop("function", None)
        if function is None and isinstance(tool.get("name"), str):
            function, tool = tool, {}
            if _one_of(function, ("input_schema", "parameters"), f"{field}[{i}]") == "input_schema":
                function["parameters"] = function.pop("input_schema")
        if sort != "function" or tool or not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ValueError(f"{field}[{i}]: {_TOOL}")
        found.append(Tool("function", function))
    return found


MEDIA: tuple[tuple[Literal["image", "video"], str], ...] = (("image", "images"), ("video", "videos"))
MEDIA_KEYS = frozenset({"image", "images", "video", "videos", "audio", "audios"})


def with_media(messages: list[Message], row: Row) -> list[Message]:
    """The messages, with the images and videos of the row's columns in place of ``<image>`` and ``<video>``.

    Raises ValueError if their number differs from that of the placeholders, and for audio.
    """
    for key in ("audio", "audios"):
        if row.pop(key, None):
            raise ValueError(f"{key}: audio in conversations is not supported")
    for media, many in MEDIA:
        given = {key: value for key in (many, media) if (value := row.pop(key, None))}
        key = _one_of(given, (many, media), many) or many
        addresses = given.get(key)
        if isinstance(addresses, str):
            addresses = from_json(addresses, key) if addresses.startswith("[") else [addresses]
        if addresses:
            messages = _placed(messages, media, addresses if isinstance(addresses, list) else [addresses], key)
    return messages


def _placed(messages: list[Message], media: str, addresses: Sequence[Any], key: str) -> list[Message]:
    urls = [at.get("path") or at.get("url") if isinstance(at, dict) else at for at in addresses]
    if not all(isinstance(url, str) and url for url in urls):
        raise ValueError(f"{key}: expected addresses or paths of {media}s")
    tag = f"<{media}>"
    places = sum(message.text.count(tag) for message in messages)
    if places not in (0, len(urls)):
        raise ValueError(f"{key}: {len(urls)} {media}s for {places} {tag} in the messages")
    left = iter(urls)
    found: list[Message] = []
    for message in messages:
        content = msgspec.to_builtins(message.content)
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
        if not places and message.role == "user":
            parts = [*[_address(media, url) for url in left], *parts]
        else:
            parts = [one for part in parts for one in _split(part, tag, media, left)]
        found.append(msgspec.convert(msgspec.to_builtins(message) | {"content": parts or content}, Message))
    if next(left, None) is not None:
        raise ValueError(f"{key}: there is no user message for them")
    return found


def _split(part: Row, tag: str, media: str, left: Iterator[Any]) -> Iterator[Row]:
    if part["type"] != "text":
        yield part
        return
    for i, text in enumerate(part["text"].split(tag)):
        if i:
            yield _address(media, next(left))
        if text:
            yield {"type": "text", "text": text}


def _address(media: str, url: Any) -> Row:
    return {"type": f"{media}_url", f"{media}_url": {"url": url}}
