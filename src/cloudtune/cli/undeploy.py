"""``cloudtune undeploy``: take a deployment down."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudtune.cli.options import command, yes_option

if TYPE_CHECKING:
    from cloudtune.cli.session import Session
    from cloudtune.state import Deployment


@command("undeploy")
@click.argument("deployment", metavar="ID")
@yes_option
def undeploy(session: Session, deployment: str, yes: bool) -> None:
    """Take a deployment down. The tuned model stays, and can be deployed again. Asks first.

    One that cloudtune has made, and that is not there any more, counts as taken down.
    """
    from cloudtune.cli.run import ask
    from cloudtune.state import to_json

    found = _named(session, deployment)
    if found is None:
        session.result({"id": deployment, "removed": True, "already": True})
        session.put(deployment)
        session.say("it is not there any more: nothing to take down")
        return
    if not yes:
        ask(f"Take {found.id} on {found.backend} ({found.scope}) down, which serves {found.model}?")
    session.client.remove(found)
    session.result(to_json(found) | {"removed": True})
    session.put(found.id)
    session.say("taken down")


def _named(session: Session, name: str) -> Deployment | None:
    """The one deployment of that id, or None if it was there once. Raises InputError."""
    from cloudtune.errors import InputError

    standing = session.client.deployments(backend=session.backend)
    found = [one for one in standing if one.id == name]
    if len(found) > 1:
        raise InputError(f"{name!r} stands on {' and on '.join(one.backend for one in found)}", hint="say --backend")
    if found:
        return found[0]
    known = session.client.ledger.hosted(name, backend=session.backend)
    if known is not None and known.backend not in standing.unanswered:
        return None
    silent = "".join(f"\n{other} did not answer: {why}" for other, why in standing.unanswered.items())
    raise InputError(f"no deployment is called {name!r}{silent}", hint="`cloudtune deployments` lists them")
