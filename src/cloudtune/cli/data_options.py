"""Options and reports shared by the ``data`` commands."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from cloudtune.cli.options import command

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudtune.cli.session import Session
    from cloudtune.data.dataset import Dataset
    from cloudtune.data.encoding import Encoded
    from cloudtune.data.places import Batch
    from cloudtune.data.report import CheckReport
    from cloudtune.data.transform.changing import Changes
    from cloudtune.spec import Data, Source

SHOWN = 20
"""Maximum problems printed per code. ``--json`` has all of them."""


class Rows(NamedTuple):
    """The rows that a command line selects, and the transforms applied to them."""

    source: Source
    changes: Changes

    @property
    def change(self) -> Callable[[Batch], Batch] | None:
        """Transform applied to each batch, or None."""
        return self.changes.batch if self.changes else None

    def dataset(self) -> Dataset:
        """Return the transformed rows."""
        from cloudtune.data.dataset import Dataset

        return Dataset.of(self.source, change=self.change)

    def sides(self, validation: str | None, test: str | None) -> Data:
        """Return the rows with their held-out sets: shares of the rows, or files of the same kind."""
        from cloudtune.spec import Data

        held_out = {"validation": self._held_out(validation), "test": self._held_out(test)}
        return Data.model_validate({"train": self.source, "split_seed": self.changes.seed, **held_out})

    def mixed(self, mixes: tuple[str, ...]) -> Data:
        """Return the rows mixed with those of other files, given as FILE=WEIGHT."""
        from cloudtune.spec import Data, MixedIn

        found = []
        for pair in mixes:
            path, _, weight = pair.rpartition("=")
            try:
                found.append(
                    MixedIn(path=path, weight=float(weight), format=self.source.format, delimiter=self.source.delimiter)
                )
            except ValueError as error:  # pydantic's errors are ValueErrors
                raise click.UsageError(f"--mix expects FILE=WEIGHT with a weight above 0, got {pair!r}") from error
        return Data(train=self.source, mix=tuple(found) or None, split_seed=self.changes.seed)

    def _held_out(self, written: str | None) -> float | Source | None:
        if written is None:
            return None
        try:
            share = float(written)
        except ValueError:
            return self.source.model_copy(update={"path": written})
        if not 0 < share < 1:
            raise click.UsageError(f"a share must be between 0 and 1, got {written}")
        return share


def data_command(name: str, **attributes: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Declare a command whose function receives the session and the selected `Rows`."""

    def wrap(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def run(session: Session, files: tuple[str, ...], kind: str, file_format: str, delimiter: str | None,
                maps: tuple[str, ...], templates: tuple[str, ...], filters: tuple[str, ...], sample: float | None,
                seed: int, normalise: bool, redact: bool, **values: Any) -> Any:  # fmt: skip
            from cloudtune.data.transform.changing import Changes
            from cloudtune.data.transform.filtering import condition

            source = source_of(files, kind, file_format, maps, templates, delimiter)
            conditions = tuple(condition(one) for one in filters)
            return function(session, Rows(source, Changes(conditions, sample, seed, normalise, redact)), **values)

        for decorator in _CHANGING + _READING:
            decorator(run)
        return command(name, without=("backend", "ledger", "profile"), **attributes)(run)

    return wrap


_READING = (
    click.option("--template", "templates", multiple=True, metavar="[KEY=]TEXT", help="Build rows from columns: "
                 "--template 'prompt=Q: {question}' --template 'completion={answer}'; without a key, the row is "
                 "plain text. \\n is a line break. @FILE.json reads several templates."),
    click.option("--map", "maps", multiple=True, metavar="COLUMN=FIELD", help="Rename a column "
                 "of the file: --map question=prompt. Repeatable."),
    click.option("--delimiter", metavar="CHARACTER", help="What separates the cells of a CSV file; \\t is a tab. "
                 "Default: what the first line shows."),
    click.option("--format", "file_format", default="auto", help="jsonl, json, csv, tsv, parquet, arrow, xlsx, text"),
    click.option("--kind", default="auto", help="chat, prompt_completion, instruction, text, preference, ..."),
    click.argument("files", nargs=-1, required=True, metavar="FILE..."),
)  # fmt: skip
_CHANGING = (
    click.option("--redact", is_flag=True, help="Mask API keys, card numbers, bank accounts and email addresses."),
    click.option("--normalise", is_flag=True, help="Normalize Unicode, line endings and whitespace."),
    click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed for "
                 "all random choices."),
    click.option("--sample", type=click.FloatRange(0, 1, min_open=True, max_open=True), metavar="SHARE", help="Use "
                 "about this share of the rows, chosen by content."),
    click.option("--filter", "filters", multiple=True, metavar="CONDITION", help="Use only rows with chars<=4000, "
                 "turns=2, label=yes, question~REGEX, answer!~REGEX, ... Repeatable."),
)  # fmt: skip
shuffle_option = click.option("--shuffle", is_flag=True, help="Shuffle the rows (see --seed), in bounded memory.")
held_out_options = (
    click.option("--test", metavar="FILE|SHARE", help="Test set: a file, or a share of the rows."),
    click.option("--validation", metavar="FILE|SHARE", help="Validation set: a file, or a share of the rows."),
)


