"""The rows of a job's channels in S3: the channels' roles, and their questions and answers."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from cloudtune_emulator.aws import buckets
from cloudtune_emulator.engines import text_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cloudtune_emulator.context import EmulatorContext

_ROLES = {"training": "train", "train": "train", "validation": "validation", "val": "validation", "test": "test"}
_PAIRS = (("prompt", "completion"), ("instruction", "response"), ("question", "answer"), ("prompt", "chosen"))


def channels(job: Mapping[str, Any]) -> dict[str, str]:
    """``train`` and ``validation`` -> the location of their rows; other channels by their own names."""
    found = {}
    for channel in job["request"].get("InputDataConfig") or ():
        uri = source(channel)
        if uri is not None:
            found[_ROLES.get(channel["ChannelName"].lower(), channel["ChannelName"])] = uri
    return found


def source(channel: Mapping[str, Any]) -> str | None:
    """The S3 URI of a channel, if it has one."""
    given = (channel.get("DataSource") or {}).get("S3DataSource") or {}
    return given.get("S3Uri")


def objects(context: EmulatorContext, uri: str) -> Iterator[dict[str, Any]]:
    """Every JSON row under a prefix; other lines are skipped."""
    place = buckets.parse(uri)
    for key, _ in buckets.keys(context, place):
        if not key.endswith((".jsonl", ".json")) or key.endswith("template.json"):
            continue
        for line in buckets.get(context, buckets.Place(place.bucket, key)).decode("utf-8-sig", "replace").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(row, dict):
                yield row


def count(context: EmulatorContext, uri: str) -> int:
    """The number of rows; at least one."""
    place = buckets.parse(uri)
    found = 0
    for key, _ in buckets.keys(context, place):
        if not key.endswith("template.json"):
            data = buckets.get(context, buckets.Place(place.bucket, key))
            found += sum(1 for line in data.splitlines() if line.strip())
    return max(1, found)


def pairs(context: EmulatorContext, uri: str) -> list[tuple[str, str]]:
    """Questions and answers, in any layout."""
    return [pair for row in objects(context, uri) for pair in _pairs(row)]


def _pairs(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    turns = row.get("messages") or row.get("dialog") or []
    for before, after in pairwise(turns):
        if before.get("role") == "user" and after.get("role") == "assistant":
            yield text_of(before), text_of(after)
    for question, said in _PAIRS:
        if isinstance(row.get(question), str) and isinstance(row.get(said), str):
            yield row[question], row[said]


def template(context: EmulatorContext, uri: str) -> dict[str, str] | None:
    """``template.json`` beside the rows, if there is one."""
    place = buckets.parse(uri)
    try:
        return dict(json.loads(buckets.get(context, place.under("template.json"))))
    except (buckets.NoSuch, ValueError):
        return None


def canonical(row: Mapping[str, Any], by: Mapping[str, str] | None) -> dict[str, Any]:
    """A row in cloudtune's format: dialogs as messages, templates filled, the rest unchanged."""
    if "dialog" in row:
        return {"messages": row["dialog"]}
    if by is not None and "prompt" in by and "completion" in by:
        return {"prompt": _filled(by["prompt"], row), "completion": _filled(by["completion"], row)}
    return dict(row)


def _filled(text: str, row: Mapping[str, Any]) -> str:
    for name, value in row.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def last_words(messages: Sequence[Mapping[str, Any]]) -> str:
    """The last user message."""
    return text_of(next((one for one in reversed(messages) if one.get("role") == "user"), {}))
