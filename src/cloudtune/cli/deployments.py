"""``cloudtune deployments``: list deployed models and their cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.cli.options import command

if TYPE_CHECKING:
    from cloudtune.cli.session import Session
    from cloudtune.state import Deployment


@command("deployments")
def deployments(session: Session) -> None:
    """List the deployments on one back end, or on all that have been used. -q prints only ids."""
    from cloudtune.state import to_json

    found = session.client.deployments(backend=session.backend)
    session.result({"deployments": [to_json(one) for one in found], "unanswered": found.unanswered})
    for name, reason in found.unanswered.items():
        session.say(f"warning: deployments of {name} are not listed: {reason}", even_quiet=True)
    if session.json:
        return
    if session.quiet:
        for one in found:
            session.put(one.id)
    elif found:
        _show(session, found)
    else:
        session.say("no deployments; create one with: cloudtune deploy JOB")


def _show(session: Session, found: list[Deployment]) -> None:
    from cloudtune.cli.render import ago, clock_time, figure, table

    rows = [
        [one.id, one.state, ago(one.created_at),
         f"${figure(one.hourly_cost_usd)}" if one.hourly_cost_usd is not None else "", one.backend, one.model]
        for one in found
    ]  # fmt: skip
    table(["ID", "STATE", "CREATED", "PER HOUR", "BACKEND", "MODEL"], rows, right=("PER HOUR",))
    for one in found:
        if one.ends:
            at = f", at {clock_time(one.ends_at)}" if one.ends_at else ""
            session.say(f"{one.id}: {one.ends}{at}")
