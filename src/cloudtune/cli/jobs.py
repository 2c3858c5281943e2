"""``cloudtune jobs``: the jobs as they stand now."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from cloudtune.cli.options import command

if TYPE_CHECKING:
    from cloudtune.cli.session import Session
    from cloudtune.state import JobSnapshot


@command("jobs")
@click.option("--state", "states", multiple=True, metavar="STATE", help="Only jobs in this state; may be repeated.")
@click.option("--remote", is_flag=True, help="Also jobs that cloudtune did not make, as the back end lists them.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most this many.")
@click.option("--all", "everything", is_flag=True, help="All of them.")
def jobs(session: Session, states: tuple[str, ...], remote: bool, limit: int, everything: bool) -> None:
    """List jobs as they stand now, newest first. -q prints references alone."""
    from cloudtune.cli.render_job import job_json
    from cloudtune.state import JobState

    wrong = [state for state in states if state not in set(JobState)]
    if wrong:
        raise click.BadParameter(f"{wrong[0]!r} is not one of: {', '.join(JobState)}", param_hint="--state")
    most = None if everything or states else limit
    found = session.client.jobs(backend=session.backend, remote=remote, limit=most)
    shown = [job for job in found if not states or job.state in states]
    shown = shown if everything else shown[:limit]
    begun = session.client.unfinished()
    session.result({"jobs": [job_json(job) for job in shown], "unfinished": [_begun_json(one) for one in begun],
                    "damaged_rows": len(begun.damaged)})  # fmt: skip
    if begun.damaged:
        session.say(f"warning: skipped {len(begun.damaged)} damaged rows of the ledger; run: cloudtune ledger check",
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
        session.say("no jobs yet: cloudtune run SPEC makes one" if not states else "no jobs in that state")
    for attempt in begun:
        session.say(f"{attempt.name} on {attempt.backend}: begun at {attempt.begun_at}, its submission is not "
                    "finished; the same submit goes on with it")  # fmt: skip


def _show(jobs: list[JobSnapshot]) -> None:
    from cloudtune.cli.render import ago, table
    from cloudtune.cli.render_job import progress_text

    rows = [
        [job.ref.id, job.state, progress_text(job), job.ref.backend, _model(job.model), ago(job.created_at),
         job.problem.message.partition("\n")[0] if job.problem else job.detail, job.ref]
        for job in jobs
    ]  # fmt: skip
    columns = ["ID", "STATE", "STEP", "BACKEND", "MODEL", "CREATED", "DETAIL", "REF"]
    if sys.stdout.isatty():  # the id is enough to name a job, and the reference is long
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    table(columns, rows, right=("STEP",))


def _model(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2] if name.startswith("/") else name


def _begun_json(attempt: Any) -> dict[str, Any]:
    return {"name": attempt.name, "backend": attempt.backend, "begun_at": attempt.begun_at, "token": attempt.token}
