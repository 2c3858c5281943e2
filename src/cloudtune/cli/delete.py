"""``cloudtune delete``: remove an ended job."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudtune.cli.options import command, ref_argument, yes_option

if TYPE_CHECKING:
    from cloudtune.cli.session import Session


@command("delete", without=("backend",))
@ref_argument
@click.option(
    "--contents",
    is_flag=True,
    help="Only its model, figures and rows, where the vendor keeps the record of every job for ever.",
)
@yes_option
def delete(session: Session, ref: str, contents: bool, yes: bool) -> None:
    """Remove an ended job and what it holds: its model, checkpoints and records. Asks first."""
    from cloudtune.cli.run import ask
    from cloudtune.errors import UnsupportedError

    job = session.job(ref)
    if not yes:
        ask(f"Delete {'what is left of ' if contents else ''}{job.ref}, with its model and checkpoints?")
    try:
        job.clear() if contents else job.delete()
    except UnsupportedError as error:
        if not contents:
            error.hint = f"what it holds can be removed: cloudtune delete {job.ref} --contents"
        raise
    session.result({"ref": str(job.ref), "deleted": not contents, "cleared": True})
    session.put(str(job.ref))
    session.say("its contents are deleted; its record stays" if contents else "deleted")
