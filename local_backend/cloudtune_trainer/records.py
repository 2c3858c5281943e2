"""Canonical records from a JSON Lines file. Standard library only.

``{"messages": [...]}``, ``{"text": ...}``, pairs: ``{"messages": [...], "chosen": [...], "rejected": [...]}``, rated
answers: ``{"messages": [...], "completion": [...], "label": true}``; ``{"tokens": [...], "tags": [...]}``,
``{"question": ..., "context": ..., "answers": {...}}``, ``{"source": ..., "target": ...}``,
``{"anchor": ..., "positive": ..., "negatives": [...]}``, ``{"sentence1": ..., "sentence2": ..., "score": ...}``,
``{"image": ..., "label": ...}`` or ``{"audio": ..., "transcript": ...}``, with the paths of files.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from cloudtune_trainer.problems import TrainingProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

Record = dict[str, Any]
_SIDES = ("chosen", "rejected")
_ANSWERS = (*_SIDES, "completion")
_TEXTS = (
    "text", "question", "context", "source", "target", "anchor", "positive", "sentence1", "sentence2",
    "transcript",
)  # fmt: skip
_MEDIA = ("image", "audio")
"""Keys of files. Their paths are relative to the folder of the records."""
_SHOWN = 10
"""How many errors a message lists before it only counts them."""


class Records:
    """The records of a file. Each iteration reads the file, so that records need not fit into memory."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[Record]:
        with self._path.open("rb") as file:
            for line in file:
                if line.strip():
                    record = json.loads(line)
                    places = {name: str(self._path.parent / record[name]) for name in _MEDIA if name in record}
                    yield {**record, **places} if places else record


def read_records(path: Path) -> Records:
    """The records of the file, after checking all of them.

    Raises `TrainingProblem` ``bad_data`` with the errors and their line numbers.
    """
    count, faults = 0, []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                count += 1
                try:
                    fault = _fault(json.loads(line))
                except (ValueError, RecursionError) as error:
                    fault = str(error)
                if fault:
                    faults.append(f"line {number}: {fault}")
    except FileNotFoundError as error:
        raise TrainingProblem("bad_data", f"{path} does not exist") from error
    if faults:
        more = f" (and {len(faults) - _SHOWN} more)" if len(faults) > _SHOWN else ""
        raise TrainingProblem("bad_data", f"{path.name}: " + "; ".join(faults[:_SHOWN]) + more)
    if not count:
        raise TrainingProblem("bad_data", f"{path.name} has no records")
    return Records(path)


def _fault(record: Any) -> str | None:
    if not isinstance(record, dict):
        return "a record must be an object"
    if isinstance(record.get("text"), str):
        return None if record["text"] else "the text is empty"
    for key, check in _CHECKS.items():
        if key in record:
            return check(record)
    if not record.get("messages"):
        return 'a record requires "text" or a list of "messages"'
    is_pair = "chosen" in record or "rejected" in record
    answers = _SIDES if is_pair else ("completion",) if "completion" in record else ()
    names = ("messages", *answers)
    return next((fault for name in names if (fault := fault_of_turns(name, record.get(name)))), None)


def _fault_of_tags(record: Record) -> str | None:
    tokens, tags = record.get("tokens"), record.get("tags")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        return '"tokens" must be a list of strings'
    if not isinstance(tags, list) or not all(isinstance(tag, str | int) for tag in tags):
        return '"tags" must be a list of strings or numbers'
    if len(tokens) != len(tags):
        return f"{len(tokens)} tokens and {len(tags)} tags"
    return None if tokens else "there are no tokens"


def _fault_of_question(record: Record) -> str | None:
    question, context, answers = (record.get(name) for name in ("question", "context", "answers"))
    if not (isinstance(question, str) and question.strip() and isinstance(context, str) and context.strip()):
        return '"question" and "context" must be texts that are not empty'
    texts, starts = (answers.get(name) if isinstance(answers, dict) else None for name in ("text", "answer_start"))
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        return '"answers" must have "text" and "answer_start", lists of the same length'
    for text, start in zip(texts, starts, strict=True):
        if not isinstance(text, str) or not isinstance(start, int) or not text.strip():
            return "an answer is a text that is not empty, with its position in the context"
        if start < 0 or context[start : start + len(text)] != text:
            return f"the answer {text[:50]!r} is not at character {start} of the context"
    return None


def _fault_of_pair(record: Record) -> str | None:
    sides = [record.get(name) for name in ("source", "target")]
    return None if all(isinstance(side, str) and side for side in sides) else '"source" and "target" must be texts'


def _fault_of_contrast(record: Record) -> str | None:
    texts = [record.get("anchor"), record.get("positive")]
    negatives = record.get("negatives", [])
    if not isinstance(negatives, list) or not all(isinstance(text, str) and text for text in [*texts, *negatives]):
        return '"anchor", "positive" and each of the "negatives" must be texts that are not empty'
    return None


def _fault_of_similarity(record: Record) -> str | None:
    texts, score = [record.get("sentence1"), record.get("sentence2")], record.get("score")
    if not all(isinstance(text, str) and text for text in texts):
        return '"sentence1" and "sentence2" must be texts that are not empty'
    finite = isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score)
    return None if finite else '"score" must be a finite number'


def _fault_of_media(record: Record) -> str | None:
    paths = [record[name] for name in _MEDIA if name in record]
    return None if all(isinstance(path, str) and path for path in paths) else "the path of the file must be a text"


_CHECKS: dict[str, Callable[[Record], str | None]] = {
    "tokens": _fault_of_tags, "question": _fault_of_question, "source": _fault_of_pair, "anchor": _fault_of_contrast,
    "sentence1": _fault_of_similarity, **dict.fromkeys(_MEDIA, _fault_of_media),
}  # fmt: skip
"""The key that tells a kind of records from others -> its check."""


def fault_of_turns(name: str, messages: Any) -> str | None:
    """What is wrong with a list of messages, if anything."""
    if not isinstance(messages, list) or not messages:
        return f'"{name}" must be a non-empty list of messages'
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            return "a message must be an object with a role"
        if message.get("content") is not None and not isinstance(message["content"], str):
            return "a message's content must be a string"
        if message.get("weight", 1) not in (0, 1):
            return "a message's weight must be 0 or 1"
    return None


def texts_of(records: Iterable[Record]) -> list[str]:
    """All texts of the records, for training a tokenizer."""
    found = []
    for record in records:
        if "tokens" in record:
            found.append(" ".join(record["tokens"]))
        elif "messages" not in record:
            found += [record[name] for name in _TEXTS if name in record]
            found += record.get("negatives", [])
        else:
            turns = [turn for name in ("messages", *_ANSWERS) for turn in record.get(name, ())]
            found += [message.get("content") or "" for message in turns]
    return found
