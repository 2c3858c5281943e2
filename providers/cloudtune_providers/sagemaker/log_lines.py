"""What the trainer says in a container's log, and how the service and we read it. Pure.

The trainer prints JSON behind ``[cloudtune]``; the job's metric definitions pick the newest figures out of it, so that
DescribeTrainingJob shows them without the log being read.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import msgspec

from cloudtune.preference import PAIRED
from cloudtune.state import Event, Metric
from cloudtune_providers.aws.training_log import Figures

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PREFIX = "[cloudtune] "
_NUMBER = r"([-+0-9.eE]+)"
_OF_PAIRS = ("loss", "accuracy", "margin", "rewards/chosen", "rewards/rejected", "preferred")
_OF_TOKENS = ("loss", "perplexity", "token_accuracy")
_OF_STEPS = ("learning_rate", "grad_norm", "tokens_per_s", "memory_mb")
_PROGRESS = ("step", "total_steps", "epoch")
LIMITED = "progress:stopped_by_limit"
_LEVELS = ("debug", "info", "warning", "error")
Split = Literal["train", "validation", "test"]


def metric_definitions(method: str) -> list[dict[str, str]]:
    """For CreateTrainingJob, which takes 40 of them."""
    figures = _OF_PAIRS if method in PAIRED else _OF_TOKENS
    shown = {"train": (*figures, *_OF_STEPS), "validation": figures, "test": figures}
    found = [
        {"Name": f"{split}:{name}", "Regex": rf'\[cloudtune\] metrics .*"{split}:{name}": {_NUMBER}'}
        for split, names in shown.items()
        for name in names
    ]
    found += [
        {"Name": f"progress:{name}", "Regex": rf'\[cloudtune\] metrics .*"{name}": {_NUMBER}'} for name in _PROGRESS
    ]
    return [*found, {"Name": LIMITED, "Regex": rf'\[cloudtune\] end .*"stopped_by_limit": {_NUMBER}'}]


def parsed(line: str) -> tuple[str, dict[str, Any]] | None:
    """Kind and document of a line of the trainer's, or None for any other."""
    if not line.startswith(PREFIX):
        return None
    kind, _, text = line.removeprefix(PREFIX).partition(" ")
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return (kind, document) if isinstance(document, dict) else None


def read_figures(line: str) -> Figures | None:
    """The figures of one line; a `LineReader`."""
    said = parsed(line)
    if said is None or said[0] != "metrics":
        return None
    document = said[1]
    values: dict[str, float] = {}
    split = "train"
    for name, value in document.items():
        side, colon, figure = name.partition(":")
        if colon and side in get_args(Split) and isinstance(value, int | float):
            split, values[figure] = side, float(value)
    step = document.get("step")
    if not values or not isinstance(step, int):
        return None
    return Figures(values=values, step=step, split=cast("Split", split), epoch=document.get("epoch"))


def to_events(found: Iterable[Event]) -> list[Event]:
    """Lines of the log as what they say: the trainer's own events, other programs' words, and no bare figures."""
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


def to_metrics(lines: Iterable[tuple[str, str]]) -> list[Metric]:
    """Figures of lines with their cursors."""
    found = []
    for cursor, line in lines:
        told = read_figures(line)
        said = parsed(line)
        if told is None or said is None:
            continue
        found.append(
            Metric(cursor=cursor, step=told.step or 0, values=told.values, split=told.split, epoch=told.epoch,
                   time=_time(said[1].get("time")))
        )  # fmt: skip
    return found


def _time(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
