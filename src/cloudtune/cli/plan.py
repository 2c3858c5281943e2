"""``cloudtune plan``: show what submit would do, without doing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudtune.cli.options import all_option, command, spec_argument

if TYPE_CHECKING:
    from cloudtune.cli.session import Session


@command("plan")
@spec_argument
@all_option
@click.option("--requests", is_flag=True, help="Include the exact requests.")
@click.option(
    "--check-remote",
    is_flag=True,
    help="Check whether the vendor would accept the job: identity, permissions, "
    "bucket, model, quota. Exits with 2 if it would not.",
)
def plan(
    session: Session, spec: str, sets: tuple[str, ...], unsupported: str | None, again: bool, resume: bool,
    accept_unknown_cost: bool,
    requests: bool, every: bool, check_remote: bool,
) -> None:  # fmt: skip
    """Show what submit would do, without doing it.

    SPEC is a YAML, JSON or TOML file. - reads standard input.
    """
    from cloudtune.cli.doctor import preflight, put_findings
    from cloudtune.cli.follow import planned
    from cloudtune.cli.render_plan import plan_text
    from cloudtune.plan import plan_to_json

    file = session.open_spec(spec, sets, unsupported)
    made = planned(session, file, again=again, resume=resume, accept_unknown_cost=accept_unknown_cost)
    findings = list(preflight(session, made.backend, file.spec, made)) if check_remote else []
    checks = [{"what": what, "verdict": how, "detail": text} for what, how, text in findings]
    session.result(plan_to_json(made) | ({"checks": checks} if check_remote else {}))
    session.put(plan_text(made, requests=requests, every=every))
    if findings:
        session.put("\nPreflight checks")
        put_findings(session, findings)
    if any(verdict == "bad" for _, verdict, _ in findings):
        click.get_current_context().exit(2)
