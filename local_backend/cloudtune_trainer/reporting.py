"""The visible state of a run: status, events and metrics, written in the format of the run folder."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from typing import TYPE_CHECKING, Any

from cloudtune_trainer.folder import FINAL_STATES, append_line, now, read_json, write_json
from cloudtune_trainer.private_files import opener

if TYPE_CHECKING:
    from cloudtune_trainer.folder import RunFolder
    from cloudtune_trainer.problems import TrainingProblem

_STATUS_EVERY_S = 0.5
"""Smallest interval between status writes within one state: a tiny model makes hundreds of steps per second."""
_RESERVED = 65536
"""Bytes reserved on the disk during the run, so that a full disk can still be reported."""


class Report:
    """Writes a run's status and events. ``silent`` reporters, for all but a group's first process, write nothing."""

    def __init__(self, run: RunFolder, *, silent: bool = False) -> None:
        self._run = run
        self._silent = silent
        earlier = None if silent else read_json(run.status)
        started = earlier.get("started_at") if isinstance(earlier, dict) else None
        self._status: dict[str, Any] = {
            "state": "starting", "detail": "", "step": 0, "total_steps": None, "epoch": 0.0, "tokens": 0, "eta_s": None,
            "updated_at": now(), "started_at": started or now(), "finished_at": None, "problem": None,
        }  # fmt: skip
        self._written = 0.0
        self._reserve = run.path / ".reserve"
        if not silent:
            with open(self._reserve, "wb", opener=opener) as file:
                file.write(b"\x01" * _RESERVED)

    @property
    def state_word(self) -> str:
        """The state as last written."""
        return str(self._status["state"])

    def state(self, state: str, detail: str = "", **fields: Any) -> None:
        """Enter a new state; always written, and durable on return."""
        changed = not self._written or state != self._status["state"] or detail != self._status["detail"]
        self._status |= {"state": state, "detail": detail, **fields}
        if state in FINAL_STATES:
            self._reserve.unlink(missing_ok=True)
            self._status |= {"finished_at": now(), "eta_s": None}
        if changed:
            # The event first: readers may stop at the final status.
            self._try_event("state", f"{state}: {detail}" if detail else state, state=state)
        self._write(durable=state in FINAL_STATES)

    def progress(self, **fields: Any) -> None:
        """Update values within a state; written at intervals."""
        self._status |= fields
        if time.monotonic() - self._written >= _STATUS_EVERY_S:
            self._write(durable=False)

    def event(self, kind: str, message: str, *, level: str = "info", **data: Any) -> None:
        """Add an event."""
        if not self._silent:
            line = {"time": now(), "type": kind, "level": level, "message": message, "data": data}
            append_line(self._run.events, line)

    def warning(self, message: str, **data: Any) -> None:
        """Add a warning; the run continues."""
        self.event("warning", message, level="warning", **data)

    def metrics(self, step: int, epoch: float, split: str, values: dict[str, float]) -> None:
        """Write metrics of a step. Values that are not finite are omitted: JSON cannot represent them."""
        if not self._silent:
            finite = {name: value for name, value in values.items() if math.isfinite(value)}
            line = {"time": now(), "step": step, "epoch": round(epoch, 6), "split": split, "values": finite}
            append_line(self._run.metrics, line)

    def failed(self, problem: TrainingProblem) -> None:
        """Write the end with its reason, also if the disk is full."""
        reason: dict[str, Any] = {"code": problem.code, "message": problem.message, "hint": problem.hint}
        if problem.interrupted:
            reason["interrupted"] = True
        self._status |= {"problem": reason}
        self._reserve.unlink(missing_ok=True)  # if the disk is full, this is the space for the final status
        self._try_event("error", problem.message, level="error", code=problem.code, hint=problem.hint)
        self.state("failed", problem.message)

    def _try_event(self, kind: str, message: str, *, level: str = "info", **data: Any) -> None:
        """Add an event; a full disk must not prevent the status from being written."""
        try:
            self.event(kind, message, level=level, **data)
        except OSError as error:
            with contextlib.suppress(OSError):  # the log is on the same disk
                sys.stderr.write(f"cannot write the event: {error}\n")

    def _write(self, *, durable: bool) -> None:
        self._status["updated_at"] = now()
        self._written = time.monotonic()
        if not self._silent:
            write_json(self._run.status, self._status, durable=durable)
