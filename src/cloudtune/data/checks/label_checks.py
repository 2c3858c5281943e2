"""The labels that training methods learn: those of texts and images, tags, and ratings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cloudtune.data.records import Labelled, Picture, Rated, Tagged
from cloudtune.errors import Problem

if TYPE_CHECKING:
    from cloudtune.data.records import Record
    from cloudtune.methods import LabelProblem


def label_fault(record: Record, problem: LabelProblem | None) -> Problem | None:
    """Why the label of a text does not fit the problem that the spec names, if it does not."""
    if problem is None or not isinstance(record, Labelled):
        return None
    label = record.label
    if problem == "single_label" and isinstance(label, float | list):
        other = "regression" if isinstance(label, float) else "multi_label"
        what = f"the label {label} is no class: a class is a text or a whole number"
        return _fault(what, f"use method: {{name: classification, problem: {other}}}, or one class for each row")
    if problem == "multi_label" and not isinstance(label, list):
        return _fault(f"the label {label!r} is no list of classes", "write a list, or use problem: single_label")
    if problem == "multi_label" and isinstance(label, list) and any(not str(one).strip() for one in label):
        return _fault("a class in the list is empty", "remove it")
    if problem == "multi_label" and isinstance(label, list) and len(set(map(str, label))) < len(label):
        return _fault(f"the label {label} lists a class twice", "list the name of each class of the row once")
    if problem == "regression" and _number(label) is None:
        return _fault(f"the label {label!r} is no number", "correct it, or use problem: single_label")
    return None


def labels_of(record: Record, problem: LabelProblem | None) -> list[str]:
    """The labels that a method learns from the record, as text."""
    if isinstance(record, Tagged):
        return [str(tag) for tag in record.tags]
    if isinstance(record, Labelled) and isinstance(record.label, list):
        return [str(one) for one in record.label]
    if isinstance(record, Labelled) and problem == "regression":
        return [repr(_number(record.label))]
    if isinstance(record, Rated):
        return [str(record.label).lower()]
    return [str(record.label)] if isinstance(record, Labelled | Picture) else []


def _number(label: object) -> float | None:
    try:
        number = float(label) if isinstance(label, str | int | float) else math.nan
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _fault(message: str, fix: str) -> Problem:
    return Problem(code="label", field="label", message=message, fix=fix)
