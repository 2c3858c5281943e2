"""``cloudtune jobs``: list jobs and their states."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from cloudtune.cli.options import command

if TYPE_CHECKING:
    from cloudtune.cli.session import Session
    from cloudtune.state import JobSnapshot


@command("jobs")
@click.option("--state", "states", multiple=True, metavar="STATE", help="Only jobs in this state. Repeatable.")
@click.option("--remote", is_flag=True, help="Also list jobs that cloudtune did not create.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Maximum number of jobs.")
@click.option("--all", "everything", is_flag=True, help="List all jobs.")
def jobs(session: Session, states: tuple[str, ...], remote: bool, limit: int, everything: bool) -> None:
    """List jobs with their current state, newest first. -q prints only references."""
    from cloudtune.cli.render_job import job_json
    from cloudtune.state import JobState

    wrong = [state for state in states if state not in set(JobState)]
    if wrong:
        raise click.BadParameter(f"unknown state {wrong[0]!r}; choose from {', '.join(JobState)}", param_hint="--state")
    most = None if everything or states else limit
    found = session.client.jobs(backend=session.backend, remote=remote, limit=most)
    shown = [job for job in found if not states or job.state in states]
    shown = shown if everything else shown[:limit]
    begun = session.client.unfinished()
    session.result({"jobs": [job_json(job) for job in shown], "unfinished": [_begun_json(one) for one in begun],
                    "damaged_rows": len(begun.damaged)})  # fmt: skip
    if begun.damaged:
        session.say(f"warning: skipped {len(begun.damaged)} damaged ledger rows; run: cloudtune ledger check",
                    even_quiet=True)  # fmt: skip
    if session.json:
        return
    if session.quiet:
        for job in shown:
            session.put(str(job.ref))
        return
    if shown:
        _show(shown)
    else:
        session.say("no jobs yet; create one with: cloudtune run SPEC" if not states else "no jobs match")
    for attempt in begun:
        session.say(f"{attempt.name} on {attempt.backend}: the submission started at {attempt.begun_at} is not "
                    "finished; submit again to continue it")  # fmt: skip


def _show(jobs: list[JobSnapshot]) -> None:
    from cloudtune.cli.render import ago, table
    from cloudtune.cli.render_job import progress_text

    rows = [
        [job.ref.id, job.state, progress_text(job), job.ref.backend, _model(job.model), ago(job.created_at),
         job.problem.message.partition("\n")[0] if job.problem else job.detail, job.ref]
        for job in jobs
    ]  # fmt: skip
    columns = ["ID", "STATE", "STEP", "BACKEND", "MODEL", "CREATED", "DETAIL", "REF"]
    if sys.stdout.isatty():  # an id identifies a job, and references are long
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    table(columns, rows, right=("STEP",))


def _model(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2] if name.startswith("/") else name


def _begun_json(attempt: Any) -> dict[str, Any]:
    return {"name": attempt.name, "backend": attempt.backend, "begun_at": attempt.begun_at, "token": attempt.token}
