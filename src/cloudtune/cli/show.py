"""``cloudtune show``: show the details of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.cli.options import command, ref_argument

if TYPE_CHECKING:
    from cloudtune.cli.session import Session


@command("show", without=("backend",))
@ref_argument
def show(session: Session, ref: str) -> None:
    """Show the details of a job: state, progress, times and, if it failed, the error."""
    from cloudtune.cli.follow import say_next_steps
    from cloudtune.cli.render_job import job_json, job_text

    snapshot = session.job(ref).snapshot()
    session.result(job_json(snapshot))
    session.put(job_text(snapshot))
    say_next_steps(session, snapshot)
