"""``cloudtune deployments``: the models that answer now, and what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.cli.options import command

if TYPE_CHECKING:
    from cloudtune.cli.session import Session
    from cloudtune.state import Deployment


@command("deployments")
def deployments(session: Session) -> None:
    """List the deployments that stand now, on one back end or on all that were ever used. -q prints ids alone."""
    from cloudtune.state import to_json

    found = session.client.deployments(backend=session.backend)
    session.result({"deployments": [to_json(one) for one in found], "unanswered": found.unanswered})
    for name, reason in found.unanswered.items():
        session.say(f"{name} was not asked, or did not answer: {reason}", even_quiet=True)
    if session.json:
        return
    if session.quiet:
        for one in found:
            session.put(one.id)
    elif found:
        _show(session, found)
    else:
        session.say("no deployments: cloudtune deploy JOB makes one")


def _show(session: Session, found: list[Deployment]) -> None:
    from cloudtune.cli.render import ago, clock_time, figure, table

    rows = [
        [one.id, one.state, ago(one.created_at),
         f"${figure(one.hourly_cost_usd)}" if one.hourly_cost_usd is not None else "", one.backend, one.model]
        for one in found
    ]  # fmt: skip
    table(["ID", "STATE", "SINCE", "AN HOUR", "BACKEND", "MODEL"], rows, right=("AN HOUR",))
    for one in found:
        if one.ends:
            at = f", at {clock_time(one.ends_at)}" if one.ends_at else ""
            session.say(f"{one.id}: {one.ends}{at}")
