"""``cloudtune delete``: remove an ended job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.cli.options import command, ref_argument, yes_option

if TYPE_CHECKING:
    from cloudtune.cli.session import Session


@command("delete", without=("backend",))
@ref_argument
@yes_option
def delete(session: Session, ref: str, yes: bool) -> None:
    """Remove an ended job and what it holds: its model, checkpoints and records. Asks first."""
    from cloudtune.cli.run import ask

    job = session.job(ref)
    if not yes:
        ask(f"Delete {job.ref}, with its model and checkpoints?")
    job.delete()
    session.result({"ref": str(job.ref), "deleted": True})
    session.put(str(job.ref))
    session.say("deleted")
