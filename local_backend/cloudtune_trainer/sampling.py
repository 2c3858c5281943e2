"""Ranges of the settings of an answer. Standard library only.

The library checks the same ranges before it calls any back end (``cloudtune.optional``); an endpoint has only these.
"""

from __future__ import annotations

from typing import Any

from cloudtune_trainer.problems import TrainingProblem

RANGES: dict[str, tuple[float, float]] = {
    "max_tokens": (1, 1_000_000),
    "temperature": (0.001, 100.0),
    "top_p": (1e-6, 1.0),
    "seed": (0, 2**32 - 1),
}
"""Smallest and largest values. ``temperature`` can also be 0, which always picks the most likely token."""
WHOLE = ("max_tokens", "seed")


def out_of_range(settings: dict[str, Any]) -> list[str]:
    """Return one message for each setting that is not a number in its range."""
    return [
        f"{name} must be {'0 or ' if name == 'temperature' else ''}from {_shown(low)} to {_shown(high)}, not {value!r}"
        for name, (low, high) in RANGES.items()
        if (value := settings[name]) is not None
        and not (
            _is_number(value, whole=name in WHOLE) and (low <= value <= high or (name, value) == ("temperature", 0))
        )
    ]


def check_settings(**settings: Any) -> None:
    """Raise ``bad_data`` with every setting that is not in its range."""
    if wrong := out_of_range(settings):
        raise TrainingProblem("bad_data", "; ".join(wrong))


def _is_number(value: Any, *, whole: bool) -> bool:
    return isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)


def _shown(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"
