"""Validation of a training file for the method: the vendor's first phase, ``validating_files``.

Formats: chat with optional 0/1 weights, preference pairs, prompts with references
(https://developers.openai.com/api/docs/guides/supervised-fine-tuning, .../direct-preference-optimization, and the
published OpenAPI schemas FineTuneChatRequestInput, FineTunePreferenceRequestInput, FineTuneReinforcementRequestInput;
seen 2026-11-21). A fault fails the job, not the request: ``error`` has code, message with the line, and param.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cloudtune_emulator.openai.training_rows import RowFault, check_calls, check_images, check_tools, messages_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloudtune_emulator.openai.token_counts import TrainingTokens

LEAST_ROWS = 10
"""At least ten examples (https://developers.openai.com/api/docs/guides/supervised-fine-tuning, seen 2026-11-21)."""
_SHOWN = 3


class Counted(NamedTuple):
    """The rows of a file."""

    rows: int
    error: dict[str, Any] | None


def check(
    path: Path, method: str, param: str, *, takes_images: bool = True, tokens: TrainingTokens | None = None
) -> Counted:  # fmt: skip
    """Check every line.

    Args:
        path: The file.
        method: ``supervised``, ``dpo`` or ``reinforcement``.
        param: ``training_file`` or ``validation_file``.
        takes_images: Whether the base model is tuned on images.
        tokens: Counts the tokens of the rows.
    """
    rows, wrong = 0, 0
    faults: list[str] = []
    for number, line in _lines(path):
        rows += 1
        try:
            row = _object(line)
            _CHECKS[method](row, takes_images)
        except RowFault as fault:
            wrong += 1
            if len(faults) < _SHOWN:
                faults.append(f"Line {number}: {fault}")
            continue
        if tokens is not None:
            tokens.add(row, len(line))
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
    return Counted(rows, error)


def objects(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a valid file."""
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


def _supervised(row: dict[str, Any], takes_images: bool) -> None:
    messages = _conversation(row, takes_images)
    if not any(message["role"] == "assistant" for message in messages):
        raise RowFault("there must be at least one message from the assistant.")
    for message in messages:
        weight = message.get("weight")
        if weight is not None and (message["role"] != "assistant" or weight not in (0, 1) or weight is True):
            raise RowFault("'weight' must be 0 or 1, and only on messages from the assistant.")


def _preference(row: dict[str, Any], takes_images: bool) -> None:
    prompt = row.get("input")
    if not isinstance(prompt, dict):
        raise RowFault("'input' with 'messages' is missing.")
    check_tools(prompt.get("tools"))
    messages = messages_of(prompt.get("messages"), "input.messages")
    for side in ("preferred_output", "non_preferred_output"):
        answer = messages_of(row.get(side), side)
        if any(message["role"] not in ("assistant", "tool") for message in answer):
            raise RowFault(f"'{side}' may hold messages of the assistant and of tools only.")
        check_calls([*messages, *answer])
        check_images([*messages, *answer], allowed=False)


def _reinforcement(row: dict[str, Any], takes_images: bool) -> None:
    if _conversation(row, takes_images=False)[-1]["role"] != "user":
        raise RowFault("the last message must be from the user.")


def _conversation(row: dict[str, Any], takes_images: bool) -> list[dict[str, Any]]:
    messages = messages_of(row.get("messages"), "messages")
    check_tools(row.get("tools"))
    check_calls(messages)
    check_images(messages, allowed=takes_images)
    return messages


_CHECKS = {"supervised": _supervised, "dpo": _preference, "reinforcement": _reinforcement}
