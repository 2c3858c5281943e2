"""``cloudtune report``: write one document with everything about a job."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudtune.cli.options import command, ref_argument

if TYPE_CHECKING:
    from cloudtune.cli.session import Session
    from cloudtune.evaluation.result import Evaluation
    from cloudtune.report.document import Report
    from cloudtune.state import JobRef

_ENDINGS = {"html": "html", "markdown": "md", "json": "json"}


@command("report", without=("backend",))
@ref_argument
@click.option("--evaluation", "evaluation_file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
              help="Output of `cloudtune evaluate JOB --json`: the verdict, the metrics and the rows.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(list(_ENDINGS)), default="html", show_default=True,
              help="Format of the report.")  # fmt: skip
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="Output file, which is replaced. "
              "Default: the job's name and `-report`, in the working directory.")  # fmt: skip
@click.option("--open", "open_it", is_flag=True, help="Open the report in the browser.")
def report(
    session: Session, ref: str, evaluation_file: Path | None, form: str, output: Path | None, open_it: bool
) -> None:
    """Write a report about a job.

    It has the verdict, metrics with intervals, training curves, the rows that got better and worse, the data, the plan,
    the cost, the lineage, and how to reproduce the job. The HTML report is one file that loads nothing. It contains
    test rows and answers: treat it like the data.
    """
    job = session.job(ref)
    evaluation = None if evaluation_file is None else read_evaluation(evaluation_file, job.ref)
    found = session.client.report(job, evaluation=evaluation)
    path = output or Path(f"{_file_name(found.name)}-report.{_ENDINGS[form]}")
    text = _written(found, form)
    _write(path, text)
    verdict = found.evaluation.verdict if found.evaluation is not None else None
    session.result({"ref": str(job.ref), "report": str(path), "format": form, "bytes": len(text), "verdict": verdict,
                    "missing": list(found.missing)})  # fmt: skip
    for one in found.missing:
        session.say(f"missing: {one}")
    session.say(f"wrote {path}")
    if open_it:
        import webbrowser

        if not webbrowser.open(path.resolve().as_uri()):
            session.say(f"no browser can be started; open {path.resolve()}")


def read_evaluation(file: Path, ref: JobRef | None) -> Evaluation:
    """Read the output of ``cloudtune evaluate --json``: an evaluation of the job, if one is given."""
    from cloudtune.errors import InputError
    from cloudtune.files.regular_file import open_regular
    from cloudtune.report.document import evaluation_from_json

    try:
        with open_regular(file) as opened:
            return evaluation_from_json(opened.read(), str(file), ref)
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from error


def _file_name(name: str) -> str:
    """The name as a file name, whatever characters a vendor has put into it."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip(".-")[:80] or "job"


def _written(found: Report, form: str) -> bytes:
    import json

    if form == "json":
        return f"{json.dumps(found.to_json(), indent=1)}\n".encode()
    return (found.html() if form == "html" else found.markdown()).encode()


def _write(path: Path, text: bytes) -> None:
    """Replace the file at once: a failed write leaves the old one."""
    import os

    from cloudtune.data.write.output_file import temporary_file
    from cloudtune.errors import InputError

    try:
        descriptor, aside = temporary_file(path)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text)
            Path(aside).replace(path)
        finally:
            Path(aside).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
