"""The canonical records: the result of reading any file format, and the source of writing back ends' formats.

One record is one compact UTF-8 JSON object on a line. Equivalent files give the same bytes, so hashes of records
(fingerprint, split, duplicates) do not depend on the file format.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

Role = Literal["system", "developer", "user", "assistant", "tool"]
"""``developer`` is OpenAI's name of a system turn for reasoning models. A record has ``system`` in its place."""
ROLES: tuple[str, ...] = ("system", "user", "assistant", "tool")


class Record(msgspec.Struct, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """The base class of all records. ``kind_of`` returns the kind."""


class TextPart(Record, tag_field="type", tag="text"):
    """Text within a turn that also has other parts."""

    text: str


class ImageUrl(Record):
    """Where an image is: a URL of a web server or of a store, or a ``data:`` URL."""

    url: str
    detail: str | UnsetType = UNSET
    bucket_owner: str | UnsetType = UNSET
    """The account that owns its bucket."""
    format: str | UnsetType = UNSET
    """The file's format, if its URL has no extension."""


class ImagePart(Record, tag_field="type", tag="image_url"):
    """An image within a turn."""

    image_url: ImageUrl


class VideoUrl(Record):
    """Where a video is: a URL of a web server or of a store."""

    url: str
    bucket_owner: str | UnsetType = UNSET
    format: str | UnsetType = UNSET
    """As of an image."""


class VideoPart(Record, tag_field="type", tag="video_url"):
    """A video within a turn."""

    video_url: VideoUrl


Part = TextPart | ImagePart | VideoPart


class Function(Record):
    """Which function the model calls."""

    name: str
    arguments: str
    """JSON as text, as written by the model."""


class ToolCall(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """One call of a tool by the assistant."""

    id: str
    function: Function
    type: Literal["function"] = "function"


class Tool(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A function that the assistant can call: name, description, parameters as JSON Schema, and further settings."""

    type: Literal["function"]
    function: dict[str, Any]

    def __post_init__(self) -> None:
        """Raise ValueError for a function without a name."""
        if not isinstance(self.function.get("name"), str):
            raise ValueError("a function must have a name")  # noqa: TRY004 - msgspec takes ValueError for a wrong value


Tools = Annotated[list[Tool], msgspec.Meta(min_length=1)]


class Message(Record):
    """One turn of a conversation."""

    role: Role
    content: str | list[Part] | None = None
    weight: Literal[0, 1] | UnsetType = UNSET
    """For an assistant's turn: 0 = context only, not trained on."""
    reasoning_content: str | UnsetType = UNSET
    """The assistant's reasoning before the answer."""
    tool_calls: Annotated[list[ToolCall], msgspec.Meta(min_length=1)] | UnsetType = UNSET
    tool_call_id: str | UnsetType = UNSET
    """For a tool's turn: the call that it answers."""
    name: str | UnsetType = UNSET
    is_error: Literal[True] | UnsetType = UNSET
    """For a tool's turn: the call failed."""

    def __post_init__(self) -> None:
        """Normalize equivalent values: a single text part becomes its text, empty text with calls becomes null."""
        content = self.content
        if type(content) is list and len(content) == 1 and type(part := content[0]) is TextPart:
            self.content = content = part.text
        if content == "" and self.tool_calls:
            self.content = None
        if self.role == "developer":
            self.role = "system"

    @property
    def text(self) -> str:
        """The text, without images and videos."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "\n".join([part.text for part in self.content if isinstance(part, TextPart)])


class Chat(Record):
    """A conversation for training."""

    messages: list[Message]
    tools: Tools | UnsetType = UNSET
    """The assistant's tools."""
    parallel_tool_calls: bool | UnsetType = UNSET


class Text(Record):
    """A plain text. Every token is trained on."""

    text: str


class Preference(Record):
    """A prompt, a better and a worse answer."""

    messages: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    tools: Tools | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET


class Rated(Record):
    """A prompt and an answer that is rated good or bad."""

    messages: list[Message]
    completion: list[Message]
    label: bool
    tools: Tools | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET


class Item(Record):
    """A prompt for sampling answers, and the fields for a grader."""

    messages: list[Message]
    fields: dict[str, Any] = {}


class Labelled(Record):
    """A text and its class, its classes, or a number."""

    text: str
    label: str | int | float | list[str | int]


class Tagged(Record):
    """Tokens, and a tag for each."""

    tokens: list[str]
    tags: list[str | int]


class Answers(Record):
    """Positions of the answer in the context. Empty lists if it does not occur."""

    text: list[str]
    answer_start: list[int]


class Question(Record):
    """A question about a context."""

    question: str
    context: str
    answers: Answers


class Pair(Record):
    """A source text and a target text."""

    source: str
    target: str


class Contrastive(Record):
    """A text, a text that means the same or answers it, and texts that do not."""

    anchor: str
    positive: str
    negatives: Annotated[list[str], msgspec.Meta(min_length=1)] | UnsetType = UNSET


class Similarity(Record):
    """Two texts and how similar they are."""

    sentence1: str
    sentence2: str
    score: float


class Picture(Record):
    """An image (path, URI or data URI) and its class."""

    image: str
    label: str | int


class Speech(Record):
    """A recording (path, URI or data URI) and its transcript."""

    audio: str
    transcript: str


_KINDS: dict[type[Record], str] = {
    Chat: "chat", Text: "text", Preference: "preference", Rated: "rated", Item: "item", Labelled: "text_label",
    Tagged: "tags", Question: "question", Pair: "pair", Contrastive: "contrastive",
    Similarity: "similarity", Picture: "image_label", Speech: "speech",
}  # fmt: skip

_encoder = msgspec.json.Encoder()
_decoders = {kind: msgspec.json.Decoder(sort) for sort, kind in _KINDS.items()}


def kind_of(record: Record) -> str:
    """The name of the record's kind."""
    return _KINDS[type(record)]


def canonical(record: Record) -> bytes:
    """The record as compact UTF-8 JSON, without a line end."""
    return _encoder.encode(record)


def canonical_lines(records: list[Record]) -> bytes:
    """All of them, each ending in a line end."""
    return _encoder.encode_lines(records)


def decoded(lines: bytes, kind: str) -> list[Record]:
    """Decode canonical lines as records of that kind."""
    return _decoders[kind].decode_lines(lines)


def checked(record: Record) -> Record:
    """Rebuild the record so that its values have the right types. Raises msgspec.ValidationError."""
    return _decoders[kind_of(record)].decode(_encoder.encode(record))


def compact(value: object) -> str:
    """A value as the text that a model reads: strings and dates without quotes, everything else as compact JSON."""
    if isinstance(value, str):
        return value
    text = _encoder.encode(value).decode()
    return msgspec.json.decode(text, type=str) if text.startswith('"') else text
