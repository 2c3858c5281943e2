"""Validation of a training file for the model's family, and its lines as plain conversations.

Formats: https://docs.aws.amazon.com/bedrock/latest/userguide/model-customization-prepare.html; Nova's rules:
https://docs.aws.amazon.com/nova/latest/userguide/fine-tune-prepare-data-understanding.html; prompts with references:
.../rft-prepare-data.html; prompts, with and without answers: .../distillation-data-prep-option-1.html, and
https://docs.aws.amazon.com/nova/latest/userguide/custom-distill-prepare.html (all seen 2026-11-21). A fault fails the
job, not the request.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cloudtune_emulator.bedrock import base_models
from cloudtune_emulator.engines import text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHOWN = 3
_RESERVED = re.compile(r"user:|bot:|assistant:|system:|thought:|<image>|<video>|<unk>|\[eos\]", re.IGNORECASE)
"""Strings that no text for Nova may contain: AWS's published validator compares them without case in every text
(github.com/aws-samples/amazon-nova-samples, nova_ft_dataset_validator.py, seen 2026-11-29)."""
_KEY = re.compile(r"s3://[\w./-]+")
"""Addresses of media, by the same validator."""
_MEDIA = {"image": ("png", "jpeg", "gif", "webp"), "video": ("mov", "mkv", "mp4", "webm")}
_MEDIA_NOVA_2 = {"image": ("png", "jpeg", "gif"), "video": ("mov", "mkv", "mp4")}
"""https://docs.aws.amazon.com/bedrock/latest/userguide/nova-2-sft-data-prep.html, seen 2026-11-29."""


class RowFault(Exception):
    """The error of one line."""


class Task(NamedTuple):
    """How the rows are used."""

    base: str
    kind: str
    """The customization type: FINE_TUNING and so on."""
    bucket: str
    """The file's location: media must be below the same prefix."""


class Counted(NamedTuple):
    """The rows of a file."""

    rows: int
    tokens: int
    """An estimate of six characters per token, as in the service's guide."""
    fault: str | None
    chats: list[dict[str, Any]]
    """Each row as ``messages``, for engines that train and answer."""


def check(data: bytes, task: Task, where: str, *, is_training: bool = True, beside: int = 0) -> Counted:
    """Check every line. ``beside``: validation rows, which some families count with the training rows."""
    chats: list[dict[str, Any]] = []
    faults: list[str] = []
    media: set[str] = set()
    rows, wrong = 0, 0
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        rows += 1
        try:
            turns = _turns(_object(line), task)
            media = _joined(media, _media_of(turns))
            chats.append({"messages": turns})
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
    method = base_models.METHODS[task.kind]
    least = base_models.catalog().limit("rows.min", task.base, method)
    most = base_models.catalog().limit("rows.max", task.base, method)
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
        return _prompted(row, task)
    if task.kind == "CONTINUED_PRE_TRAINING":
        if not isinstance(row.get("input"), str):
            raise RowFault("must follow '{\"input\": ...}' format")
        return [{"role": "user", "content": ""}, {"role": "assistant", "content": row["input"]}]
    is_prompt_only = task.kind == "DISTILLATION"
    form = "converse" if is_prompt_only else base_models.row_format(task.base)
    if form == "prompt":
        return _pair(row)
    turns = list(_spoken(row, task, form, is_prompt_only=is_prompt_only))
    if (
        is_prompt_only
        and not task.base.startswith("amazon.nova")
        and len([t for t in turns if t["role"] == "user"]) > 1
    ):
        raise RowFault("only one question is taken, not a conversation")
    _check_media(turns, task)
    return turns


def _prompted(row: dict[str, Any], task: Task) -> list[dict[str, Any]]:
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RowFault("'messages' is missing or empty")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise RowFault("every message needs a role and a text as its content")
        _check_words(message["content"], task)
    if messages[-1].get("role") != "user":
        raise RowFault("the last message must be the user's")
    if task.base.startswith("amazon.nova") and row.get("reference_answer") in ("", {}):
        raise RowFault("'reference_answer' is empty")
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def _pair(row: dict[str, Any]) -> list[dict[str, Any]]:
    if any(not isinstance(row.get(name), str) or not row[name] for name in ("prompt", "completion")):
        raise RowFault('must follow \'{"prompt": ..., "completion": ...}\' format')
    return [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]


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
        content = _content(message.get("content"), task, f"messages[{index}].content", form)
        if wanted == "user" or not is_prompt_only:
            _check_words(text_of({"content": content}), task)
        if wanted == "assistant" and not isinstance(content, str):
            raise RowFault(f"messages[{index}].content: only the user's turns may hold images and videos")
        yield {"role": wanted, "content": content}
    if not is_prompt_only and messages[-1]["role"] != "assistant":
        raise RowFault("the last message must be the assistant's")


