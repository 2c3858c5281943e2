"""``cloudtune deploy``: make a tuned model answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cloudtune.cli.options import command, ref_argument, trust_option, yes_option

if TYPE_CHECKING:
    from cloudtune.cli.session import Session
    from cloudtune.plan import Plan
    from cloudtune.state import Deployment


@command("deploy", without=("backend",))
@ref_argument
@click.option("--name", help="What the deployment is to be called; the back end makes a name unless given.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="An option of the back end's own, as "
              "sku=DeveloperTier; may be repeated.")  # fmt: skip
@yes_option
@trust_option
@click.option("--requests", is_flag=True, help="Show the exact requests in the plan.")
def deploy(
    session: Session, ref: str, name: str | None, options: tuple[str, ...], yes: bool, requests: bool,
    trust_remote_code: bool,
) -> None:  # fmt: skip
    """Make the tuned model answer, and wait until it does.

    Shows the plan and asks first: a deployment costs by the hour at most places, idle too. Deployed twice it is the
    same deployment. `cloudtune undeploy` takes it down.
    """
    from cloudtune.cli.render_plan import plan_text
    from cloudtune.cli.run import ask
    from cloudtune.state import to_json

    given = read_options(options) | ({"name": name} if name else {})
    job = session.job(ref)
    need_host(session, job.ref.backend)
    plan = session.client.plan_deploy(job.model(trust_remote_code=trust_remote_code), **given)
    session.say(plan_text(plan, requests=requests))
    session.say()
    if not yes:
        ask("Deploy this?")
    made = _deployed(session, plan)
    session.result(to_json(made) | {"ref": str(job.ref)})
    session.put(made.id)
    session.say(f"{made.state}; ask it, and take it down, with:\n  cloudtune generate {job.ref} 'a prompt'\n"
                f"  cloudtune undeploy {made.id} --backend {made.backend}")  # fmt: skip


def need_host(session: Session, backend: str) -> None:
    """Say why nothing is deployed there, before anything else is asked. Raises UnsupportedError."""
    from cloudtune.errors import UnsupportedError

    capabilities = session.client.backend(backend).capabilities
    if not capabilities.can("verb:deploy"):
        raise UnsupportedError(f"{backend} cannot deploy a model: {capabilities.why_not('verb:deploy')}")


def read_options(texts: tuple[str, ...]) -> dict[str, Any]:
    """KEY=VALUE, values as in a spec file. Raises InputError with all that cannot be read."""
    from cloudtune.document.document import parse_value
    from cloudtune.document.parsed import SyntaxFault
    from cloudtune.errors import InputError, Problem

    found: dict[str, Any] = {}
    problems = []
    for text in texts:
        key, equals, written = text.partition("=")
        if not equals or not key.strip().isidentifier() or not written.strip():
            message, fix = f"{text!r} is not of the form KEY=VALUE", "write for example --option capacity=5"
            problems.append(Problem(code="option", message=message, file="--option", fix=fix))
            continue
        try:
            found[key.strip()] = parse_value(written)
        except SyntaxFault as fault:
            problems.append(Problem(code="option", message=str(fault), file="--option", field=key, fix=fault.fix))
    if problems:
        raise InputError(problems)
    return found


def _deployed(session: Session, plan: Plan) -> Deployment:
    from cloudtune.cli.render_watch import step_line

    def tell(update: Any) -> None:
        if update.what != "begun" or session.verbose:
            session.say(step_line(update))

    return session.client.deploy(plan, on_step=tell)
