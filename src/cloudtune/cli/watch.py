"""``cloudtune watch``: follow a job to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.cli.options import command, ref_argument, watch_options

if TYPE_CHECKING:
    from cloudtune.cli.session import Session


@command("watch", without=("backend",))
@ref_argument
@watch_options
def watch(
    session: Session, ref: str, timeout: float | None, stall_after: float | None, lost_after: float | None
) -> None:
    """Follow a job to its end; the exit code says how it ended.

    JOB is a reference, a name, an id or the beginning of one. Ctrl-C leaves the job running (exit code 5).
    """
    from cloudtune.cli.follow import finished, follow

    job = session.job(ref)
    snapshot = follow(session, job, timeout=timeout, stall_after=stall_after, lost_after=lost_after)
    finished(session, job, snapshot)
