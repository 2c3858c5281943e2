"""Options that the commands on data share, and how their reports are shown."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

from cloudtune.cli.options import command

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudtune.cli.session import Session
    from cloudtune.data.checking import CheckReport
    from cloudtune.data.encoding import Encoded
    from cloudtune.spec import Source

SHOWN = 20
"""Problems of each severity that are printed; --json has them all."""


def data_command(name: str, **attributes: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """A command whose function gets the session and the `Source` that the files and options name."""

    def wrap(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def run(session: Session, files: tuple[str, ...], kind: str, file_format: str, maps: tuple[str, ...],
                **values: Any) -> Any:  # fmt: skip
            return function(session, source_of(files, kind, file_format, maps), **values)

        for decorator in (
            click.option("--map", "maps", multiple=True, metavar="THEIRS=OURS", help="A column's name in the file, "
                         "and ours: --map question=prompt; may be repeated."),
            click.option("--format", "file_format", default="auto", help="jsonl, json, csv, tsv, parquet, arrow, text"),
            click.option("--kind", default="auto", help="chat, prompt_completion, instruction, text, preference, ..."),
            click.argument("files", nargs=-1, required=True, metavar="FILE..."),
        ):  # fmt: skip
            decorator(run)
        return command(name, without=("backend", "ledger", "profile"), **attributes)(run)

    return wrap


def source_of(
    files: tuple[str, ...], kind: str = "auto", file_format: str = "auto", maps: tuple[str, ...] = ()
) -> Source:
    """The source that a command line names."""
    from pydantic import ValidationError

    from cloudtune.spec import Source

    columns = {}
    for pair in maps:
        theirs, equals, ours = pair.partition("=")
        if not equals or not theirs or not ours:
            raise click.UsageError(f"--map wants THEIRS=OURS, not {pair!r}")
        columns[theirs] = ours
    document: dict[str, Any] = {
        "path": files[0] if len(files) == 1 else files, "kind": kind, "format": file_format, "columns": columns,
    }  # fmt: skip
    try:
        return Source.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise click.UsageError(f"--{first['loc'][0]}: {first['msg']}") from error


def report_json(report: CheckReport) -> dict[str, Any]:
    """The report as one object; every problem has all its fields."""
    import msgspec

    from cloudtune.cli.render_errors import problem_json

    document: dict[str, Any] = msgspec.to_builtins(report)
    return document | {"problems": [problem_json(problem) for problem in report.problems]}


def show_report(session: Session, report: CheckReport) -> None:
    """The report for a person: problems, then counts, then one line that says how it stands."""
    shown: dict[str, int] = {}
    for problem in report.problems:
        shown[problem.code] = shown.get(problem.code, 0) + 1
        if shown[problem.code] <= SHOWN and problem.code != "more_problems":
            session.put(f"{problem.severity}: [{problem.code}] {problem}")
    hidden = {code: count - min(shown.get(code, 0), SHOWN) for code, count in report.counts.items()}
    if any(hidden.values()):
        rest = ", ".join(f"{code} {count:,}" for code, count in hidden.items() if count)
        session.put(f"and more: {rest} (--json lists up to 1,000)")
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in report.kinds.items()) or "no"
    warnings = sum(problem.severity == "warning" for problem in report.problems)
    state = "ok" if report.ok else "not ok"
    if report.ok and warnings:
        state = "ok, with warnings"
    session.put(f"{state}: {kinds} rows" + (f", for {report.target}" if report.target else ""))


def put_written(session: Session, written: dict[str, Encoded], **more: Any) -> None:
    """Tell of files that were written."""
    files = {
        name: {"path": str(one.path), "rows": one.rows, "bytes": one.bytes, "sha256": one.sha256}
        for name, one in written.items()
    }
    session.result({"ok": True, "files": files, **more})
    for one in written.values():
        session.put(f"{one.path}: {one.rows:,} rows, {one.bytes:,} bytes")
    for name, value in more.items():
        session.say(f"{name.replace('_', ' ')}: {value}")
