"""``cloudtune data dedupe``: remove duplicate rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudtune.cli.data_options import data_command, put_written, shuffle_option

if TYPE_CHECKING:
    from cloudtune.cli.data_options import Rows
    from cloudtune.cli.session import Session


@data_command("dedupe")
@click.option("--near", type=click.FloatRange(0.1, 1), metavar="SHARE", help="Also remove near-duplicates: "
              "rows that share this fraction of their word trigrams with an earlier row, e.g. 0.8.")  # fmt: skip
@shuffle_option
@click.option("--to", "form", default="cloudtune", show_default=True, metavar="FORMAT", help="See `data convert`.")
@click.option("-o", "--out", required=True, metavar="FILE", help="Output file.")
def command_(session: Session, rows: Rows, near: float | None, shuffle: bool, form: str, out: str) -> None:
    """Remove duplicate rows. The first of equal rows is kept."""
    seen = 0

    def counted(record: object) -> bool:
        nonlocal seen
        seen += 1
        return True

    distinct = rows.dataset().filter(counted).dedupe(near)
    written = (distinct.shuffle(rows.changes.seed) if shuffle else distinct).write(out, form)
    put_written(session, {"out": written}, left_out=seen - written.rows)
