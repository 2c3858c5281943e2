"""Lines that the trainer writes into a container's log: JSON documents behind ``[cloudtune]``. Pure."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, get_args

import msgspec

from cloudtune.methods import METHODS
from cloudtune.state import Event, Metric, reported_number, reported_step

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cloudtune.methods import TaskName

PREFIX = "[cloudtune] "
PROGRESS = ("step", "total_steps", "epoch")
_OF_PAIRS = ("loss", "accuracy", "margin", "rewards/chosen", "rewards/rejected")
_OF_TASK: dict[TaskName, tuple[str, ...]] = {
    "causal_lm": ("loss", "perplexity", "token_accuracy"),
    "preference": (*_OF_PAIRS, "preferred"),
    "unpaired_preference": (*_OF_PAIRS, "kl"),
    "reward_model": _OF_PAIRS,
    "sequence_classification": ("loss", "accuracy", "macro_f1"),
}
_OF_STEPS = ("learning_rate", "grad_norm", "tokens_per_s", "memory_mb")
_LEVELS = ("debug", "info", "warning", "error")
Split = Literal["train", "validation", "test"]


class Measured(NamedTuple):
    """The metrics of one line."""

    values: dict[str, float]
    step: int
    split: Split
    epoch: float | None
    time: datetime | None


def metric_names(method: str) -> dict[Split, tuple[str, ...]]:
    """The metrics that the trainer reports for each split with that method."""
    names = _OF_TASK.get(METHODS[method].task, ("loss",))
    return {"train": (*names, *_OF_STEPS), "validation": names, "test": names}


def parsed(line: str) -> tuple[str, dict[str, Any]] | None:
    """The kind and the document of a line that the trainer wrote, or None for any other line."""
    if not line.startswith(PREFIX):
        return None
    kind, _, text = line.removeprefix(PREFIX).partition(" ")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return (kind, document) if isinstance(document, dict) else None


def read_metrics(line: str) -> Measured | None:
    """The metrics of a line, or None if it has none."""
    found = parsed(line)
    if found is None or found[0] != "metrics":
        return None
    document = found[1]
    values: dict[str, float] = {}
    split: Split = "train"
    for name, value in document.items():
        side, colon, metric = name.partition(":")
        if colon and side in get_args(Split) and (number := reported_number(value)) is not None:
            split, values[metric] = cast("Split", side), number
    step = reported_step(document.get("step"))
    if not values or step is None:
        return None
    return Measured(values, step, split, reported_number(document.get("epoch")), _time(document.get("time")))


def to_metrics(lines: Iterable[tuple[str, str]]) -> list[Metric]:
    """The metrics of log lines. Each line comes with its cursor."""
    return [
        Metric(cursor=cursor, **found._asdict()) for cursor, line in lines if (found := read_metrics(line)) is not None
    ]


def to_events(found: Iterable[Event]) -> list[Event]:
    """Replace each log line of the trainer with the event that it reports; lines with metrics are omitted.

    Lines of other programs stay, with level ``debug``.
    """
    events = []
    for event in found:
        said = parsed(event.message) if event.type == "log" else None
        if said is None:
            is_log = event.type == "log"
            events.append(msgspec.structs.replace(event, level="debug") if is_log else event)
        elif said[0] == "event":
            events.append(_event(event, said[1]))
    return events


def _event(line: Event, document: Mapping[str, Any]) -> Event:
    return Event(
        cursor=line.cursor,
        time=_time(document.get("time")) or line.time,
        message=str(document.get("message", "")),
        type=str(document.get("type", "message")),
        level=document["level"] if document.get("level") in _LEVELS else "info",
        data=document.get("data") or {},
    )


def _time(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
