"""The trials of searches, in the ledger: each is recorded before its job is submitted, and its outcome once it ended.

A trial's number is taken once, so two processes that run the same search never start one trial with different
parameters. The jobs themselves are attempts of the ledger like all others, and have the name of their trial.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from cloudtune.ledger.rows import DamagedRow, whole
from cloudtune.state import Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune.ledger.ledger import Ledger


class Outcome(Value, frozen=True, kw_only=True):
    """How a trial has ended."""

    state: Literal["complete", "pruned", "failed", "stopped"]
    """``stopped``: cancelled because the time of the search was over."""
    value: float | None = None
    """The metric: the best value of a complete trial, and the value at which a pruned one was cancelled."""
    curve: tuple[tuple[int, float], ...] = ()
    """The metric by step, as far as it decided."""
    ref: str | None = None
    """The job. None if the back end refused the trial."""
    seconds: float = 0.0
    """The run time of the job."""
    message: str = ""
    """Why it failed."""


class Trial(Value, frozen=True, kw_only=True):
    """One training with parameters that a search has chosen."""

    study: str
    number: int
    """0 has the parameters of the spec."""
    rerun: int | None = None
    """The number of the repetition, from 1, of a trial that is trained again with another seed."""
    name: str
    """Of its job."""
    parameters: dict[str, Any]
    """By path."""
    limit_usd: float | None = None
    """The limit of its job's cost, from what the budget had left."""
    committed_usd: float | None = None
    """The most that its job was expected to cost. None if that is unknown."""
    outcome: Outcome | None = None
    """None until it has ended."""


def begin_trial(ledger: Ledger, trial: Trial) -> bool:
    """Record a trial. Returns False, and changes nothing, if the search already has one with that name."""
    with ledger.write("begin trial") as db:
        added = db.execute(
            "INSERT INTO trials (study, name, trial) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (trial.study, trial.name, msgspec.json.encode(trial).decode()),
        )
        return bool(added.rowcount)


def end_trial(ledger: Ledger, trial: Trial, outcome: Outcome) -> None:
    """Record how a trial has ended. The first outcome is final."""
    with ledger.write("end trial") as db:
        db.execute(
            "UPDATE trials SET outcome = ? WHERE study = ? AND name = ? AND outcome IS NULL",
            (msgspec.json.encode(outcome).decode(), trial.study, trial.name),
        )


def trials_of(ledger: Ledger, study: str) -> list[Trial]:
    """All trials of a search by number, those with another seed after them. Raises LedgerError if one is damaged."""
    rows = ledger.store.read("SELECT study, name, trial, outcome FROM trials WHERE study = ?", (study,))
    found = [whole(read_trial(row)) for row in rows]
    return sorted(found, key=lambda one: (one.rerun is not None, one.number, one.rerun or 0))


def read_trial(row: Mapping[str, Any]) -> Trial | DamagedRow:
    """The trial of a row with ``study``, ``name``, ``trial`` and ``outcome``."""
    try:
        trial = msgspec.json.decode(str(row["trial"]), type=Trial)
        outcome = None if row["outcome"] is None else msgspec.json.decode(str(row["outcome"]), type=Outcome)
        if (trial.study, trial.name) == (row["study"], row["name"]):
            return msgspec.structs.replace(trial, outcome=outcome)
        problem = "it belongs to another row"
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        problem = str(error).encode("ascii", "backslashreplace").decode()
    return DamagedRow(table="trials", row=ascii(row["name"]), name=ascii(row["name"]), problems=(problem,))
