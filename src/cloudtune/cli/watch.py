"""``cloudtune watch``: follow a job to its end."""

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
    """Follow a job to its end; the exit code says how it ended.

    JOB is a reference, a name, an id or the beginning of one. Ctrl-C leaves the job running (exit code 5).
    """
    from cloudtune.cli.follow import finished, follow

    job = session.job(ref)
    finished(session, job, follow(session, job, waiting))
