"""Each causal family of transformers trains, packs, answers, merges and resumes correctly, or is refused.

The table in ``local_backend/FAMILIES.md`` is what the checks find. CLOUDTUNE_UPDATE_SNAPSHOTS=1 writes it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .conftest import Runs
from .families import FAMILIES, write_family
from .family_checks import CHECKS, REASON, Family

TABLE = Path(__file__).parents[3] / "local_backend" / "FAMILIES.md"
FAST = "lfm2"
"""In every test run, because its convolutions can mix documents. The other families belong to the long counts."""
_FIRST_CELL = "| family |"


def rows() -> dict[str, list[str]]:
    """Family -> its cells in the table."""
    if not TABLE.is_file():
        return {}
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {cell[0].strip("`"): cell[1:] for cell in cells}


def write(table: dict[str, list[str]]) -> None:
    """Put the rows into the document, behind what is before its table."""
    text = TABLE.read_text(encoding="utf-8") if TABLE.is_file() else ""
    columns = [*CHECKS, REASON]
    head = [f"{_FIRST_CELL} {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines = [f"| `{family}` | {' | '.join(table[family])} |" for family in sorted(table)]
    TABLE.write_text("\n".join([text.partition(_FIRST_CELL)[0].rstrip("\n"), "", *head, *lines, ""]), encoding="utf-8")


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set", "ignore:Input and output embeddings are no longer tied")
@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name == FAST else pytest.mark.soak) for name in FAMILIES]
)
def test_family_is_trained_correctly_or_refused(family: str, tmp_path: Path) -> None:
    base = write_family(tmp_path / "base", family)
    found = Family(base, Runs(tmp_path / "runs", base)).check()
    declined = REASON in found
    cells = ["refused" if declined or found[name].startswith("refused") else found[name] for name in CHECKS]
    reasons = [text.removeprefix("refused: ") for name, text in found.items() if name == REASON or "refused" in text]
    row = [*cells, "; ".join(reasons)]
    table = rows()
    if os.environ.get("CLOUDTUNE_UPDATE_SNAPSHOTS"):
        write(table | {family: row})
    else:
        assert row == table.get(family, [f"{TABLE.name} has no row"])
