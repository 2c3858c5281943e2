"""``cloudtune data preview``: show rows as the model sees them."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudtune.cli.data_options import data_command
from cloudtune.cli.terminal import styled, write

if TYPE_CHECKING:
    from cloudtune.cli.data_options import Rows
    from cloudtune.cli.session import Session
    from cloudtune.data.write.preview import View

_STYLES: dict[str, dict[str, Any]] = {
    "learnt": {"fg": "green"}, "read": {"dim": True}, "cut": {"fg": "red", "strikethrough": True},
}  # fmt: skip


@data_command("preview")
@click.option("--row", type=click.IntRange(1), default=1, show_default=True, help="First row to show.")
@click.option(
    "-n", "--rows", "count", type=click.IntRange(1), default=3, show_default=True, help="Number of rows to show."
)
@click.option("--tokenizer", metavar="FOLDER", help="Render with this tokenizer's chat template and count tokens.")
@click.option(
    "--max-tokens", type=click.IntRange(1), metavar="N", help="Show what is truncated beyond this many tokens."
)
@click.option("--html", metavar="FILE", help="Write an HTML page instead.")
def command_(
    session: Session, rows: Rows, row: int, count: int, tokenizer: str | None, max_tokens: int | None,
    html: str | None,
) -> None:  # fmt: skip
    """Show rows as the model sees them: trained text in color, context dimmed, truncated text struck through."""
    from cloudtune.data.write.preview import html_page, summary, view

    counter = None
    if tokenizer is not None:
        from cloudtune.data.checks.tokens import counter_of

        counter = counter_of(tokenizer)
    chosen = list(islice(_records(rows), row - 1, row - 1 + count))
    if not chosen:
        raise click.UsageError(f"row {row} does not exist")
    views = [(f"{place}", view(record, counter, max_tokens)) for place, record in chosen]
    session.result({"rows": [_json(place, one) for place, one in views]})
    if html is not None:
        Path(html).write_text(html_page(views, ", ".join(rows.source.paths)), encoding="utf-8")
        session.say(f"wrote {html}")
    elif not session.json:
        for place, one in views:
            write(styled(f"── {place} {summary(one)}", bold=True))
            write("".join(styled(piece.text, **_STYLES[piece.fate]) for piece in one.pieces))


def _records(rows: Rows) -> Any:
    from cloudtune.data.problem_list import Faults
    from cloudtune.data.read.reading import read

    faults = Faults()
    for whole in read(rows.source, faults):
        batch = rows.changes.batch(whole) if rows.changes else whole
        for line, record in zip(batch.lines, batch.records, strict=True):
            yield f"{batch.file}:{'row ' if batch.by_row else ''}{line}", record
    faults.raise_errors()


def _json(place: str, one: View) -> dict[str, Any]:
    return {
        "place": place, "tokens": one.tokens, "learnt": one.learnt, "cut": one.cut,
        "pieces": [{"text": piece.text, "fate": piece.fate} for piece in one.pieces],
    }  # fmt: skip
