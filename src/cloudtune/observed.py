"""Events for vendors that keep none: made from what a snapshot shows, and marked as such."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.state import Event

if TYPE_CHECKING:
    from cloudtune.state import JobSnapshot


def observed_events(snapshot: JobSnapshot, after: str | None = None) -> list[Event]:
    """What the snapshot tells of the job's past, in order, after that cursor.

    Cursors do not depend on when one looks, so that a reader who comes back misses nothing and sees nothing twice.
    """
    marks = (
        ("1-created", snapshot.created_at, "created"),
        ("2-started", snapshot.started_at, "started"),
        ("3-ended", snapshot.finished_at, f"ended: {snapshot.native_state}"),
    )
    return [
        Event(cursor=cursor, time=time, message=message, type="state", observed=True)
        for cursor, time, message in marks
        if time is not None and (after is None or cursor > after)
    ]