def _check_words(text: str, task: Task) -> None:
    if task.base.startswith("amazon.nova") and (found := _RESERVED.search(text)):
        raise RowFault(f"the text contains {found[0]!r}, which is reserved")


def _content(content: Any, task: Task, where: str, form: str) -> str | list[dict[str, Any]]:
    """The text; with images or videos, a list of parts as in chats."""
    if form == "claude" and isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise RowFault(f"{where} must be a list of parts")
    parts: list[dict[str, Any]] = []
    for part in content:
        kind = next((kind for kind in _MEDIA if isinstance(part, dict) and kind in part), None)
        if kind is not None:
            parts.append({"type": f"{kind}_url", f"{kind}_url": {"url": _place(part[kind], kind, task, where)}})
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            parts.append({"type": "text", "text": part["text"]})
        elif isinstance(part, dict) and "reasoningContent" in part:
            _check_reasoning(part["reasoningContent"], task, where)
        else:
            raise RowFault(f"{where} must hold texts, images or videos")
    plain = all(part["type"] == "text" for part in parts)
    return "".join(part["text"] for part in parts) if plain else parts


def _check_reasoning(value: Any, task: Task, where: str) -> None:
    """Nova 2 also learns the reasoning; the conversations here do not include it."""
    reasoning = value.get("reasoningText") if isinstance(value, dict) else None
    if not task.base.startswith("amazon.nova-2"):
        raise RowFault(f"{where}: {task.base} takes no reasoning")
    if not isinstance(reasoning, dict) or not isinstance(reasoning.get("text"), str) or not reasoning["text"]:
        raise RowFault(f"{where} must hold reasoningContent.reasoningText.text")
    _check_words(reasoning["text"], task)


def _media_of(turns: list[dict[str, Any]]) -> set[str]:
    """The media in the content: ``image`` and ``video``."""
    return {kind for kind in _MEDIA if _count(turns, kind)}


def _joined(media: set[str], more: set[str]) -> set[str]:
    if len(media | more) > 1:
        raise RowFault("images and videos may not be mixed in one dataset")
    return media | more


def _count(turns: list[dict[str, Any]], kind: str) -> int:
    lists = [turn["content"] for turn in turns if isinstance(turn["content"], list)]
    return sum(part["type"] == f"{kind}_url" for parts in lists for part in parts)


def _check_media(turns: list[dict[str, Any]], task: Task) -> None:
    """Check the number of images and videos in a row, and where they may occur."""
    media = _media_of(turns)
    if media and task.kind == "DISTILLATION":
        raise RowFault("distillation is of text alone")
    for kind in sorted(media):
        most = base_models.catalog().limit(f"row.{kind}s.max", task.base)
        if most is not None and _count(turns, kind) > most.value:
            raise RowFault(f"a record may have at most {most.value:g} {kind}(s)")


def _place(media: Any, kind: str, task: Task, where: str) -> str:
    """Check the location of an image or a video."""
    model = base_models.known(task.base)
    if model is None or kind not in model.inputs:
        raise RowFault(f"{where}: {task.base} takes no {kind}")
    if not isinstance(media, dict):
        raise RowFault(f"{where}: the {kind} must be an object")
    source = media.get("source")
    place = source.get("s3Location") if isinstance(source, dict) else None
    if not isinstance(place, dict):
        place = {}
    formats = (_MEDIA_NOVA_2 if task.base.startswith("amazon.nova-2") else _MEDIA)[kind]
    uri = str(place.get("uri", ""))
    if media.get("format") not in formats or not uri.startswith("s3://"):
        raise RowFault(f"{where}: a {kind} needs a format of {', '.join(formats)} and source.s3Location.uri")
    if task.base.startswith("amazon.nova") and not _KEY.fullmatch(uri):
        raise RowFault(f"{where}: the address may hold only letters, digits, underscores, hyphens, slashes and dots")
    if not str(place["uri"]).startswith(f"s3://{task.bucket}/"):
        raise RowFault(f"{where}: the {kind} must lie in the data's own bucket, {task.bucket}")
    return str(place["uri"])
