"""``cloudtune delete``: delete a job that has ended."""

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
    help="Delete only the model, metrics and data, where the vendor keeps job records permanently.",
)
@yes_option
def delete(session: Session, ref: str, contents: bool, yes: bool) -> None:
    """Delete a job that has ended, with its model, checkpoints and records. Prompts for confirmation."""
    from cloudtune.cli.run import ask
    from cloudtune.errors import UnsupportedError

    job = session.job(ref)
    if not yes:
        ask(f"Delete {'the contents of ' if contents else ''}{job.ref}, with its model and checkpoints?")
    try:
        job.clear() if contents else job.delete()
    except UnsupportedError as error:
        if not contents:
            error.hint = f"to delete its contents only: cloudtune delete {job.ref} --contents"
        raise
    session.result({"ref": str(job.ref), "deleted": not contents, "cleared": True})
    session.put(str(job.ref))
    session.say("deleted the contents of the job; its record remains" if contents else "deleted")
