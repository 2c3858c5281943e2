"""Draw curves with braille dots in a terminal, or as a PNG.

Terminal plotting packages change their API between major versions, so the drawing code is here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from cloudtune.cli.render import figure
from cloudtune.cli.terminal import styled
from cloudtune.errors import InputError
from cloudtune.install_command import install_command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Points = "Sequence[tuple[float, float]]"
COLOURS = ("cyan", "yellow", "magenta", "green", "red", "blue")
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # braille: two columns of four dots in a cell


def curves(
    series: Mapping[str, Sequence[tuple[float, float]]], *, width: int, height: int, colour: bool,
    across: str = "step", ends: tuple[str, str] | None = None,
) -> str:  # fmt: skip
    """Plot the series on shared axes, with a legend. Empty if no series has two finite points.

    ``across`` names the horizontal axis, and ``ends`` its lowest and its highest value.
    """
    kept = {name: [(x, y) for x, y in points if math.isfinite(y)] for name, points in series.items()}
    kept = {name: points for name, points in kept.items() if points}
    if sum(len(points) for points in kept.values()) < 2:
        return ""
    xs = [x for points in kept.values() for x, _ in points]
    ys = [y for points in kept.values() for _, y in points]
    labels = [figure(max(ys)), figure(min(ys))]
    margin = max(map(len, labels))
    canvas = _Canvas(max(width - margin - 2, 10), max(height - 2, 3), (min(xs), max(xs)), (min(ys), max(ys)))
    for number, points in enumerate(kept.values()):
        canvas.draw(sorted(points), number)

    def paint(text: str, number: int) -> str:
        return styled(text, fg=COLOURS[number % len(COLOURS)]) if colour and number >= 0 else text

    lines = []
    for row, cells in enumerate(canvas.rows(paint)):
        label = labels[0] if row == 0 else labels[1] if row == canvas.height - 1 else ""
        lines.append(f"{label.rjust(margin)} ┤{cells}".rstrip())
    low, high = ends or (figure(int(min(xs))), figure(int(max(xs))))
    lines.append(f"{' ' * margin} └{'─' * canvas.width}")
    lines.append(f"{' ' * (margin + 2)}{low}{f'{across} {high}'.rjust(canvas.width - len(low))}")
    lines.append("  ".join(paint(f"● {name}", number) for number, name in enumerate(kept)))
    return "\n".join(lines)


class _Canvas:
    """A grid of dots, eight per character cell."""

    def __init__(self, width: int, height: int, xs: tuple[float, float], ys: tuple[float, float]) -> None:
        self.width, self.height = width, height
        self._xs, self._ys = xs, ys
        self._dots = [[0] * width for _ in range(height)]
        self._owner = [[-1] * width for _ in range(height)]

    def draw(self, points: Sequence[tuple[float, float]], number: int) -> None:
        """Draw lines between the points."""
        places = [self._place(x, y) for x, y in points]
        for (x0, y0), (x1, y1) in zip(places, places[1:] or places, strict=False):
            count = max(abs(x1 - x0), abs(y1 - y0), 1)
            for part in range(count + 1):
                self._dot(round(x0 + (x1 - x0) * part / count), round(y0 + (y1 - y0) * part / count), number)

    def rows(self, paint: Any) -> list[str]:
        """Return the cells as text, row by row from the top."""
        return [
            "".join(paint(chr(0x2800 + dots), owner) if dots else " " for dots, owner in zip(line, owners, strict=True))
            for line, owners in zip(self._dots, self._owner, strict=True)
        ]

    def _place(self, x: float, y: float) -> tuple[int, int]:
        across = (x - self._xs[0]) / ((self._xs[1] - self._xs[0]) or 1.0)
        up = (y - self._ys[0]) / ((self._ys[1] - self._ys[0]) or 1.0)
        return round(across * (self.width * 2 - 1)), round((1 - up) * (self.height * 4 - 1))

    def _dot(self, x: int, y: int, number: int) -> None:
        self._dots[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
        self._owner[y // 4][x // 2] = number


def save_png(
    series: Mapping[str, Sequence[tuple[float, float]]], path: Path, *, title: str, across: str = "step"
) -> None:
    """Draw the series as a PNG. Raises InputError if matplotlib is not installed or the file cannot be written."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("--png requires matplotlib, which is not installed",
                         hint=f"run: {install_command('plot')}") from error  # fmt: skip
    drawn = Figure(figsize=(8, 5), layout="constrained")
    axes = drawn.add_subplot()
    for name, points in series.items():
        axes.plot([x for x, _ in points], [y for _, y in points], label=name, marker="." if len(points) < 40 else None)
    axes.set_xlabel(across)
    axes.set_title(title)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    try:
        drawn.savefig(path, dpi=120, format="png")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
