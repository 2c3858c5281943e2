"""Held-out rows as prompts with their expected answers, and training rows as examples."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import UNSET

from cloudtune.data.media.addressing import FIELDS, MediaFiles, file_of, is_inline
from cloudtune.data.problem_list import KEPT, Faults
from cloudtune.data.read.reading import read
from cloudtune.data.records import (
    Chat,
    Labelled,
    Message,
    Pair,
    Picture,
    Question,
    Record,
    Speech,
    Tagged,
    Text,
    canonical,
    compact,
    kind_of,
)
from cloudtune.data.split import shares
from cloudtune.errors import InputError, Problem
from cloudtune.evaluation.text_metrics import json_value
from cloudtune.files.regular_file import open_regular
from cloudtune.prompts import Passage, ToolPrompt, messages_of, with_calls
from cloudtune.spec import Data, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cloudtune.optional import Input, Prompt


class TestRow(NamedTuple):
    """One held-out row."""

    line: int
    """Its line in the file, or its row in a file without lines."""
    file: str
    prompt: Prompt | Input
    """For a model that predicts, the row without its answer. For a text of its own, the text."""
    expected: str
    """For a question, a JSON list of all right answers; for words, of their tags."""
    record: Record

    @property
    def prompt_text(self) -> str:
        """The prompt as text: rows with the same prompt belong together."""
        return text_of(self.prompt)


def text_of(prompt: Prompt | Input | Passage) -> str:
    """All turns of the prompt, all fields of the row, or the text whose probability is asked for."""
    if isinstance(prompt, Passage):
        return prompt.text
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, Mapping):
        return "\n".join(value if isinstance(value, str) else " ".join(value) for value in prompt.values())
    if isinstance(prompt, ToolPrompt):
        tools = ", ".join(str(tool["function"]["name"]) for tool in prompt.tools)
        return "\n".join([*map(_text_of_turn, prompt.messages), f"(tools: {tools})"])
    return "\n".join(map(_text_of_turn, prompt))


def _text_of_turn(turn: Mapping[str, Any]) -> str:
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in turn.get("tool_calls", ())]
    return with_calls(str(turn["content"]), calls)


def read_rows(data: Source | Data, most: int | None = None, seed: int = 0) -> tuple[str, list[TestRow]]:
    """The kind of the rows, and the rows; at most ``most`` of them, chosen by content and seed.

    ``data`` is their source, or the data of a spec: then its test rows.

    Raises DataError with every row that cannot be evaluated.
    """
    faults = Faults()
    rows: list[TestRow] = []
    side: Callable[[bytes], str] | None = None
    if isinstance(data, Source):
        source = data
    elif isinstance(data.test, Source):
        source = data.test
    else:
        source, side = data.train, shares(data).side
    for batch in read(source, faults):
        for line, record in zip(batch.lines, batch.records, strict=True):
            named = _by_content(record, batch.file)
            if side is not None and not isinstance(named, Problem) and side(canonical(named)) != "test":
                continue
            found = named if isinstance(named, Problem) else prompt_and_answer(named)
            prompt = found if isinstance(found, Problem) else _with_file(found[0], record, batch.file)
            if isinstance(named, Problem) or isinstance(found, Problem) or isinstance(prompt, Problem):
                faults.add(batch.locate(next(one for one in (named, found, prompt) if isinstance(one, Problem)), line))
            else:
                rows.append(TestRow(line, batch.file, prompt, found[1], named))
    if not (rows or faults.total("error")):
        message, fix = "there are no rows to evaluate", "add rows, or hold out a larger share"
        faults.error("no_rows", message, file=source.paths[0], fix=fix)
    faults.raise_errors()
    if most is not None and most < len(rows):
        chosen = sorted(range(len(rows)), key=lambda number: (_rank(rows[number].record, seed), number))[:most]
        rows = [rows[number] for number in sorted(chosen)]
    return kind_of(rows[0].record), rows


def _rank(record: Record, seed: int) -> int:
    """A pseudorandom number from the content of the record."""
    return int.from_bytes(blake2b(canonical(record), digest_size=8, key=b"%d" % seed).digest(), "big")


def prompt_and_answer(record: Record) -> tuple[Prompt | Input, str] | Problem:
    """The prompt and the expected answer, or why there are none."""
    match record:
        case Labelled():
            if isinstance(record.label, list):
                message, fix = "rows with several labels are not evaluated yet", "use rows with one label"
                return Problem(code="not_evaluated", field="label", message=message, fix=fix)
            found: tuple[Prompt | Input, str] = (record.text, str(record.label))
        case Question():
            given = {"question": record.question, "context": record.context}
            found = (given, compact(list(dict.fromkeys(record.answers.text))))
        case Picture():
            found = ({"image": record.image}, str(record.label))
        case Speech():
            found = ({"audio": record.audio}, record.transcript)
        case Tagged():
            found = ({"tokens": record.tokens}, compact([str(tag) for tag in record.tags]))
        case Text():
            found = (record.text, record.text)
        case Pair():
            found = (record.source, record.target)
        case Chat():
            chat = _prompt_of_chat(record)
            if isinstance(chat, Problem):
                return chat
            found = chat
        case _:
            message = f"rows of kind {kind_of(record)} have no expected answer that is text"
            return Problem(code="not_evaluated", message=message, fix="use rows with a prompt and an answer")
    return _unless_blank(*found)


def _unless_blank(prompt: Prompt | Input, expected: str) -> tuple[Prompt | Input, str] | Problem:
    if not expected.strip():
        return Problem(code="blank", message="the expected answer is empty", fix="add it, or remove the row")
    if not text_of(prompt).strip():
        return Problem(code="blank", message="the prompt is empty", fix="add it, or remove the row")
    return prompt, expected


def _by_content(record: Record, file: str) -> Record | Problem:
    """The record as training splits it: with the name of its file's content. ``file`` is the file of the record."""
    if type(record) not in FIELDS:
        return record
    addressed, problems = MediaFiles(None).addressed(record, file)
    return problems[0] if addressed is None else addressed


