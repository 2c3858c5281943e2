"""Format tables, times and numbers: styled in a terminal, aligned columns in a pipe."""

from __future__ import annotations

import csv
import io
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cloudtune.cli.terminal import indented, one_line, styled, write

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cloudtune.state import JobState

STATE_COLOURS = {
    "queued": "cyan", "preparing": "cyan", "running": "blue", "paused": "yellow", "cancelling": "yellow",
    "succeeded": "green", "failed": "red", "cancelled": "magenta", "expired": "magenta", "unknown": "yellow",
}  # fmt: skip


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[str] = ()) -> None:
    """Print rows to stdout. In a pipe, nothing is wrapped or truncated."""
    if sys.stdout.isatty():
        _drawn(columns, rows, right)
        return
    cells = [[one_line(str(cell)) for cell in row] for row in (columns, *rows)]
    widths = [max(len(line[number]) for line in cells) for number in range(len(columns))]
    for line in cells:
        padded = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ]
        write("  ".join(padded).rstrip())


def _drawn(columns: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        # The first column identifies the row, so it is never truncated.
        drawn.add_column(
            Text(one_line(column)), justify="right" if column in right else "left", overflow="fold", no_wrap=number == 0
        )
    for row in rows:
        drawn.add_row(*(Text(one_line(str(cell)), style=STATE_COLOURS.get(str(cell), "")) for cell in row))
    Console(highlight=False, markup=False, emoji=False).print(drawn)


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Format rows as CSV. A cell that starts like a formula gets a quote, because spreadsheets run formulas."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value
                      for name, value in row.items()} for row in rows)  # fmt: skip
    return text.getvalue()


def fields(pairs: Sequence[tuple[str, Any]]) -> str:
    """Format names and values, one per line. Names without a value are omitted."""
    shown = [(name, str(value)) for name, value in pairs if value not in (None, "", (), {})]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join(f"{name.ljust(width)}  {indented(value, width + 2)}" for name, value in shown)


def coloured(state: JobState | str) -> str:
    """Return the state, colored in a terminal."""
    word = str(state)
    return styled(word, fg=STATE_COLOURS.get(word)) if sys.stdout.isatty() else word


def duration(seconds: float | None) -> str:
    """Format a duration as 45s, 3m20s, 2h05m or 3d4h."""
    if seconds is None:
        return ""
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600}h"


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """Format how long ago the moment was."""
    if moment is None:
        return ""
    past = ((now or datetime.now(UTC)) - moment).total_seconds()
    return f"{duration(max(past, 0))} ago"


def clock_time(moment: datetime | None) -> str:
    """Format date and time in the local time zone."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else ""


def figure(value: Any) -> str:
    """Format a number with a readable number of digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (abs(value) >= 1000 and value == value):  # noqa: PLR0124 - not for nan
        return f"{value:,.0f}"
    if value == 0 or 0.001 <= abs(value) < 1000:
        return f"{value:.4g}"
    return f"{value:.2e}"


def size(count: int) -> str:
    """Format a number of bytes with a unit."""
    number = float(count)
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"
