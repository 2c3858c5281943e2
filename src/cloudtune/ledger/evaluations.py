"""The files of the last evaluation of each job, next to the ledger."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtune.ledger.ledger import Ledger
    from cloudtune.state import JobRef


def evaluation_file(ledger: Ledger, ref: JobRef) -> Path:
    """The local file of a job's last evaluation: JSON as ``cloudtune evaluate --json`` prints it."""
    return ledger.folder / "evaluations" / f"{blake2b(str(ref).encode(), digest_size=16).hexdigest()}.json"
