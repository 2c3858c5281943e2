"""``cloudtune run``: plan, confirm, submit and watch a job."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from cloudtune.cli.options import (
    all_option,
    command,
    spec_argument,
    trust_option,
    trust_reward_option,
    watch_options,
    yes_option,
)
from cloudtune.cli.terminal import one_line

if TYPE_CHECKING:
    from cloudtune.cli.options import Waiting
    from cloudtune.cli.session import Session


@command("run")
@spec_argument
@trust_option
@trust_reward_option
@yes_option
@watch_options
@all_option
@click.option("--requests", is_flag=True, help="Include the exact requests in the plan.")
def run(
    session: Session, spec: str, sets: tuple[str, ...], unsupported: str | None, again: bool, resume: bool,
    accept_unknown_cost: bool, yes: bool,
    waiting: Waiting, requests: bool, every: bool, trust_remote_code: bool, trust_reward: bool,
) -> None:  # fmt: skip
    """Plan a job, ask for confirmation, submit it and watch it until it ends.

    SPEC is a YAML, JSON or TOML file. - reads standard input. Ctrl-C stops watching and leaves the job running; run
    the same command again to watch it again.
    """
    from cloudtune.cli.follow import finished, follow, planned, submitted
    from cloudtune.cli.render_plan import plan_text
    from cloudtune.errors import JobCancelled, JobExpired, JobFailed, OutcomeUnknown
    from cloudtune.trust import check_trust

    file = session.open_spec(spec, sets, unsupported)
    made = planned(session, file, again=again, resume=resume, accept_unknown_cost=accept_unknown_cost)
    session.say(plan_text(made, requests=requests, settings=not yes or every or session.verbose > 0, every=every))
    session.say()
    check_trust(made, confirmed=trust_remote_code, reward_confirmed=trust_reward)
    if not yes:
        ask("Submit this?")
    job = submitted(
        session,
        made,
        trust_remote_code=trust_remote_code,
        trust_reward=trust_reward,
        accept_unknown_cost=accept_unknown_cost,
    )
    waiting["stall_after"] = waiting["stall_after"] or file.spec.limits.stall_after
    try:
        snapshot = follow(session, job, waiting)
    except (JobFailed, JobCancelled, JobExpired, OutcomeUnknown) as error:
        retry = f"to continue from its newest valid checkpoint: cloudtune run {spec} --resume; to start over: --again"
        error.hint = f"{error.hint}\n{retry}" if error.hint else retry
        raise
    finished(session, job, snapshot, file.spec, trust_reward=trust_reward)


def ask(question: str) -> None:
    """Prompt for confirmation. Raises PolicyRefused if the user declines or there is no terminal."""
    from cloudtune.errors import PolicyRefused

    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise PolicyRefused(
            "confirmation is required, but this is not an interactive terminal; nothing was done",
            hint="pass --yes to skip the prompt",
        )
    try:
        agreed = click.confirm(one_line(question), err=True)
    except click.Abort:
        agreed = False
    if not agreed:
        raise PolicyRefused("aborted; nothing was done")
