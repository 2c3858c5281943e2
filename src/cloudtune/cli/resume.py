"""``cloudtune resume``: resume a paused job, or continue one that has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.cli.options import accept_unknown_cost_option, command, ref_argument

if TYPE_CHECKING:
    from cloudtune.cli.session import Session


@command("resume", without=("backend",))
@ref_argument
@accept_unknown_cost_option
def resume(session: Session, ref: str, *, accept_unknown_cost: bool) -> None:
    """Resume a paused job, or continue one that has ended.

    To continue a job that has ended, a new job starts from its newest valid checkpoint. The reference of the new job
    is printed.
    """
    from cloudtune.cli.render_job import job_json

    job = session.job(ref)
    going = job.resume(accept_unknown_cost=accept_unknown_cost)
    snapshot = going.snapshot()
    session.result(job_json(snapshot))
    session.put(str(going.ref))
    how = "a new job continues from its newest valid checkpoint" if going.ref != job.ref else f"state: {snapshot.state}"
    session.say(f"{how}\nfollow it with: cloudtune watch {going.ref}")
