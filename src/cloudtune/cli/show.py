"""``cloudtune show``: one job, everything that is known of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.cli.options import command, ref_argument

if TYPE_CHECKING:
    from cloudtune.cli.session import Session


@command("show", without=("backend",))
@ref_argument
def show(session: Session, ref: str) -> None:
    """Show one job: state, progress, times, and what went wrong if anything did."""
    from cloudtune.cli.render_job import job_json, job_text, next_steps
    from cloudtune.optional import capabilities_of

    snapshot = session.job(ref).snapshot()
    session.result(job_json(snapshot))
    session.put(job_text(snapshot))
    can = capabilities_of(session.client.backend(snapshot.ref.backend), snapshot.ref).can
    for line in next_steps(snapshot, can):
        session.say(f"  {line}")
