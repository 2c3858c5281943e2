"""``cloudtune deployments``: list deployed models, their cost, and when they end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudtune.cli.options import command

if TYPE_CHECKING:
    from datetime import datetime

    from cloudtune.cli.session import Session
    from cloudtune.hosting import Deployments
    from cloudtune.state import TunedModel


@command("deployments")
@click.option("--undeployed", is_flag=True, help="Also list tuned models of the ledger that need a deployment and have "
              "none.")  # fmt: skip
def deployments(session: Session, undeployed: bool) -> None:
    """List the deployments on one back end, or on all that have been used. -q prints only ids.

    SO FAR is the present hourly price since the creation. It is empty if that is unknown.
    """
    from cloudtune.state import to_json

    found = session.client.deployments(backend=session.backend)
    models = session.client.undeployed(found, backend=session.backend) if undeployed else []
    now = session.client.clock.now()
    session.result({
        "deployments": [to_json(one) | {"cost_so_far_usd": one.cost_so_far(now)} for one in found],
        "unanswered": found.unanswered,
    } | ({"undeployed": [to_json(model) for model in models]} if undeployed else {}))  # fmt: skip
    say_unanswered(session, found)
    if session.json:
        return
    if session.quiet:
        for one in found:
            session.put(one.id)
    elif found:
        show(session, found, now)
    else:
        session.say("no deployments; create one with: cloudtune deploy JOB")
    _show_models(session, models)


def say_unanswered(session: Session, found: Deployments) -> None:
    """Name the back ends that did not respond."""
    for name, reason in found.unanswered.items():
        session.say(f"warning: deployments of {name} are not listed: {reason}", even_quiet=True)


def show(session: Session, found: Deployments, now: datetime) -> None:
    """Print deployments as a table, and when each one ends."""
    from cloudtune.cli.render import ago, clock_time, figure, table

    def usd(value: float | None) -> str:
        return "" if value is None else f"${figure(value)}"

    rows = [
        [one.id, one.state, ago(one.created_at), usd(one.hourly_cost_usd), usd(one.cost_so_far(now)), one.backend,
         one.model]
        for one in found
    ]  # fmt: skip
    table(["ID", "STATE", "CREATED", "PER HOUR", "SO FAR", "BACKEND", "MODEL"], rows, right=("PER HOUR", "SO FAR"))
    for one in found:
        if one.ends:
            at = f", at {clock_time(one.ends_at)}" if one.ends_at else ""
            session.say(f"{one.id}: {one.ends}{at}")
        if one.expires_at:
            is_past = one.expires_at <= now
            text = f"its time to live {'ended' if is_past else 'ends'} at {clock_time(one.expires_at)}"
            session.say(f"{one.id}: {text}{'; run: cloudtune sweep' if is_past else ''}")


def _show_models(session: Session, models: list[TunedModel]) -> None:
    if models:
        session.say("\nWithout a deployment")
        for model in models:
            session.say(f"  {model.id}: cloudtune deploy {model.ref}")