def held_out(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for held-out sets."""
    for decorator in held_out_options:
        decorator(function)
    return function


def source_of(
    files: tuple[str, ...], kind: str = "auto", file_format: str = "auto", maps: tuple[str, ...] = (),
    templates: tuple[str, ...] = (), delimiter: str | None = None,
) -> Source:  # fmt: skip
    """Return the source that a command line selects."""
    from pydantic import ValidationError

    from cloudtune.spec import Source

    columns = {}
    for pair in maps:
        theirs, equals, field = pair.rpartition("=")  # a column can have the sign in its name
        if not equals or not theirs or not field:
            raise click.UsageError(f"--map expects COLUMN=FIELD, got {pair!r}")
        columns[theirs] = field
    document: dict[str, Any] = {
        "path": files[0] if len(files) == 1 else files, "kind": kind, "format": file_format, "columns": columns,
        "template": _templates(templates), "delimiter": "\t" if delimiter == "\\t" else delimiter,
    }  # fmt: skip
    try:
        return Source.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = f"--{first['loc'][0]}: " if first["loc"] else ""
        raise click.UsageError(f"{where}{first['msg'].removeprefix('Value error, ')}") from error


_LARGEST_TEMPLATES = 4 << 20
_KEYED = re.compile(r"([a-z_]+)=(.*)", re.DOTALL)


def _templates(written: tuple[str, ...]) -> dict[str, str] | None:
    """Map each key to its template. A template without a key makes plain text."""
    import json

    from cloudtune.files.regular_file import read_regular

    found: dict[str, str] = {}
    for one in written:
        if one.startswith("@"):
            try:
                found |= json.loads(read_regular(one[1:], _LARGEST_TEMPLATES))
            except (OSError, ValueError, TypeError, RecursionError) as error:
                raise click.UsageError(
                    f"--template {one}: expected a JSON file with a template for each key: {error}"
                ) from error
            continue
        keyed = _KEYED.fullmatch(one)
        key, text = keyed.groups() if keyed else ("text", one)
        found[key] = text.replace("\\n", "\n").replace("\\t", "\t")
    return found or None


def report_json(report: CheckReport) -> dict[str, Any]:
    """Return the report as one JSON object. Every problem has all its fields."""
    import msgspec

    from cloudtune.cli.render_errors import problem_json

    document: dict[str, Any] = msgspec.to_builtins(report)
    return document | {"problems": [problem_json(problem) for problem in report.problems]}


def show_report(session: Session, report: CheckReport) -> None:
    """Print the report as text: problems, then counts, then one line with the result."""
    shown: dict[str, int] = {}
    for problem in report.problems:
        shown[problem.code] = shown.get(problem.code, 0) + 1
        if shown[problem.code] <= SHOWN and problem.code != "more_problems":
            session.put(f"{problem.severity}: [{problem.code}] {problem}")
    hidden = {code: count - min(shown.get(code, 0), SHOWN) for code, count in report.counts.items()}
    if any(hidden.values()):
        rest = ", ".join(f"{code} {count:,}" for code, count in hidden.items() if count)
        session.put(f"not shown: {rest} (--json lists up to 1,000)")
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in report.kinds.items()) or "no"
    warnings = sum(problem.severity == "warning" for problem in report.problems)
    state = "ok" if report.ok else "failed"
    if report.ok and warnings:
        state = "ok, with warnings"
    session.put(f"{state}: {kinds} rows" + (f", for {report.target}" if report.target else ""))


def put_written(session: Session, written: dict[str, Encoded], **more: Any) -> None:
    """Print the files that were written."""
    files = {
        name: {"path": str(one.path), "rows": one.rows, "bytes": one.bytes, "sha256": one.sha256}
        for name, one in written.items()
    }
    session.result({"ok": True, "files": files, **more})
    for one in written.values():
        session.put(f"{one.path}: {one.rows:,} rows, {one.bytes:,} bytes")
    for name, value in more.items():
        session.say(f"{name.replace('_', ' ')}: {value}")
