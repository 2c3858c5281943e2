"""``cloudtune pause``: pause a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.cli.options import command, ref_argument

if TYPE_CHECKING:
    from cloudtune.cli.session import Session


@command("pause", without=("backend",))
@ref_argument
def pause(session: Session, ref: str) -> None:
    """Pause a job. Its training state is saved."""
    from cloudtune.cli.render_job import job_json

    job = session.job(ref)
    job.pause()
    snapshot = job.snapshot()
    session.result(job_json(snapshot))
    session.put(str(job.ref))
    session.say(f"state: {snapshot.state}")
