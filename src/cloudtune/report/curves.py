"""Training curves as SVG.

Written by hand: 100 lines draw all that a loss curve needs, and the smallest plotting library that inlines (uPlot) adds
50 KB of script to each page, draws on a canvas that screen readers and printers cannot read, and needs scripts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cloudtune.report.markup import Html, html, joined, tag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune.state import Metric

Points = list[tuple[float, float]]
WIDTH, HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 10, 26
_MOST_POINTS = 300
_MOST_CHARTS = 6
_ROWS_SHOWN = 50
_TICKS = 4
_LATER = ("learning_rate", "grad_norm", "tokens_per_s", "memory_mb")
"""Metrics about the process of training, drawn last."""


def charts(metrics: Sequence[Metric]) -> Html:
    """A figure for each of the most important metrics, with its values as a table."""
    names = list(dict.fromkeys(name for one in metrics for name in one.values))
    held_out = {name for one in metrics if one.split != "train" for name in one.values}
    names.sort(key=lambda name: (name != "loss", name in _LATER, name not in held_out))
    figures = [_figure(name, series) for name in names if (series := series_of(metrics, name))]
    return tag("div", *figures[:_MOST_CHARTS], class_="charts")


def series_of(metrics: Sequence[Metric], name: str) -> dict[str, Points]:
    """The finite values of a metric for each split, in the order of their steps."""
    found: dict[str, Points] = {}
    for metric in metrics:
        if math.isfinite(value := metric.values.get(name, math.nan)):
            found.setdefault(metric.split, []).append((metric.step, value))
    return {split: sorted(points) for split, points in found.items()}


def summary(name: str, series: dict[str, Points]) -> str:
    """The course of a metric in words."""
    parts = []
    for split, points in series.items():
        (first, start), (last, end) = points[0], points[-1]
        course = f"{start:.4g} at step {first:g}" + (f", {end:.4g} at step {last:g}" if len(points) > 1 else "")
        parts.append(f"{split} {course}")
    return f"{name}: {'; '.join(parts)}"


def _figure(name: str, series: dict[str, Points]) -> Html:
    rows = [(split, step, value) for split, points in series.items() for step, value in _thinned(points, _ROWS_SHOWN)]
    table = tag(
        "table", tag("caption", f"Values of {name}"),
        tag("thead", tag("tr", *(tag("th", head, scope="col") for head in ("Split", "Step", name)))),
        tag("tbody", *(tag("tr", tag("th", split, scope="row"), tag("td", f"{step:g}", class_="n"),
                           tag("td", f"{value:.5g}", class_="n")) for split, step, value in rows)),
    )  # fmt: skip
    legend = joined(tag("span", split, class_=f"key {split}") for split in series)
    scroll = tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=f"Values of {name}")
    return tag("figure", tag("figcaption", tag("b", name), " ", legend), _svg(name, series),
               tag("details", tag("summary", f"{name} as a table"), scroll))  # fmt: skip


def _svg(name: str, series: dict[str, Points]) -> Html:
    shown = {split: _thinned(points, _MOST_POINTS) for split, points in series.items()}
    across = _scale([x for points in shown.values() for x, _ in points], _LEFT, WIDTH - _RIGHT)
    up = _scale([y for points in shown.values() for _, y in points], HEIGHT - _BOTTOM, _TOP)
    parts: list[Html] = [tag("title", summary(name, series))]
    for tick in up.ticks():
        y = round(up.at(tick), 1)
        parts.append(tag("line", class_="grid", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y))
        parts.append(tag("text", f"{tick:,.6g}", x=_LEFT - 6, y=y + 4, text_anchor="end"))
    parts += [tag("text", f"{tick:,.0f}", x=round(across.at(tick), 1), y=HEIGHT - 8, text_anchor="middle")
              for tick in across.ticks() if tick == int(tick)]  # fmt: skip
    for split, points in shown.items():
        places = [(round(across.at(x), 1), round(up.at(y), 1)) for x, y in points]
        if len(places) > 1:
            parts.append(tag("polyline", class_=f"line {split}", points=" ".join(f"{x},{y}" for x, y in places)))
        if len(places) <= _ROWS_SHOWN:
            parts += [tag("circle", tag("title", f"{split}, step {step:g}: {value:.5g}"), class_=f"dot {split}", cx=x,
                          cy=y, r=3) for (x, y), (step, value) in zip(places, points, strict=True)]  # fmt: skip
    return tag("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=html(summary(name, series)))


class _Scale:
    """A linear scale from values to positions."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self._low, self._high, self._start, self._end = low, high, start, end

    def at(self, value: float) -> float:
        """The position of the value."""
        return self._start + (value - self._low) / (self._high - self._low) * (self._end - self._start)

    def ticks(self) -> list[float]:
        """Round values within the scale."""
        rough = (self._high - self._low) / _TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
        first, last = math.ceil(self._low / step - 1e-9), math.floor(self._high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def _scale(values: Sequence[float], start: float, end: float) -> _Scale:
    low, high = min(values), max(values)
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        margin = abs(low) / 2 or 0.5
        low, high = low - margin, high + margin
    return _Scale(low, high, start, end)


def _thinned(points: Points, most: int) -> Points:
    """At most about that many points: the lowest and the highest of each run of neighbors."""
    if len(points) <= most:
        return points
    size = math.ceil(2 * len(points) / most)
    kept = {points[0], points[-1]}
    for start in range(0, len(points), size):
        run = points[start : start + size]
        kept |= {min(run, key=lambda one: one[1]), max(run, key=lambda one: one[1])}
    return sorted(kept)
