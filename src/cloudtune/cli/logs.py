"""``cloudtune logs``: print the events of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cloudtune.cli.options import Duration, command, ref_argument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune.cli.session import Session
    from cloudtune.state import Event


@command("logs", without=("backend",))
@ref_argument
@click.option("-f", "--follow", is_flag=True, help="Follow until the job ends. The exit code reports the outcome.")
@click.option("--after", metavar="CURSOR", help="Only events after this cursor (see --json).")
@click.option(
    "--timeout", type=Duration(), metavar="TIME", help="With --follow: stop after this duration (exit code 5)."
)
def logs(session: Session, ref: str, follow: bool, after: str | None, timeout: float | None) -> None:
    """Print the events of a job, oldest first."""
    job = session.job(ref)
    if not follow:
        events = job.events(after)
        session.result({"ref": str(job.ref), "events": _json(events)})
        for event in events:
            session.put(line(event))
        return
    if after is not None:
        raise click.UsageError("--follow starts at the first event and cannot be combined with --after")
    seen: list[Event] = []
    try:
        for update in job.watch(timeout=timeout):
            seen += update.events
            for event in update.events:
                session.put(line(event))
    except KeyboardInterrupt:
        from cloudtune.cli.follow import DETACHED

        session.say(f"\n{job.ref} is still running", even_quiet=True)
        click.get_current_context().exit(DETACHED)
    session.result({"ref": str(job.ref), "events": _json(seen)})


def line(event: Event) -> str:
    """Return the time, the level unless it is info, and the message."""
    from cloudtune.cli.render import clock_time
    from cloudtune.cli.terminal import indented

    level = f"{event.level}: " if event.level != "info" else ""
    return f"{clock_time(event.time)}  {level}{indented(event.message, 21)}"


def _json(events: Sequence[Event]) -> list[Any]:
    from cloudtune.state import to_json

    return [to_json(event) for event in events]
