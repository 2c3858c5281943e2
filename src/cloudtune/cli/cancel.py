"""``cloudtune cancel``: cancel a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.cli.options import command, ref_argument

if TYPE_CHECKING:
    from cloudtune.cli.session import Session


@command("cancel", without=("backend",))
@ref_argument
def cancel(session: Session, ref: str) -> None:
    """Cancel a job. Has no effect on a job that has already ended."""
    from cloudtune.cli.render_job import job_json

    job = session.job(ref)
    job.cancel()
    snapshot = job.snapshot()
    session.result(job_json(snapshot))
    session.put(str(job.ref))
    session.say(f"state: {snapshot.state}")
