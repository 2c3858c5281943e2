"""Whether the lines of a training file are what the method needs: the vendor's first phase, ``validating_files``.

Formats: chat with optional 0/1 weights, preference pairs, prompts with references
(https://developers.openai.com/api/docs/guides/supervised-fine-tuning, .../direct-preference-optimization, and the
published OpenAPI schemas FineTuneChatRequestInput, FineTunePreferenceRequestInput, FineTuneReinforcementRequestInput;
seen 2026-11-21). A fault fails the job, not the request: ``error`` has code, message with the line, and param.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEAST_ROWS = 10
"""Ten examples at the least (https://developers.openai.com/api/docs/guides/supervised-fine-tuning, seen 2026-11-21)."""
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_SHOWN = 3
_SPECIAL = re.compile(r"<\|(?:endoftext|endofprompt|fim_prefix|fim_middle|fim_suffix)\|>")
"""Tokens with a meaning of their own may not stand in a text (johny-b/llmcomp #59, seen 2026-11-21)."""


class RowFault(Exception):
    """What is wrong with one line."""


class Counted(NamedTuple):
    """What a file holds."""

    rows: int
    tokens: int
    """An estimate, four characters a token: the vendor's tokenizer is not at hand."""
    error: dict[str, Any] | None


def check(path: Path, method: str, param: str) -> Counted:
    """Look at every line. ``param`` is ``training_file`` or ``validation_file``."""
    rows, letters, wrong = 0, 0, 0
    faults: list[str] = []
    for number, line in _lines(path):
        rows += 1
        letters += len(line)
        try:
            _CHECKS[method](_object(line))
        except RowFault as fault:
            wrong += 1
            if len(faults) < _SHOWN:
                faults.append(f"Line {number}: {fault}")
    error = None
    kind = param.replace("_", " ")
    if wrong:
        message = f"The job failed due to an invalid {kind}. {' '.join(faults)}"
        if wrong > len(faults):
            message += f" ({wrong} lines are affected.)"
        error = {"code": f"invalid_{param}", "message": message, "param": param}
    elif param == "training_file" and rows < LEAST_ROWS:
        message = f"{kind.capitalize()} has {rows} example(s), but must have at least {LEAST_ROWS} examples"
        error = {"code": "invalid_n_examples", "message": message, "param": param}
    return Counted(rows, max(1, letters // 4), error)


def objects(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file that was found good."""
    for _, line in _lines(path):
        yield _object(line)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            # Azure's guide asks for UTF-8 with a byte order mark (learn.microsoft.com, fine-tuning, seen 2026-11-21).
            clean = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
            if clean:
                yield number, clean


def _object(line: bytes) -> dict[str, Any]:
    try:
        row = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        start = line[:20].decode("utf-8", "replace")
        raise RowFault(f"not valid JSON: every line must be a JSON dictionary (it starts with {start!r}).") from error
    if not isinstance(row, dict):
        raise RowFault("every line must be a JSON dictionary.")
    return row


def _supervised(row: dict[str, Any]) -> None:
    messages = _messages(row.get("messages"), "messages")
    if not any(message["role"] == "assistant" for message in messages):
        raise RowFault("there must be at least one message from the assistant.")
    for message in messages:
        weight = message.get("weight")
        if weight is not None and (message["role"] != "assistant" or weight not in (0, 1) or weight is True):
            raise RowFault("'weight' must be 0 or 1, and only on messages from the assistant.")


def _preference(row: dict[str, Any]) -> None:
    asked = row.get("input")
    if not isinstance(asked, dict):
        raise RowFault("'input' with 'messages' is missing.")
    _messages(asked.get("messages"), "input.messages")
    for side in ("preferred_output", "non_preferred_output"):
        if any(message["role"] not in ("assistant", "tool") for message in _messages(row.get(side), side)):
            raise RowFault(f"'{side}' may hold messages of the assistant and of tools only.")


def _reinforcement(row: dict[str, Any]) -> None:
    if _messages(row.get("messages"), "messages")[-1]["role"] not in ("user", "developer"):
        raise RowFault("the last message must be from the user.")


def _messages(value: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise RowFault(f"'{where}' is missing or empty: it must be a list of messages.")
    for index, message in enumerate(value):
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise RowFault(f"{where}[{index}] has no valid 'role'.")
        content = message.get("content")
        is_call = message["role"] == "assistant" and (message.get("tool_calls") or message.get("function_call"))
        if not isinstance(content, str | list) and not is_call:
            raise RowFault(f"{where}[{index}] has no 'content'.")
        if isinstance(content, str) and (found := _SPECIAL.search(content)):
            raise RowFault(f"{where}[{index}] contains an invalid token: {found.group()}.")
    return value


_CHECKS = {"supervised": _supervised, "dpo": _preference, "reinforcement": _reinforcement}
