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
    """Take a deployment down. The tuned model stays, and can be deployed again. Asks first."""
    from cloudtune.cli.run import ask
    from cloudtune.state import to_json

    found = _named(session, deployment)
    if not yes:
        ask(f"Take {found.id} on {found.backend} ({found.scope}) down, which serves {found.model}?")
    session.client.remove(found)
    session.result(to_json(found) | {"removed": True})
    session.put(found.id)
    session.say("taken down")


def _named(session: Session, name: str) -> Deployment:
    """The one deployment of that id. Raises InputError."""
    from cloudtune.errors import InputError

    standing = session.client.deployments(backend=session.backend)
    found = [one for one in standing if one.id == name]
    if len(found) > 1:
        raise InputError(f"{name!r} stands on {' and on '.join(one.backend for one in found)}", hint="say --backend")
    if not found:
        silent = "".join(f"\n{other} did not answer: {why}" for other, why in standing.unanswered.items())
        raise InputError(f"no deployment is called {name!r}{silent}", hint="`cloudtune deployments` lists them")
    return found[0]
