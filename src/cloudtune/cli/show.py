"""``cloudtune show``: show the details of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.cli.options import command, ref_argument

if TYPE_CHECKING:
    from cloudtune.cli.session import Session


@command("show", without=("backend",))
@ref_argument
def show(session: Session, ref: str) -> None:
    """Show the details of a job: state, progress, times, the error if it failed, and its last evaluation."""
    from cloudtune.cli.follow import say_next_steps
    from cloudtune.cli.render_job import job_json, job_text
    from cloudtune.errors import LedgerError
    from cloudtune.evaluation.result import summary

    job = session.job(ref)
    snapshot = job.snapshot()
    evaluation = None
    try:
        evaluation = session.client.evaluation(job)
    except LedgerError as error:
        session.say(f"warning: {error}", even_quiet=True)
    session.result(job_json(snapshot) | {"evaluation": None if evaluation is None else summary(evaluation)})
    session.put(job_text(snapshot))
    if evaluation is not None:
        session.put(f"\nevaluation of {', '.join(evaluation.data)} ({evaluation.rows:,} rows)\n{evaluation.verdict}")
    say_next_steps(session, snapshot)
