"""Events for vendors without events: derived from a snapshot, and marked as observed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.state import Event

if TYPE_CHECKING:
    from cloudtune.state import JobSnapshot


def observed_events(snapshot: JobSnapshot, after: str | None = None) -> list[Event]:
    """Return the events that follow from the snapshot, in order, after that cursor.

    Cursors do not depend on the time of the call, so a reader that resumes misses nothing and repeats nothing.
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
