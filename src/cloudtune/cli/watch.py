"""``cloudtune watch``: watch a job until it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.cli.options import command, ref_argument, watch_options

if TYPE_CHECKING:
    from cloudtune.cli.options import Waiting
    from cloudtune.cli.session import Session


@command("watch", without=("backend",))
@ref_argument
@watch_options
def watch(session: Session, ref: str, waiting: Waiting) -> None:
    """Watch a job until it ends. The exit code reports the outcome.

    JOB is a reference, a name, an id or an id prefix. Ctrl-C stops watching and leaves the job running (exit code 5).
    """
    from cloudtune.cli.follow import finished, follow

    job = session.job(ref)
    finished(session, job, follow(session, job, waiting))
