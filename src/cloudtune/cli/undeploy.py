"""``cloudtune undeploy``: delete a deployment."""

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
    """Delete a deployment. The tuned model is kept and can be deployed again. Prompts for confirmation.

    Succeeds if cloudtune created the deployment and it no longer exists.
    """
    from cloudtune.cli.run import ask
    from cloudtune.state import to_json

    found = _named(session, deployment)
    if found is None:
        session.result({"id": deployment, "removed": True, "already": True})
        session.put(deployment)
        session.say("the deployment no longer exists; nothing to delete")
        return
    if not yes:
        ask(f"Delete deployment {found.id} on {found.backend} ({found.scope}), which serves {found.model}?")
    session.client.remove(found)
    session.result(to_json(found) | {"removed": True})
    session.put(found.id)
    session.say("deleted")


def _named(session: Session, name: str) -> Deployment | None:
    """Return the deployment with that id, or None if it no longer exists. Raises InputError."""
    from cloudtune.errors import InputError
    from cloudtune.ledger.deployments import newest_attempt

    standing = session.client.deployments(backend=session.backend)
    found = [one for one in standing if one.id == name]
    if len(found) > 1:
        raise InputError(
            f"{name!r} exists on several back ends: {', '.join(one.backend for one in found)}",
            hint="choose one with --backend",
        )
    if found:
        return found[0]
    known = newest_attempt(session.client.ledger, name, backend=session.backend)
    if known is not None and known.backend not in standing.unanswered:
        return None
    silent = "".join(f"\n{other} did not respond: {why}" for other, why in standing.unanswered.items())
    raise InputError(f"no deployment named {name!r}{silent}", hint="run `cloudtune deployments` to list deployments")
