"""Submit and follow jobs. Shared by `run`, `submit`, `watch` and `logs --follow`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cloudtune.cli.options import Waiting
    from cloudtune.cli.render_watch import View
    from cloudtune.cli.session import Session
    from cloudtune.document.specfile import SpecFile
    from cloudtune.execute import StepUpdate
    from cloudtune.job import Job
    from cloudtune.plan import Plan
    from cloudtune.state import JobSnapshot

DETACHED = 5
"""Exit code when the user stops watching. The job keeps running."""
STALL_AFTER_S = 600.0


def planned(session: Session, file: SpecFile, *, again: bool, resume: bool, accept_unknown_cost: bool) -> Plan:
    """Plan the spec. Problems are reported with their line in the file."""
    from cloudtune.errors import InputError

    try:
        return session.client.plan(
            file.spec, backend=session.config.insisted_backend, again=again, resume=resume,
            accept_unknown_cost=accept_unknown_cost,
        )  # fmt: skip
    except InputError as error:
        error.problems = tuple(file.placed(problem) for problem in error.problems)
        error.message = "\n".join(map(str, error.problems))
        raise


def submitted(
    session: Session, plan: Plan, *, trust_remote_code: bool = False, trust_reward: bool = False,
    accept_unknown_cost: bool = False,
) -> Job:  # fmt: skip
    """Submit the plan, report its steps and print the job's reference."""
    from cloudtune.cli.render_watch import step_line

    begun = False

    def tell(update: StepUpdate) -> None:
        nonlocal begun
        begun = True
        if update.what != "begun" or session.verbose:
            session.say(step_line(update))

    job = session.client.submit(
        plan, trust_remote_code=trust_remote_code, trust_reward=trust_reward,
        accept_unknown_cost=accept_unknown_cost, on_step=tell,
    )  # fmt: skip
    if not begun:
        session.say("already submitted: this is the existing job (after it ends, --again creates a new one)")
    session.put(str(job.ref))
    return job


def follow(session: Session, job: Job, waiting: Waiting) -> JobSnapshot:
    """Follow the job until it succeeds. Raises if it fails or is cancelled. Ctrl-C exits and leaves the job running."""
    from cloudtune.watch import LOST_AFTER_S

    last: JobSnapshot | None = None
    try:
        with _view(session) as view:
            for update in job.watch(
                timeout=waiting["timeout"],
                stall_after=waiting["stall_after"] or STALL_AFTER_S,
                lost_after=waiting["lost_after"] or LOST_AFTER_S,
                cancel_after=waiting["cancel_after"],
            ):
                last = update.snapshot
                view.update(update)
    except KeyboardInterrupt:
        _detach(session, job, last)
    assert last is not None
    return last


def finished(session: Session, job: Job, snapshot: JobSnapshot) -> None:
    """Print where the model of a succeeded job is, and the next commands."""
    from cloudtune.cli.render_job import job_json, model_json

    model = job.model()
    session.result(job_json(snapshot) | {"model_id": model.id, "result": model_json(model)})
    session.say(f"{snapshot.state}; tuned model: {model.uri or model.id}")
    say_next_steps(session, snapshot)


def say_next_steps(session: Session, snapshot: JobSnapshot) -> None:
    """Print the commands that apply to the job now."""
    from cloudtune.cli.render_job import next_steps
    from cloudtune.errors import LedgerError
    from cloudtune.ledger.rows import spec_of
    from cloudtune.optional import capabilities_of

    can = capabilities_of(session.client.backend(snapshot.ref.backend), snapshot.ref).can
    try:
        attempt = session.client.ledger.of_ref(snapshot.ref)
        method = spec_of(attempt.plan).method.name if attempt is not None else None
    except LedgerError:
        method = None
    for line in next_steps(snapshot, can, method):
        session.say(f"  {line}")


def _view(session: Session) -> View:
    from cloudtune.cli.render_watch import LiveView, PlainView

    return LiveView() if session.live else PlainView(session.say)


def _detach(session: Session, job: Job, last: JobSnapshot | None) -> None:
    from cloudtune.cli.render_job import job_json

    session.say(f"\n{job.ref} is still running\nwatch it again: cloudtune watch {job.ref}\n"
                f"cancel it:      cloudtune cancel {job.ref}", even_quiet=True)  # fmt: skip
    session.result((job_json(last) if last else {"ref": str(job.ref)}) | {"detached": True})
    click.get_current_context().exit(DETACHED)
