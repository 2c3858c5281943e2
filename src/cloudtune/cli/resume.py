"""``cloudtune resume``: let a paused job go on, or continue an ended one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.cli.options import command, ref_argument

if TYPE_CHECKING:
    from cloudtune.cli.session import Session


@command("resume", without=("backend",))
@ref_argument
def resume(session: Session, ref: str) -> None:
    """Let a paused job go on, or continue an ended one.

    An ended job is continued from its newest good checkpoint by a new job, whose reference is printed.
    """
    from cloudtune.cli.render_job import job_json

    job = session.job(ref)
    going = job.resume()
    snapshot = going.snapshot()
    session.result(job_json(snapshot))
    session.put(str(going.ref))
    how = "a new job goes on from its newest good checkpoint" if going.ref != job.ref else f"it is {snapshot.state} now"
    session.say(f"{how}\nfollow it with: cloudtune watch {going.ref}")
