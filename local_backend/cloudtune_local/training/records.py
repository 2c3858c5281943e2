"""Canonical records from a JSON Lines file: ``{"messages": [...]}`` or ``{"text": ...}``. Standard library only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cloudtune_local.training.problems import TrainingProblem

if TYPE_CHECKING:
    from pathlib import Path

Record = dict[str, Any]
_SHOWN = 10
"""How many faults a message lists before it only counts them."""


def read_records(path: Path) -> list[Record]:
    """All records of the file. Raises `TrainingProblem` ``bad_data`` with the faults and their line numbers."""
    records, faults = [], []
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise TrainingProblem("bad_data", f"{path} does not exist") from error
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            faults.append(f"line {number}: {error}")
            continue
        fault = _fault(record)
        if fault:
            faults.append(f"line {number}: {fault}")
        records.append(record)
    if faults:
        more = f" (and {len(faults) - _SHOWN} more)" if len(faults) > _SHOWN else ""
        raise TrainingProblem("bad_data", f"{path.name}: " + "; ".join(faults[:_SHOWN]) + more)
    if not records:
        raise TrainingProblem("bad_data", f"{path.name} holds no record")
    return records


def _fault(record: Any) -> str | None:
    if not isinstance(record, dict):
        return "a record is an object"
    if isinstance(record.get("text"), str):
        return None if record["text"] else "the text is empty"
    messages = record.get("messages")
    if not isinstance(messages, list) or not messages:
        return 'a record has "text" or a list of "messages"'
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            return "a message is an object with a role"
        if message.get("content") is not None and not isinstance(message["content"], str):
            return "a message's content is text"
        if message.get("weight", 1) not in (0, 1):
            return "a message's weight is 0 or 1"
    return None


def texts_of(records: list[Record]) -> list[str]:
    """All words of the records, for training a tokenizer on."""
    found = []
    for record in records:
        if "text" in record:
            found.append(record["text"])
        else:
            found += [message.get("content") or "" for message in record["messages"]]
    return found
