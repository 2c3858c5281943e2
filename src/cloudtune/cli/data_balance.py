"""``cloudtune data balance``: the same number of rows for each label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudtune.cli.data_options import data_command, put_written, shuffle_option

if TYPE_CHECKING:
    from cloudtune.cli.data_options import Rows
    from cloudtune.cli.session import Session


@data_command("balance")
@click.option(
    "--most", type=click.IntRange(1), metavar="N", help="Maximum rows per label. Default: the count of the rarest."
)
@shuffle_option
@click.option("--to", "form", default="cloudtune", show_default=True, metavar="FORMAT", help="See `data convert`.")
@click.option("-o", "--out", required=True, metavar="FILE", help="Output file.")
def command_(session: Session, rows: Rows, most: int | None, shuffle: bool, form: str, out: str) -> None:
    """Balance labels (or final answers) by removing rows of the most frequent ones."""
    from collections import Counter

    from cloudtune.data.transform.shaping import label_of

    kept: Counter[str] = Counter()

    def counted(record: object) -> bool:
        kept[label_of(record)] += 1  # type: ignore[arg-type]
        return True

    kept_rows = rows.dataset().balance(most=most, seed=rows.changes.seed).filter(counted)
    written = (kept_rows.shuffle(rows.changes.seed) if shuffle else kept_rows).write(out, form)
    put_written(session, {"out": written}, labels=dict(kept.most_common(100)))
