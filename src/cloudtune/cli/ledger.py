"""``cloudtune ledger check``: find and repair damaged ledger rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudtune.cli.options import command

if TYPE_CHECKING:
    from cloudtune.cli.session import Session
    from cloudtune.ledger.check import LedgerReport


@click.group("ledger")
def ledger() -> None:
    """Check and repair the ledger, the local record of jobs."""


@command("check", without=("backend",))
@click.option("--repair", is_flag=True, help="Move damaged rows to a file next to the ledger.")
def check(session: Session, repair: bool) -> None:
    """Read every row of the ledger and list the damaged ones. Exits with 1 if damaged rows remain.

    --repair moves damaged rows to a JSON Lines file; nothing is deleted. To find a job whose row was moved, submit its
    spec again.
    """
    from cloudtune.ledger.check import check_ledger, repair_ledger
    from cloudtune.state import to_json

    client = session.client
    report = repair_ledger(client.ledger, client.clock) if repair else check_ledger(client.ledger)
    session.result({"ok": report.ok, "ledger": str(client.ledger), **to_json(report)})
    if not session.json:
        _show(session, report, str(client.ledger))
    if not report.ok:
        click.get_current_context().exit(1)


def _show(session: Session, report: LedgerReport, name: str) -> None:
    for problem in report.file:
        session.put(f"the file is damaged: {problem}")
    for row in report.rows:
        label = f" ({row.name})" if row.name else ""
        session.put(f"{row.table} row {row.row}{label}: {'; '.join(row.problems)}")
    if report.file:
        session.say(f"restore {name} from a backup, or recover it with: sqlite3 {name} .recover")
    elif report.moved_to:
        session.say(f"moved {len(report.rows)} damaged rows to {report.moved_to}")
        if jobs := sum(row.table == "attempts" for row in report.rows):
            message = f"budgets and `cloudtune cost` do not count {jobs} of them: jobs whose cost is not known anymore"
            session.say(f"warning: {message}; run the same specs again to find these jobs", even_quiet=True)
    elif report.rows:
        session.say("to move them out of the ledger: cloudtune ledger check --repair")
    else:
        session.say(f"all rows of {name} are readable")


ledger.add_command(check)
