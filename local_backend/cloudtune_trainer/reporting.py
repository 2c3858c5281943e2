"""What the outside sees of a run: status, events and metrics, written as the contract of the run folder says."""

from __future__ import annotations

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
"""Within one state the status is written at most this often: a tiny model makes hundreds of steps a second."""
_RESERVED = 65536
"""Bytes kept back on the disk while the run lives, so that a full disk can still be told of."""


class Report:
    """Writes one run's story. ``silent`` ones, for all processes of a group but the first, write nothing."""

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
        """A new state; always written, and durable when this returns."""
        changed = not self._written or state != self._status["state"] or detail != self._status["detail"]
        self._status |= {"state": state, "detail": detail, **fields}
        if state in FINAL_STATES:
            self._reserve.unlink(missing_ok=True)
            self._status |= {"finished_at": now(), "eta_s": None}
        if changed:
            # The event first: whoever sees the last status may stop looking.
            self._try_event("state", f"{state}: {detail}" if detail else state, state=state)
        self._write(durable=state in FINAL_STATES)

    def progress(self, **fields: Any) -> None:
        """Figures within a state; written now and then."""
        self._status |= fields
        if time.monotonic() - self._written >= _STATUS_EVERY_S:
            self._write(durable=False)

    def event(self, kind: str, message: str, *, level: str = "info", **data: Any) -> None:
        """Something that happened."""
        if not self._silent:
            line = {"time": now(), "type": kind, "level": level, "message": message, "data": data}
            append_line(self._run.events, line)

    def warning(self, message: str, **data: Any) -> None:
        """Something that the user should know of, though the run goes on."""
        self.event("warning", message, level="warning", **data)

    def metrics(self, step: int, epoch: float, split: str, values: dict[str, float]) -> None:
        """Figures at a step. What is not finite is left out: JSON has no word for it."""
        if not self._silent:
            finite = {name: value for name, value in values.items() if math.isfinite(value)}
            line = {"time": now(), "step": step, "epoch": round(epoch, 6), "split": split, "values": finite}
            append_line(self._run.metrics, line)

    def failed(self, problem: TrainingProblem) -> None:
        """The end, with its reason; also where the disk takes no event any more."""
        reason: dict[str, Any] = {"code": problem.code, "message": problem.message, "hint": problem.hint}
        if problem.interrupted:
            reason["interrupted"] = True
        self._status |= {"problem": reason}
        self._reserve.unlink(missing_ok=True)  # should the disk be full, this is the room for the last word
        self._try_event("error", problem.message, level="error", code=problem.code, hint=problem.hint)
        self.state("failed", problem.message)

    def _try_event(self, kind: str, message: str, *, level: str = "info", **data: Any) -> None:
        """An event that must not stand in the way of the status, should the disk be full."""
        try:
            self.event(kind, message, level=level, **data)
        except OSError as error:
            sys.stderr.write(f"cannot write the event: {error}\n")

    def _write(self, *, durable: bool) -> None:
        self._status["updated_at"] = now()
        self._written = time.monotonic()
        if not self._silent:
            write_json(self._run.status, self._status, durable=durable)
