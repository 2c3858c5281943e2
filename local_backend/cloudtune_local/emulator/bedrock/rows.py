"""Whether the lines of a training file are what the model's family takes, and the same lines as plain conversations.

Formats: https://docs.aws.amazon.com/bedrock/latest/userguide/model-customization-prepare.html; Nova's rules:
https://docs.aws.amazon.com/nova/latest/userguide/fine-tune-prepare-data-understanding.html; prompts with references:
.../rft-prepare-data.html; prompts alone: .../distillation-prepare-datasets.html (all seen 2026-11-21). A fault fails
the job, not the request.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cloudtune_local.emulator.bedrock import bases

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHOWN = 3
_RESERVED = re.compile(r"User:|Bot:|Assistant:|System:|<image>|<video>|\[EOS\]")
"""Words that a system or user text of Nova's must not hold."""
_MEDIA = {"image": ("png", "jpeg", "gif", "webp"), "video": ("mov", "mkv", "mp4", "webm")}


class RowFault(Exception):
    """What is wrong with one line."""


class Task(NamedTuple):
    """What the rows are for."""

    base: str
    kind: str
    """FINE_TUNING and so on."""
    bucket: str
    """Where the file lies: media must lie beside it."""


class Counted(NamedTuple):
    """What a file holds."""

    rows: int
    tokens: int
    """An estimate of six characters a token, as the service's guide has it."""
    fault: str | None
    chats: list[dict[str, Any]]
    """Each row as ``messages``, for engines that train and answer."""


def check(data: bytes, task: Task, where: str, *, is_training: bool = True, beside: int = 0) -> Counted:
    """Look at every line. ``beside``: validation rows, which count with the training rows of some families."""
    chats: list[dict[str, Any]] = []
    faults: list[str] = []
    rows, wrong = 0, 0
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        rows += 1
        try:
            chats.append({"messages": _turns(_object(line), task)})
        except RowFault as fault:
            wrong += 1
            if len(faults) < _SHOWN:
                faults.append(f"line {number}: {fault}")
    said = None
    if wrong:
        more = f" ({wrong} lines are affected)" if wrong > len(faults) else ""
        said = f"Input data at {where} is not valid: {'; '.join(faults)}{more}"
    elif is_training and (limit := _limit(task, rows + (beside if task.base.startswith("meta.") else 0))):
        said = f"Input data at {where} has {rows} records, {limit}"
    return Counted(rows, max(1, len(data) // 6), said, chats)


def _limit(task: Task, rows: int) -> str | None:
    method = bases.METHODS[task.kind]
    least = bases.catalog().limit("rows.min", task.base, method)
    most = bases.catalog().limit("rows.max", task.base, method)
    if least is not None and rows < least.value:
        return f"but must have at least {least.value:g}"
    if most is not None and rows > most.value:
        return f"but may have at most {most.value:g}"
    return None


def _object(line: bytes) -> dict[str, Any]:
    try:
        row = msgspec.json.decode(line.removeprefix(b"\xef\xbb\xbf"))
    except msgspec.DecodeError as error:
        raise RowFault("not a JSON object") from error
    if not isinstance(row, dict):
        raise RowFault("not a JSON object")
    return row


def _turns(row: dict[str, Any], task: Task) -> list[dict[str, Any]]:
    if task.kind == "REINFORCEMENT_FINE_TUNING":
        return _prompted(row)
    if task.kind == "CONTINUED_PRE_TRAINING":
        if not isinstance(row.get("input"), str):
            raise RowFault("must follow '{\"input\": ...}' format")
        return [{"role": "user", "content": ""}, {"role": "assistant", "content": row["input"]}]
    is_prompt_only = task.kind == "DISTILLATION"
    form = bases.row_format(task.base)
    if form == "prompt":
        return _pair(row, is_prompt_only=is_prompt_only)
    return list(_spoken(row, task, form, is_prompt_only=is_prompt_only))


def _prompted(row: dict[str, Any]) -> list[dict[str, Any]]:
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RowFault("'messages' is missing or empty")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise RowFault("every message needs a role and a text as its content")
    if messages[-1].get("role") != "user":
        raise RowFault("the last message must be the user's")
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def _pair(row: dict[str, Any], *, is_prompt_only: bool) -> list[dict[str, Any]]:
    names = ("prompt",) if is_prompt_only else ("prompt", "completion")
    if any(not isinstance(row.get(name), str) or not row[name] for name in names):
        raise RowFault('must follow \'{"prompt": ..., "completion": ...}\' format')
    said = [{"role": "user", "content": row["prompt"]}]
    return said if is_prompt_only else [*said, {"role": "assistant", "content": row["completion"]}]


def _spoken(row: dict[str, Any], task: Task, form: str, *, is_prompt_only: bool) -> Iterator[dict[str, Any]]:
    system = row.get("system")
    if form == "converse":
        if "schemaVersion" not in row:
            raise RowFault("'schemaVersion' is missing")
        if system is not None and (not isinstance(system, list) or any("text" not in part for part in system)):
            raise RowFault("'system' must be a list of texts")
        system = "".join(part["text"] for part in system or ())
    if system:
        _check_words(system, task)
        yield {"role": "system", "content": system}
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RowFault("'messages' is missing or empty")
    for index, message in enumerate(messages):
        wanted = ("user", "assistant")[index % 2]
        if not isinstance(message, dict) or message.get("role") != wanted:
            raise RowFault(f"messages[{index}] must have the role {wanted}: roles alternate, the user begins")
        text = _content(message.get("content"), task, f"messages[{index}].content", form)
        if wanted == "user":
            _check_words(text, task)
        yield {"role": wanted, "content": text}
    if not is_prompt_only and messages[-1]["role"] != "assistant":
        raise RowFault("the last message must be the assistant's")


def _check_words(text: str, task: Task) -> None:
    if task.base.startswith("amazon.nova") and (found := _RESERVED.search(text)):
        raise RowFault(f"the text {found[0]!r} must not stand in a system or user text")


def _content(content: Any, task: Task, where: str, form: str) -> str:
    if form == "claude" and isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise RowFault(f"{where} must be a list of parts")
    words = []
    for part in content:
        media = next((kind for kind in _MEDIA if isinstance(part, dict) and kind in part), None)
        if media is not None:
            _check_media(part[media], media, task, where)
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            words.append(part["text"])
        else:
            raise RowFault(f"{where} must hold texts, images or videos")
    return "".join(words)


def _check_media(media: Any, kind: str, task: Task, where: str) -> None:
    model = bases.known(task.base)
    if model is None or kind not in model.inputs:
        raise RowFault(f"{where}: {task.base} takes no {kind}")
    place = ((media or {}).get("source") or {}).get("s3Location") or {}
    if media.get("format") not in _MEDIA[kind] or not str(place.get("uri", "")).startswith("s3://"):
        raise RowFault(f"{where}: a {kind} needs a format of {', '.join(_MEDIA[kind])} and source.s3Location.uri")
    if not place["uri"].startswith(f"s3://{task.bucket}/"):
        raise RowFault(f"{where}: the {kind} must lie in the data's own bucket, {task.bucket}")
