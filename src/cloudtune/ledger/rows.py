"""Converts ledger rows to checked values. An unreadable row is a `DamagedRow`, never another error.

A disk error, an incomplete copy or an editor can damage a row. Lists skip and report such rows. A lookup of one job
raises LedgerError, because ignoring the row could create the job twice.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from cloudtune.backend import Intent
from cloudtune.errors import LedgerError
from cloudtune.plan import Plan, plan_from_json
from cloudtune.processes.identity import Owner
from cloudtune.state import JobRef, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloudtune.spec import JobSpec

T = TypeVar("T")
REMEDY = "run: cloudtune ledger check"
ATTEMPT_COLUMNS = "key, attempt, purpose, token, name, backend, scope, model, ref, gone_at, begun_at, plan"
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError, msgspec.MsgspecError)


class DamagedRow(Value, frozen=True, kw_only=True):
    """A row that cannot be read."""

    table: Literal["attempts", "steps", "costs", "trials"]
    row: str
    """The row's number in the table, its token in ``costs``, or its name in ``trials``."""
    name: str
    """The subject of the row, as far as it is readable."""
    problems: tuple[str, ...]
    """The problems, one string per column."""

    def error(self) -> LedgerError:
        """Return the error for a lookup that needs this row."""
        message = f"row {self.row} of the ledger's table {self.table} is damaged: {'; '.join(self.problems)}"
        return LedgerError(message, hint=REMEDY)


class Rows(list[T]):
    """The readable rows, with the skipped rows in ``damaged``."""

    def __init__(self, good: list[T] | None = None, damaged: tuple[DamagedRow, ...] = ()) -> None:
        super().__init__(good or [])
        self.damaged = damaged


class Attempt(Value, frozen=True, kw_only=True):
    """One attempt to create a job, or to create or delete a deployment."""

    key: str
    attempt: int
    purpose: Literal["job", "deploy", "remove"] = "job"
    token: str
    name: str
    backend: str
    scope: str
    model: str
    ref: JobRef | None
    """None until the step that creates the job has an outcome."""
    gone_at: str | None
    """When the job was deleted."""
    begun_at: str
    plan: Plan
    """The plan when the attempt started."""


def read_attempt(row: Mapping[str, Any]) -> Attempt | DamagedRow:
    """Return the attempt of a row with ``ATTEMPT_COLUMNS`` and ``seq``."""
    found = dict(row)
    number = found.pop("seq")
    columns = _Columns(found)
    for name in ("key", "token", "name", "backend", "scope", "model"):
        columns.read(name, _text)
    columns.read("purpose", _purpose)
    columns.read("attempt", _whole_number)
    columns.read("ref", _ref, optional=True)
    columns.read("begun_at", _time)
    columns.read("gone_at", _time, optional=True)
    columns.read("plan", lambda text: _plan(text, found))
    if columns.problems:
        return columns.damaged("attempts", number, "name")
    return Attempt(**columns.values)


def read_step(row: Mapping[str, Any]) -> dict[str, Any] | DamagedRow:
    """Return the columns of a step, with ``notes``, ``outputs`` and ``owner`` decoded. The row has ``row_id``."""
    found = dict(row)
    number = found.pop("row_id")
    columns = _Columns(found)
    for name in ("token", "step"):
        columns.read(name, _text)
    for name in ("begun_at", "touched_at"):
        columns.read(name, _time)
    for name in ("sent_at", "done_at"):
        columns.read(name, _time, optional=True)
    columns.read("sends", _count)
    columns.read("notes", _object)
    columns.read("outputs", _object, optional=True)
    columns.read("owner", Owner.load, optional=True)
    if columns.problems:
        return columns.damaged("steps", number, "step")
    return columns.values


def read_ref(row: Mapping[str, Any]) -> JobRef | DamagedRow:
    """Return the reference of a row with ``seq`` and ``ref``."""
    columns = _Columns(row)
    columns.read("ref", _ref)
    return columns.damaged("attempts", row["seq"], "ref") if columns.problems else columns.values["ref"]


def to_intent(step: Mapping[str, Any]) -> Intent:
    """Return a step's record of its sends."""
    return msgspec.convert({name: step[name] for name in ("begun_at", "sent_at", "sends", "notes")}, Intent)


def spec_of(plan: Plan) -> JobSpec:
    """Return the spec of a stored plan. Raises LedgerError if it is damaged."""
    from cloudtune.spec import JobSpec

    try:
        return JobSpec.model_validate(plan.spec)
    except ValueError as error:  # pydantic's error is a ValueError
        message = f"the spec of {plan.name}, attempt {plan.attempt}, is damaged in the ledger"
        raise LedgerError(message, hint="submit its spec file with --again") from error


def whole(found: T | DamagedRow) -> T:
    """Return the value. Raises LedgerError for a damaged row."""
    if isinstance(found, DamagedRow):
        raise found.error()
    return found


def sorted_out(found: list[T | DamagedRow]) -> Rows[T]:
    """Return the readable rows, with the damaged ones separately."""
    good = [one for one in found if not isinstance(one, DamagedRow)]
    return Rows(good, tuple(one for one in found if isinstance(one, DamagedRow)))


class _Columns:
    """The columns of one row, with all problems found."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self._row = row
        self.values: dict[str, Any] = {}
        self.problems: list[str] = []

    def read(self, name: str, reader: Callable[[Any], Any], *, optional: bool = False) -> None:
        try:
            value = self._row[name]  # KeyError: the damage is in the table's definition
            self.values[name] = None if optional and value is None else reader(value)
        except _UNREADABLE as error:
            self.problems.append(f"{name}: {_shown(error)}")

    def damaged(self, table: Literal["attempts", "steps"], number: Any, label: str) -> DamagedRow:
        return DamagedRow(
            table=table, row=str(number), name=str(self.values.get(label, "")), problems=tuple(self.problems)
        )


def _shown(error: BaseException) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0][:200].encode("ascii", "backslashreplace").decode()


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text expected, {type(value).__name__} found")
    value.encode()  # raises for bytes that are not UTF-8
    return value


def _purpose(value: Any) -> str:
    if value not in ("job", "deploy", "remove"):
        raise ValueError("must be job, deploy or remove")
    return str(value)


def _count(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError("a count expected")
    return value


def _whole_number(value: Any) -> int:
    if _count(value) < 1:
        raise ValueError("a number from 1 expected")
    return int(value)


def _time(value: Any) -> str:
    if datetime.fromisoformat(_text(value)).tzinfo is None:
        raise ValueError("a time with its zone expected")
    return str(value)


def _ref(value: Any) -> JobRef:
    return JobRef.parse(_text(value))


def _object(value: Any) -> dict[str, Any]:
    return msgspec.json.decode(_text(value), type=dict[str, Any])


def _plan(value: Any, row: Mapping[str, Any]) -> Plan:
    plan = plan_from_json(msgspec.json.decode(_text(value)))
    differing = [name for name in ("key", "attempt", "purpose", "token", "backend") if getattr(plan, name) != row[name]]
    if differing:
        raise ValueError(f"it differs from the row in {', '.join(differing)}")
    if plan.parent is not None:
        JobRef.parse(plan.parent)
    return plan