def _with_file(prompt: Prompt | Input, record: Record, file: str) -> Prompt | Input | Problem:
    """The prompt with the path of the record's file, if it has one. Stored answers are for its content."""
    field = FIELDS.get(type(record))
    if field is None or not isinstance(prompt, Mapping):
        return prompt
    given = getattr(record, field)
    if is_inline(given):
        message = "files in data URIs are not evaluated yet"
        return Problem(code="not_evaluated", field=field, message=message, fix="write the path of a file")
    return {field: str(file_of(given, file).absolute()), "content": prompt[field]}


def _prompt_of_chat(record: Chat) -> tuple[Prompt, str] | Problem:
    last = record.messages[-1] if record.messages else None
    if last is None or last.role != "assistant" or len(record.messages) == 1:
        message = "the conversation does not end with an answer to a prompt"
        fix = "end it with an assistant turn: the expected answer"
        return Problem(code="no_answer", field="messages", message=message, fix=fix)
    if any(isinstance(turn.content, list) for turn in record.messages):
        message = "images and videos are not evaluated yet"
        return Problem(code="not_evaluated", field="messages", message=message, fix="remove the row")
    turns = [_turn(turn) for turn in record.messages[:-1]]
    tools = tuple(msgspec.to_builtins(record.tools)) if record.tools else ()
    calls = [(call.function.name, call.function.arguments) for call in last.tool_calls or ()]
    wrong = next((name for name, given in calls if not isinstance(json_value(given), dict)), None)
    if wrong is not None:
        message, fix = f"the arguments of the call of {wrong!r} are no JSON object", "correct them"
        return Problem(code="tool_arguments", field="messages", message=message, fix=fix)
    if not tools and (calls or any(turn.tool_calls for turn in record.messages)):
        message = "the conversation calls a tool, and the row has no tools"
        return Problem(code="no_tools", field="tools", message=message, fix="add the definition of the tools")
    return (ToolPrompt(messages=tuple(turns), tools=tools) if tools else turns, with_calls(last.text, calls))


