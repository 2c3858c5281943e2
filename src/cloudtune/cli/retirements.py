"""``cloudtune retirements``: what stops working, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudtune.cli.options import Duration, command

if TYPE_CHECKING:
    from cloudtune.cli.session import Session


@command("retirements")
@click.argument("specs", nargs=-1, metavar="[SPEC]...")
@click.option("--all", "everything", is_flag=True, help="Also list every model and service of the catalogs.")
@click.option("--within", type=Duration(), metavar="TIME", help="Only dates until then, e.g. 90d, and past ones.")
def retirements(session: Session, specs: tuple[str, ...], everything: bool, within: float | None) -> None:
    """List by date which tuned models and specs stop working.

    Tuned models are those of the ledger's jobs, except jobs that are recorded as failed or cancelled. SPEC is a spec
    file.
    """
    from cloudtune.cli.render import table
    from cloudtune.ledger.costs import job_costs
    from cloudtune.retirements import of_catalogs, of_jobs, of_spec
    from cloudtune.state import to_json

    client, today = session.client, session.client.clock.now().date()
    jobs = job_costs(client.ledger, backend=session.backend)
    names = {job.attempt.backend for job in jobs}
    elsewhere = {(name, service.scope) for name in names if (service := session.service_of(name)) is not None}
    found = list(of_jobs(jobs, elsewhere=elsewhere))
    for path in specs:
        spec = session.open_spec(path, (), None).spec
        backend = session.config.insisted_backend or spec.backend or session.config.backend
        if session.service_of(backend) is None:
            found += of_spec(path, backend, spec.model_for(backend) or "", spec.method.name)
    if everything:
        found += of_catalogs([session.backend] if session.backend else None)
    shown = sorted(
        (one for one in found if within is None or (one.on - today).total_seconds() <= within),
        key=lambda one: (one.on, one.backend, one.name),
    )
    session.result({"retirements": [to_json(one) | {"days": (one.on - today).days} for one in shown],
                    "damaged_rows": len(jobs.damaged)})  # fmt: skip
    if session.json:
        return
    if not shown:
        session.say("nothing has an end date; --all lists every model and service")
        return
    rows = [[one.on, _left((one.on - today).days), one.kind, one.name, one.backend, one.text] for one in shown]
    table(["DATE", "LEFT", "KIND", "NAME", "BACKEND", "WHAT ENDS"], rows, right=("LEFT",))
    for source in dict.fromkeys(one.source for one in shown):
        session.say(f"source: {source}")


def _left(days: int) -> str:
    return f"{days} d" if days > 0 else "ended"
