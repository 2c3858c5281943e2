"""Canonical records from a JSON Lines file. Standard library only.

``{"messages": [...]}``, ``{"text": ...}``, pairs: ``{"messages": [...], "chosen": [...], "rejected": [...]}``, or
rated answers: ``{"messages": [...], "completion": [...], "label": true}``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cloudtune_trainer.problems import TrainingProblem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

Record = dict[str, Any]
_SIDES = ("chosen", "rejected")
_ANSWERS = (*_SIDES, "completion")
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
                    yield json.loads(line)


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
    if not record.get("messages"):
        return 'a record requires "text" or a list of "messages"'
    is_pair = "chosen" in record or "rejected" in record
    answers = _SIDES if is_pair else ("completion",) if "completion" in record else ()
    names = ("messages", *answers)
    return next((fault for name in names if (fault := _fault_of_turns(name, record.get(name)))), None)


def _fault_of_turns(name: str, messages: Any) -> str | None:
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
        if "text" in record:
            found.append(record["text"])
        else:
            turns = [turn for name in ("messages", *_ANSWERS) for turn in record.get(name, ())]
            found += [message.get("content") or "" for message in turns]
    return found
