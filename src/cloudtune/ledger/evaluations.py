"""Where evaluations and the answers of models are stored, next to the ledger."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING

from cloudtune.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cloudtune.ledger.ledger import Ledger
    from cloudtune.state import JobRef

BUSY_TIMEOUT_S = 60.0
"""Seconds to wait for another process that writes answers."""
_FORGET = "DELETE FROM answers WHERE instr(char(10) || asked_for || char(10), char(10) || ? || char(10))"


def evaluation_file(ledger: Ledger, ref: JobRef) -> Path:
    """The local file of a job's last evaluation: JSON as ``cloudtune evaluate --json`` prints it."""
    return ledger.folder / "evaluations" / f"{blake2b(str(ref).encode(), digest_size=16).hexdigest()}.json"


def answers_file(ledger: Ledger) -> Path:
    """The local database of all answers. Its table names the jobs for which each answer was asked, one a line."""
    return ledger.folder / "answers" / "answers.db"


@contextmanager
def forget_if_deleted(ledger: Ledger, refs: Sequence[JobRef]) -> Iterator[None]:
    """At the end of the block, delete what evaluations have stored for jobs that were deleted meanwhile."""
    try:
        yield
    finally:
        for ref in refs:
            made = ledger.of_ref(ref)
            if made is not None and made.gone_at is not None:
                forget_evaluation(ledger, ref)


def forget_evaluation(ledger: Ledger, ref: JobRef) -> None:
    """Delete the last evaluation of a job, the answers of its model, and those that it asked its base or a judge for.

    Raises:
        LedgerError: The answers cannot be deleted.
    """
    evaluation_file(ledger, ref).unlink(missing_ok=True)
    path = answers_file(ledger)
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as db:
            db.execute("PRAGMA secure_delete = ON")
            with db:
                db.execute(_FORGET, (str(ref),))
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        hint = "remove the file, and delete the job again"
        raise LedgerError(f"the answers of {ref} in {path} cannot be deleted: {error}", hint=hint) from error
