"""A scripted vendor: the operations of a cloud fine-tuning service, and its failures.

It has one of three personalities, which differ in how they prevent a request from creating two jobs:

``token``
    create accepts an idempotency token, and returns the same job for a repeated one. Files are stored under keys.
``unique_names``
    a second job of a name is a conflict. Files are stored under keys, and uploaded in parts.
``neither``
    nothing is enforced, files and jobs are always created, and lists lag. Clients must check before they send.

Time comes from a `Clock`; with a `FakeClock` a job takes no real time. The store can be a file that several processes
share. Client calls go through `request`; everything else is for tests.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from cloudtune.clock import SystemClock
from cloudtune.testing import service
from cloudtune.testing.job_timeline import Act, JobStatus, Script
from cloudtune.testing.service import VendorError
from cloudtune.testing.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtune.clock import Clock
    from cloudtune.testing.faults import Fault

Personality = Literal["token", "unique_names", "neither"]
PERSONALITIES: tuple[Personality, ...] = ("token", "unique_names", "neither")
TIMEOUT_S = 30.0
"""How long a client waits for a response."""


class ScriptedVendor:
    """See the module. ``list_lag_s`` is 30 s for ``neither`` and none for the others, unless given."""

    def __init__(
        self,
        path: Path | None = None,
        *,
        personality: Personality = "token",
        clock: Clock | None = None,
        api_key: str = "scripted-key",
        list_lag_s: float | None = None,
        processing_s: float = 3.0,
        ignores_filter: bool = False,
        script: Script | None = None,
    ) -> None:
        self.clock: Clock = clock or SystemClock()
        self.store = Store(path)
        lag = list_lag_s if list_lag_s is not None else 30.0 if personality == "neither" else 0.0
        self.personality: Personality = self.store.setting("personality", personality)
        self.list_lag_s: float = self.store.setting("list_lag_s", lag)
        self.processing_s: float = self.store.setting("processing_s", processing_s)
        self.ignores_filter: bool = self.store.setting("ignores_filter", ignores_filter)
        self.store.setting("script", script or Script())
        self._api_key = self.store.setting("api_key", api_key)
        self._origin = self.store.setting("origin", [self.clock.now().timestamp(), self.clock.monotonic()])

    def time(self) -> float:
        """The vendor's own time, in seconds since 1970: unlike a client's clock, it never jumps."""
        wall, monotonic = self._origin
        return float(wall + self.clock.monotonic() - monotonic)

    # -- the wire ------------------------------------------------------------------------------------------------

    def request(self, call: str, body: dict[str, Any], *, api_key: str, payload: bytes = b"") -> Any:
        """Handle one request. Raises VendorError. The calls are those of `cloudtune.testing.service`."""
        fault = self._meet(call)
        if fault is not None and fault.kind in ("lost_reply", "twice"):
            self._serve(call, body, payload, api_key)
            if fault.kind == "lost_reply":
                raise VendorError(0, f"{call}: the connection was closed before an answer came")
        if fault is not None and fault.kind == "late":
            return self._serve_late(call, body, payload, fault.seconds)
        if fault is not None:
            self._refuse(call, body, fault, api_key)
        answer = self._serve(call, body, payload, api_key)
        return service.spoilt(answer, fault.kind) if fault else answer

    def _meet(self, call: str) -> Fault | None:
        fault = self.store.take_fault(call)
        if fault is not None and fault.kind == "delay":
            self.clock.sleep(fault.seconds)
        return fault

    def _refuse(self, call: str, body: dict[str, Any], fault: Fault, api_key: str) -> None:
        errors = {
            "reset": VendorError(0, f"{call}: connection reset by peer"),
            "refused": VendorError(0, f"{call}: connection refused", sent=False),
            "throttle": VendorError(429, f"{call}: too many requests", retry_after=fault.seconds or None),
            "server_error": VendorError(503, f"{call}: service unavailable"),
            "forbidden": VendorError(403, f"{call}: the key {api_key} may not do that"),
        }
        if error := errors.get(fault.kind):
            self.store.write_call(call, body, self.time(), acted=False)
            raise error

    def _serve(self, call: str, body: dict[str, Any], payload: bytes, api_key: str) -> Any:
        if api_key != self._api_key:
            raise VendorError(401, f"incorrect API key provided: {api_key}")
        with self.store.transaction():
            now = self.time()
            self._land(now)
            self.store.write_call(call, body, now, acted=True)
            return service.CALLS[call](self, body, payload, now)

    def _serve_late(self, call: str, body: dict[str, Any], payload: bytes, after_s: float) -> Any:
        due = self.time() + TIMEOUT_S + after_s
        with self.store.transaction() as db:
            row = (due, call, msgspec.json.encode(body).decode(), payload)
            db.execute("INSERT INTO late (due, call, body, payload) VALUES (?, ?, ?, ?)", row)
        self.clock.sleep(TIMEOUT_S)
        raise VendorError(0, f"{call}: no answer within {TIMEOUT_S:.0f} s")

    def _land(self, now: float) -> None:
        """Execute the delayed requests that are due."""
        for late in self.store.rows("SELECT * FROM late WHERE due <= ? ORDER BY due", now):
            with self.store.transaction() as db:
                db.execute("DELETE FROM late WHERE seq = ?", (late["seq"],))
            body = msgspec.json.decode(late["body"])
            self.store.write_call(late["call"], body, late["due"], acted=True)
            try:
                service.CALLS[late["call"]](self, body, late["payload"], late["due"])
            except VendorError:
                continue  # no client is waiting for the response

    # -- for tests -----------------------------------------------------------------------------------------------

    def fail(self, call: str, fault: Fault) -> None:
        """Inject a fault into the next calls whose name matches (``create_job``, ``list_*``)."""
        self.store.add_fault(call, fault)

    def heal(self) -> None:
        """Remove the pending faults."""
        with self.store.transaction() as db:
            db.execute("DELETE FROM faults")

    def follow(self, script: Script) -> None:
        """The script of jobs created from now on."""
        self.store.change("script", script)

    def act(self, job: str, kind: str, value: str = "") -> None:
        """Record an act on a job: see `Act`."""
        service.add_act(self, job, Act(self.time(), kind, value))  # type: ignore[arg-type]

    def advance(self, job: str, seconds: float) -> None:
        """Advance the job by that time at once, without advancing the clock."""
        self.act(job, "skip", str(seconds))

    def show(self, job: str, word: str) -> None:
        """Report that status for the job, even an unknown one, until the next act on the job."""
        self.act(job, "show", word)

    def status(self, job: str) -> JobStatus:
        """The job as it is now."""
        return service.life_of(self, service.job_row(self, job), self.time())

    def jobs(self, *, alive: bool = False) -> list[str]:
        """Ids of all jobs ever created, oldest first; ``alive`` excludes stopped and stopping ones."""
        self._settle()
        ids = [row["id"] for row in self.store.rows("SELECT id FROM jobs ORDER BY seq")]
        return [job for job in ids if not alive or self.status(job).word not in ("Stopping", "Stopped")]

    def files(self) -> list[str]:
        """Ids of all files that can be used, oldest first."""
        self._settle()
        return [row["id"] for row in self.store.rows("SELECT id FROM files ORDER BY seq")]

    def file_names(self) -> list[str]:
        """Their names, oldest first: one that comes twice was uploaded twice."""
        self._settle()
        return [row["name"] for row in self.store.rows("SELECT name FROM files ORDER BY seq")]

    def body(self, job: str) -> Any:
        """The request that created the job."""
        return msgspec.json.decode(service.job_row(self, job)["body"])

    def calls(self, call: str = "*") -> int:
        """How many requests were received, by name or shell pattern."""
        return int(self.store.rows("SELECT count(*) AS n FROM calls WHERE call GLOB ?", call)[0]["n"])

    def received(self, call: str = "*") -> list[Any]:
        """Bodies of the executed requests, in order."""
        rows = self.store.rows("SELECT body FROM calls WHERE acted AND call GLOB ? ORDER BY seq", call)
        return [msgspec.json.decode(row["body"]) for row in rows]

    def fingerprint(self) -> str:
        """A hash over its state; read-only requests, and time, do not change it."""
        tables = ("jobs", "files", "uploads", "parts", "deployments")
        held = [[tuple(row.values()) for row in self.store.rows(f"SELECT * FROM {table}")] for table in tables]  # noqa: S608
        return hashlib.sha256(repr(held).encode()).hexdigest()

    def _settle(self) -> None:
        with self.store.transaction():
            self._land(self.time())
