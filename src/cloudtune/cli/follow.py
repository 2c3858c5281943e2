"""Submitting and following, as `run`, `submit`, `watch` and `logs --follow` share it."""

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
"""Exit code of a watch that was left: the job goes on."""
STALL_AFTER_S = 600.0


def planned(session: Session, file: SpecFile, *, again: bool, resume: bool) -> Plan:
    """Plan the spec; what is wrong with it is told with the line of its file."""
    from cloudtune.errors import InputError

    try:
        return session.client.plan(file.spec, backend=session.config.insisted_backend, again=again, resume=resume)
    except InputError as error:
        error.problems = tuple(file.placed(problem) for problem in error.problems)
        error.message = "\n".join(map(str, error.problems))
        raise


def submitted(session: Session, plan: Plan, *, trust_remote_code: bool = False) -> Job:
    """Submit the plan, telling of its steps, and print the reference."""
    from cloudtune.cli.render_watch import step_line

    begun = False

    def tell(update: StepUpdate) -> None:
        nonlocal begun
        begun = True
        if update.what != "begun" or session.verbose:
            session.say(step_line(update))

    job = session.client.submit(plan, trust_remote_code=trust_remote_code, on_step=tell)
    if not begun:
        session.say("submitted before: this is the same job (--again makes another one once it has ended)")
    session.put(str(job.ref))
    return job


def follow(session: Session, job: Job, waiting: Waiting) -> JobSnapshot:
    """Show the job until it ends well; its other ends are raised. Ctrl-C leaves the job alone and exits."""
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
    """Tell of a job that succeeded: where its model is, and what can be done with it."""
    from cloudtune.cli.render_job import job_json, model_json, next_steps
    from cloudtune.optional import capabilities_of

    model = job.model()
    session.result(job_json(snapshot) | {"model_id": model.id, "result": model_json(model)})
    session.say(f"{snapshot.state}; tuned model: {model.uri or model.id}")
    can = capabilities_of(session.client.backend(snapshot.ref.backend), snapshot.ref).can
    for line in next_steps(snapshot, can):
        session.say(f"  {line}")


def _view(session: Session) -> View:
    from cloudtune.cli.render_watch import LiveView, PlainView

    return LiveView() if session.live else PlainView(session.say)


def _detach(session: Session, job: Job, last: JobSnapshot | None) -> None:
    from cloudtune.cli.render_job import job_json

    session.say(f"\nleft {job.ref}: it goes on\ncome back with: cloudtune watch {job.ref}\n"
                f"stop it with:   cloudtune cancel {job.ref}", even_quiet=True)  # fmt: skip
    session.result((job_json(last) if last else {"ref": str(job.ref)}) | {"detached": True})
    click.get_current_context().exit(DETACHED)
