"""``cloudtune submit``: submit a job without waiting for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.cli.options import command, spec_argument, trust_option, trust_reward_option

if TYPE_CHECKING:
    from cloudtune.cli.session import Session


@command("submit")
@spec_argument
@trust_option
@trust_reward_option
def submit(
    session: Session, spec: str, sets: tuple[str, ...], unsupported: str | None, again: bool, resume: bool,
    accept_unknown_cost: bool,
    trust_remote_code: bool, trust_reward: bool,
) -> None:  # fmt: skip
    """Submit a job and print its reference.

    Submitting the same spec and data again returns the existing job. SPEC is a YAML, JSON or TOML file. - reads
    standard input.
    """
    from cloudtune.cli.follow import planned, submitted
    from cloudtune.cli.render_job import job_json
    from cloudtune.cli.render_plan import warnings_text

    made = planned(
        session,
        session.open_spec(spec, sets, unsupported),
        again=again,
        resume=resume,
        accept_unknown_cost=accept_unknown_cost,
    )
    if made.warnings:
        session.say(warnings_text(made.warnings))
    job = submitted(
        session,
        made,
        trust_remote_code=trust_remote_code,
        trust_reward=trust_reward,
        accept_unknown_cost=accept_unknown_cost,
    )
    if session.json:
        session.result(job_json(job.snapshot()))
    session.say(f"watch it with: cloudtune watch {job.ref}")
