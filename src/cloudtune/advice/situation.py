"""What the advice depends on: the answers to a few questions, from options, a file or a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, ValidationError

from cloudtune.document.document import Document, read_document
from cloudtune.document.validation import problems_of
from cloudtune.errors import InputError
from cloudtune.spec_types import NaturalFloat, Part, as_sequence

if TYPE_CHECKING:
    from collections.abc import Mapping


Change = Literal["style", "task", "knowledge", "language"]
Updates = Literal["never", "yearly", "monthly", "daily"]
Amount = Literal["none", "tens", "hundreds", "thousands", "millions"]

_FEWEST = {"millions": 1_000_000, "thousands": 1_000, "hundreds": 100, "tens": 1}


def _amount(value: Any) -> Any:
    """The word for a number."""
    text = value.replace(",", "").replace("_", "") if isinstance(value, str) else value
    if isinstance(text, str) and text.isdecimal():
        text = int(text)
    if text in get_args(Amount):
        return text
    if isinstance(text, bool) or not isinstance(text, int) or text < 0:
        raise ValueError(f"must be {', '.join(get_args(Amount))}, or a whole number")
    return next((word for word, fewest in _FEWEST.items() if text >= fewest), "none")


Count = Annotated[Amount, BeforeValidator(_amount, json_schema_input_type=Amount | int)]


class Situation(Part):
    """What must change, and what is available for it."""

    change: Annotated[tuple[Change, ...], BeforeValidator(as_sequence), Field(min_length=1)]
    """What a good prompt alone does not reach: the ``style`` or format of answers, how to do a ``task``, the
    ``knowledge`` of a domain, or a ``language`` or notation that no base model knows."""
    updates: Updates
    """How often the information in the answers changes."""
    rows: Count
    """Labeled rows, that is, inputs with their right answers: a word or a number."""
    texts: Count = "none"
    """Texts of the domain without labels: a word or a number."""
    budget_usd: NaturalFloat
    """What may be spent once, on training."""
    cite_sources: bool = False
    """Answers must show the texts that they come from."""
    low_latency: bool = False
    """Answers must be fast or cheap: a small model with a short prompt."""


_EXAMPLES = {"change": "style", "updates": "daily", "rows": "3000", "budget_usd": "500"}
_OPTIONS = {"budget_usd": "budget"}

CHOICES: dict[str, tuple[str, ...]] = {
    "change": get_args(Change), "updates": get_args(Updates), "rows": get_args(Amount), "texts": get_args(Amount),
}  # fmt: skip
"""The words of each field that takes words."""


def situation_from(values: Mapping[str, Any], file: str | Path | None = None) -> Situation:
    """Create a situation from a file's values and others, which replace them.

    Raises:
        InputError: With all problems, each with its line in the file.
    """
    document = Document("", Path(), {}) if file is None else read_document(file, error=InputError, what="a situation")
    merged = {**document.values, **values}

    def place(path: tuple[str | int, ...]) -> tuple[str | None, int | None]:
        is_of_file = bool(document.file) and not (path and path[0] in values)
        return (document.file, document.line(path)) if is_of_file else (None, None)

    examples = {name: f"{name}: {value}, or --{_OPTIONS.get(name, name)} {value}" for name, value in _EXAMPLES.items()}
    try:
        found = Situation.model_validate(merged)
    except ValidationError as error:
        problems = problems_of(error, model=Situation, values=merged, place=place, examples=examples)
        raise InputError([*document.duplicates, *problems]) from error
    if document.duplicates:
        raise InputError(document.duplicates)
    return found
