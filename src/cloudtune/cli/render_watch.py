"""Output while a job is followed: a live display in a terminal, plain lines in a pipe, or nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol, Self

from cloudtune.cli.render import STATE_COLOURS, duration, figure
from cloudtune.cli.render_job import progress_text
from cloudtune.cli.terminal import escaped, indented, one_line
from cloudtune.state import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import RenderableType

    from cloudtune.execute import StepUpdate
    from cloudtune.state import Event, JobSnapshot, Metric
    from cloudtune.watch import Update

PLAIN_EVERY_S = 30.0
PLAIN_EVERY_SHARE = 0.05
_IN_DISPLAY = frozenset({"metrics", "state", "checkpoint"})
"""Types of events that come many times in an epoch, and that the state, the bar and the figures show."""
EARLIER_EVENTS = 10
"""Number of earlier events shown when a watch starts."""
_BARS = "▁▂▃▄▅▆▇█"
_SHOWN = (
    "loss", "reward", "kl", "perplexity", "token_accuracy", "macro_f1", "f1", "exact_match", "mrr@10", "spearman",
    "learning_rate", "tokens_per_s",
)  # fmt: skip
_SHORT = {
    "token_accuracy": "token accuracy", "macro_f1": "F1", "f1": "F1", "exact_match": "exact", "mrr@10": "MRR@10",
    "spearman": "Spearman", "learning_rate": "lr", "tokens_per_s": "tok/s",
}  # fmt: skip


class View(Protocol):
    """Displays the updates of a watch."""

    def __enter__(self) -> Self:
        """Start the display."""

    def __exit__(self, *error: object) -> None:
        """Stop the display. The last state stays on the screen."""

    def update(self, update: Update) -> None:
        """Display an update of the job."""


def step_line(update: StepUpdate) -> str:
    """Format a submission step as one line."""
    line = f"[{update.number}/{update.of}] {update.step.title}: {update.what}"
    return f"{line} ({update.message})" if update.message else line


def figures(metric: Metric) -> str:
    """Format the main metrics as one line."""
    return "  ".join(
        f"{_SHORT.get(name, name)} {figure(metric.values[name])}" for name in _SHOWN if name in metric.values
    )


def sparkline(values: Sequence[float], width: int) -> str:
    """Draw a metric as a one-line sparkline."""
    kept = [value for value in values if value == value]  # noqa: PLR0124 - excludes NaN
    if len(kept) < 2:
        return ""
    step = max(len(kept) / width, 1.0)
    picked = [kept[min(int((number + 1) * step) - 1, len(kept) - 1)] for number in range(int(len(kept) / step))]
    low, high = min(picked), max(picked)
    span = (high - low) or 1.0
    return "".join(_BARS[int((value - low) / span * (len(_BARS) - 1) + 0.5)] for value in picked)


def worth_telling(update: Update, *, first: bool) -> list[Event]:
    """Select the events to show: what the display itself does not show, and only the latest of the earlier events."""
    events = [event for event in update.events if event.level != "info" or event.type not in _IN_DISPLAY]
    return events[-EARLIER_EVENTS:] if first else events


class PlainView:
    """Print one line per relevant update."""

    def __init__(self, say: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._now = now
        self._first = True
        self._word = ""
        self._said_at: float | None = None
        self._said_step = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return

    def update(self, update: Update) -> None:
        """Display an update of the job."""
        snapshot, first, self._first = update.snapshot, self._first, False
        for event in worth_telling(update, first=first):
            level = "" if event.level == "info" else f"{event.level}  "
            self._say(f"{_time(event)}  {level}{indented(event.message, 10)}")
        newest = {metric.split: metric for metric in update.metrics}
        for metric in newest.values() if first else update.metrics:
            if metric.split != "train" or self._is_due(metric.step, snapshot):
                self._say(self._line(metric, snapshot, with_eta=metric is newest.get("train")))
        # While a job runs, its detail changes several times in an epoch.
        has_detail = snapshot.detail and snapshot.state is not JobState.RUNNING
        word = f"{snapshot.state}: {snapshot.detail}" if has_detail else str(snapshot.state)
        if word != self._word:
            self._word = word
            self._say(word)
        if update.note:
            self._say(f"note: {update.note}")

    def _is_due(self, step: int, snapshot: JobSnapshot) -> bool:
        total, now = snapshot.progress.total_steps, self._now()
        enough = max((total or 0) * PLAIN_EVERY_SHARE, 1.0)
        due = (
            self._said_at is None
            or step == total
            or (total is not None and step - self._said_step >= enough)
            or now - self._said_at >= PLAIN_EVERY_S
        )
        if due:
            self._said_at, self._said_step = now, step
        return due

    @staticmethod
    def _line(metric: Metric, snapshot: JobSnapshot, *, with_eta: bool) -> str:
        total = snapshot.progress.total_steps
        place = f"step {metric.step}/{total}" if total else f"step {metric.step}"
        split = "" if metric.split == "train" else f"  {metric.split}"
        eta = duration(snapshot.progress.eta_s) if with_eta and not snapshot.has_ended else ""
        return f"{place}{split}  {figures(metric)}" + (f"  remaining {eta}" if eta else "")


def _time(event: Event) -> str:
    return event.time.astimezone().strftime("%H:%M:%S")


class LiveView:
    """Redraw the state, progress bar, metrics and loss curve in place. Events scroll above."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console
        from rich.live import Live

        self._now = now
        self._began = now()
        self._seen_at = now()
        self._snapshot: JobSnapshot | None = None
        self._train: Metric | None = None
        self._validation: Metric | None = None
        self._losses: list[float] = []
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._live = Live(get_renderable=self._draw, console=self._console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def update(self, update: Update) -> None:
        """Display an update of the job."""
        from rich.text import Text

        for event in worth_telling(update, first=self._snapshot is None):
            style = {"warning": "yellow", "error": "red", "debug": "dim"}.get(event.level, "")
            self._console.print(Text(_time(event), style="dim"), Text(escaped(indented(event.message, 9)), style=style))
        if update.note:
            self._console.print(Text(escaped(update.note), style="yellow"))
        for metric in update.metrics:
            if metric.split == "train":
                self._train = metric
                self._losses += [metric.values["loss"]] if "loss" in metric.values else []
            elif metric.split == "validation":
                self._validation = metric
        self._snapshot, self._seen_at = update.snapshot, self._now()
        self._live.refresh()

    def _draw(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        snapshot = self._snapshot
        if snapshot is None:
            return Text("waiting for the first response ...", style="dim")
        lines: list[RenderableType] = [self._head(snapshot)]
        if snapshot.progress.step is not None and snapshot.progress.total_steps:
            lines.append(self._bar(snapshot))
        for title, metric in (("train     ", self._train), ("validation", self._validation)):
            if metric is not None:
                lines.append(Text.assemble((title, "dim"), "  ", figures(metric)))
        if course := sparkline(self._losses, max(self._console.width - 14, 10)):
            lines.append(Text.assemble(("loss      ", "dim"), "  ", (course, "cyan")))
        if not snapshot.has_ended:
            lines.append(Text("press Ctrl-C to stop watching; the job keeps running", style="dim"))
        return Group(*lines)

    def _head(self, snapshot: JobSnapshot) -> RenderableType:
        from rich.text import Text

        state = str(snapshot.state)
        head = Text.assemble((one_line(snapshot.ref.id), "bold"), "  ", (state, STATE_COLOURS.get(state, "")))
        if snapshot.detail:
            head.append(f"  {one_line(snapshot.detail)}")
        head.append(f"  {duration(self._now() - self._began)}", style="dim")
        return head

    def _bar(self, snapshot: JobSnapshot) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        progress = snapshot.progress
        assert progress.step is not None
        assert progress.total_steps is not None
        parts = [progress_text(snapshot), f"{progress.step / progress.total_steps:.0%}"]
        if progress.epoch is not None:
            parts.append(f"epoch {progress.epoch:.2f}")
        if progress.eta_s is not None and snapshot.state is JobState.RUNNING:
            parts.append(f"remaining {duration(max(progress.eta_s - (self._now() - self._seen_at), 0))}")
        line = Table.grid(padding=(0, 2), expand=False)
        line.add_row(ProgressBar(total=progress.total_steps, completed=progress.step, width=40), Text("  ".join(parts)))
        return line
