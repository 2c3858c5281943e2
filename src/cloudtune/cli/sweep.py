"""``cloudtune sweep``: delete deployments that are past their time to live."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudtune.cli.options import command

if TYPE_CHECKING:
    from cloudtune.cli.session import Session


@command("sweep")
@click.option("--apply", is_flag=True, help="Delete them. Default: only list them.")
def sweep(session: Session, apply: bool) -> None:
    """Delete the deployments that are past the time to live of `cloudtune deploy --ttl`. Without --apply, list them.

    The ledger that made a deployment knows its time to live, so use the same ledger; other deployments are never
    deleted. Exits with 1 if a back end does not respond or a deployment cannot be deleted. Run it regularly, for
    example from cron.
    """
    from cloudtune.cli.deployments import say_unanswered, show
    from cloudtune.state import to_json

    found = session.client.sweep(backend=session.backend, apply=apply)
    removed = [one.id for one in found if apply and (one.backend, one.scope, one.id) not in found.failed]
    failed = [{"backend": backend, "scope": scope, "id": name, "reason": reason}
              for (backend, scope, name), reason in found.failed.items()]  # fmt: skip
    session.result({
        "expired": [to_json(one) for one in found], "removed": removed, "failed": failed,
        "unanswered": found.unanswered,
    })  # fmt: skip
    say_unanswered(session, found)
    for one in failed:
        session.say(f"warning: {one['id']} on {one['backend']} is not deleted: {one['reason']}", even_quiet=True)
    if apply:
        for name in removed:
            session.put(name)
        session.say(f"deleted {len(removed)} of {len(found)}" if found else "nothing is past its time to live")
    elif not session.json:
        if found:
            show(session, found, session.client.clock.now())
            session.say("to delete them: cloudtune sweep --apply")
        else:
            session.say("nothing is past its time to live")
    if found.failed or found.unanswered:
        click.get_current_context().exit(1)
