"""Submit and follow jobs. Shared by `run`, `submit`, `watch` and `logs --follow`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from cloudtune.cli.options import Waiting
    from cloudtune.cli.render_watch import View
    from cloudtune.cli.session import Session
    from cloudtune.document.specfile import SpecFile
    from cloudtune.execute import StepUpdate
    from cloudtune.job import Job
    from cloudtune.plan import Plan
    from cloudtune.spec import JobSpec
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


def finished(
    session: Session, job: Job, snapshot: JobSnapshot, spec: JobSpec | None = None, *, trust_reward: bool = False
) -> None:
    """Print where the model of a succeeded job is and the next commands, and evaluate it if the spec asks for that.

    ``spec``: the job's spec now. Default: the one with which it was submitted.
    """
    from cloudtune.cli.render_job import job_json, model_json

    model = job.model()
    session.say(f"{snapshot.state}; tuned model: {model.uri or model.id}")
    say_next_steps(session, snapshot)
    session.result(job_json(snapshot) | {"model_id": model.id, "result": model_json(model)}
                   | _evaluated(session, job, spec, trust_reward=trust_reward))  # fmt: skip


def _evaluated(session: Session, job: Job, spec: JobSpec | None, *, trust_reward: bool) -> dict[str, Any]:
    """Make the evaluation that the spec asks for, print it, and return it for the JSON object of the command.

    The job has succeeded whatever happens here, so problems are messages, and Ctrl-C stops the evaluation only.
    """
    from cloudtune.cli.evaluate import Progress, say_cost, show_evaluation
    from cloudtune.errors import CloudtuneError
    from cloudtune.evaluation.result import summary

    current = spec or _spec_of(session, job)
    if current is None or current.evaluation is None:
        return {}
    again = f"to continue: cloudtune evaluate {job.ref}"
    try:
        found = session.client.evaluate(
            job,
            spec=spec,
            trust_reward=trust_reward,
            on_progress=Progress(session),
            on_cost=functools.partial(say_cost, session),
        )
    except CloudtuneError as error:
        session.say(f"the job has succeeded, but it is not evaluated: {error}\n{again}", even_quiet=True)
        return {"evaluation": None, "evaluation_error": error.message}
    except KeyboardInterrupt:
        session.say(f"\nthe job has succeeded, but its evaluation is not finished\n{again}", even_quiet=True)
        return {"evaluation": None, "evaluation_error": "interrupted"}
    if not session.json:
        session.put("")
        show_evaluation(session, found)
    return {"evaluation": summary(found)}


def _spec_of(session: Session, job: Job) -> JobSpec | None:
    from cloudtune.errors import LedgerError
    from cloudtune.ledger.rows import spec_of

    try:
        attempt = session.client.ledger.of_ref(job.ref)
        return None if attempt is None else spec_of(attempt.plan)
    except LedgerError:
        return None


def say_next_steps(session: Session, snapshot: JobSnapshot) -> None:
    """Print the commands that apply to the job now."""
    from cloudtune.cli.render_job import next_steps
    from cloudtune.optional import capabilities_of

    can = capabilities_of(session.client.backend(snapshot.ref.backend), snapshot.ref).can
    spec = _spec_of(session, session.client.attach(snapshot.ref))
    method = None if spec is None else spec.method.name
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