def _turn(message: Message) -> dict[str, Any]:
    """The turn without the marks of training."""
    kept = ("tool_calls", "tool_call_id", "name")
    more = {name: msgspec.to_builtins(value) for name in kept if (value := getattr(message, name)) is not UNSET}
    return {"role": message.role, "content": message.text} | more


def training_records(training: Data) -> Iterator[Record]:
    """The records of the training split, without those that are mixed in."""
    return training_side(training.train, training)


def training_side(source: Source, training: Data) -> Iterator[Record]:
    """The records of the source that are not held out."""
    faults = Faults()
    split = shares(training)
    for batch in read(source, faults):
        for record in batch.records:
            named = _by_content(record, batch.file)
            if not isinstance(named, Problem) and split.side(canonical(named)) == "train":
                yield named
    faults.raise_errors()


def expected_answers(training: Data) -> Iterator[str]:
    """The expected answers of the training split."""
    for record in training_records(training):
        if not isinstance(found := prompt_and_answer(record), Problem):
            yield found[1].strip()


def group_names(rows: Sequence[TestRow], field: str | None) -> list[str]:
    """The group of each row: the value of a field of its file. Default: the context of a question, or the prompt.

    Raises InputError for rows without the field.
    """
    if field is None:
        return [row.record.context if isinstance(row.record, Question) else row.prompt_text for row in rows]
    found = {file: _json_objects(file) for file in dict.fromkeys(row.file for row in rows)}
    others = dict.fromkeys(row.file for row in rows if row.line not in found[row.file])
    message, fix = "groups need an uncompressed JSONL file", "convert the file, or leave out the group"
    problems = [Problem(code="group_format", file=file, message=message, fix=fix) for file in others]
    message, fix = f"the row has no {field!r}, which names its source", "add it"
    problems += [
        Problem(code="no_group", file=row.file, line=row.line, message=message, fix=fix)
        for row in rows if row.file not in others and field not in found[row.file][row.line]
    ]  # fmt: skip
    if problems:
        raise InputError(problems[:KEPT])
    return [compact(found[row.file][row.line][field]) for row in rows]


def _json_objects(file: str) -> dict[int, dict[str, Any]]:
    """The lines of the file that are JSON objects, by number."""
    found: dict[int, dict[str, Any]] = {}
    with suppress(OSError), open_regular(file) as lines:
        for number, text in enumerate(lines, 1):
            with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                found[number] = msgspec.json.decode(text.removeprefix(BOM_UTF8), type=dict[str, Any])
    return found


def examples_of(training: Data, count: int, seed: int, rows: Sequence[TestRow]) -> list[tuple[Prompt | Input, str]]:
    """``count`` training rows, chosen by content and seed, as examples. Rows of the test are never chosen."""
    tested = {row.prompt_text for row in rows}
    chosen: list[tuple[int, tuple[Prompt | Input, str]]] = []
    for record in training_records(training):
        found = prompt_and_answer(record)
        if isinstance(found, Problem) or text_of(found[0]) in tested:
            continue
        chosen.append((_rank(record, seed), found))
        if len(chosen) > 4 * count + 64:
            chosen = sorted(chosen, key=lambda one: one[0])[:count]
    return [example for _, example in sorted(chosen, key=lambda one: one[0])[:count]]


def with_examples(prompt: Prompt | Input, examples: Sequence[tuple[Prompt | Input, str]]) -> Prompt:
    """The prompt after earlier turns that show the examples. Its system turns stay first."""
    turns = _turns(prompt)
    system = [turn for turn in turns if turn["role"] == "system"]
    shown: list[dict[str, Any]] = []
    for asked, answer in examples:
        shown += [turn for turn in _turns(asked) if turn["role"] != "system"]
        shown.append({"role": "assistant", "content": answer})
    return [*system, *shown, *(turn for turn in turns if turn["role"] != "system")]


def _turns(prompt: Prompt | Input) -> list[dict[str, Any]]:
    return messages_of(text_of(prompt) if isinstance(prompt, Mapping) else prompt)
