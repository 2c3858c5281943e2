"""``cloudtune plan``: everything that submit would do, and none of it done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudtune.cli.options import command, spec_argument

if TYPE_CHECKING:
    from cloudtune.cli.session import Session


@command("plan")
@spec_argument
@click.option("--requests", is_flag=True, help="Show the exact requests too.")
def plan(
    session: Session, spec: str, sets: tuple[str, ...], unsupported: str | None, again: bool, resume: bool,
    requests: bool,
) -> None:  # fmt: skip
    """Show everything that submit would do, and do none of it.

    SPEC is a YAML, JSON or TOML file; - reads the standard input.
    """
    from cloudtune.backend import plan_to_json
    from cloudtune.cli.follow import planned
    from cloudtune.cli.render_plan import plan_text

    made = planned(session, session.open_spec(spec, sets, unsupported), again=again, resume=resume)
    session.result(plan_to_json(made))
    session.put(plan_text(made, requests=requests))
