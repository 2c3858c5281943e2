"""``cloudtune import``: bring a model that was trained elsewhere to a back end that answers from it."""

from __future__ import annotations

import hashlib
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from cloudtune.cli.options import command, watch_options, yes_option

if TYPE_CHECKING:
    from cloudtune.backend import InPlace, Plan
    from cloudtune.cli.options import Waiting
    from cloudtune.cli.session import Session
    from cloudtune.errors import Problem
    from cloudtune.execute import StepUpdate
    from cloudtune.importing import Importing
    from cloudtune.job import Job
    from cloudtune.state import JobRef


@command("import", without=("backend",))
@click.argument("source", metavar="JOB|FOLDER|ADDRESS")
@click.option("--to", "to", metavar="NAME", required=True, help="The back end that is to answer from it: bedrock.")
@click.option("--name", metavar="NAME", help="What it is to be called; the job's or the folder's name unless given.")
@click.option("--again", is_flag=True, help="A new attempt, if the last one has ended.")
@click.option("--requests", is_flag=True, help="Show the exact requests in the plan.")
@yes_option
@watch_options
def import_model(
    session: Session, source: str, to: str, name: str | None, again: bool, requests: bool, yes: bool,
    waiting: Waiting,
) -> None:  # fmt: skip
    """Bring a model that was trained elsewhere to a back end, and follow that to its end.

    JOB is one whose weights can be taken away: where they lie within the back end's reach they are handed over by
    their address, else they are merged and written out first. FOLDER holds safetensors, config.json and the tokenizer,
    as save_pretrained writes them. ADDRESS is such a folder in S3 (s3://BUCKET/FOLDER/), or the ARN of a model package
    of SageMaker's: neither is fetched or uploaded. What the back end would refuse is told before anything is sent. The
    same name and files are the same import.
    """
    from cloudtune.cli.follow import finished, follow
    from cloudtune.cli.render_plan import plan_text
    from cloudtune.cli.run import ask
    from cloudtune.importing import Importing
    from cloudtune.job import Job

    client = session.client
    importing = Importing(client.backend(to), client.ledger, client.clock)
    found = _source(session, importing, source)
    plan = importing.plan(found.model, name=name or found.called, again=again, notes=found.notes)
    session.say(plan_text(plan, requests=requests))
    session.say()
    if not yes:
        ask("Import this?")
    job = Job(client, _submitted(session, importing, plan))
    if found.written is not None:
        shutil.rmtree(found.written, ignore_errors=True)  # it lies in the bucket now
    snapshot = follow(session, job, waiting)
    finished(session, job, snapshot)


def _submitted(session: Session, importing: Importing, plan: Plan) -> JobRef:
    from cloudtune.cli.render_watch import step_line

    def tell(update: StepUpdate) -> None:
        if update.what != "begun" or session.verbose:
            session.say(step_line(update))

    ref = importing.submit(plan, on_step=tell)
    session.put(str(ref))
    return ref


class _Source(NamedTuple):
    """What is imported."""

    model: Path | str | InPlace
    called: str | None = None
    notes: tuple[Problem, ...] = ()
    written: Path | None = None
    """A folder that was written for this alone."""


def _source(session: Session, importing: Importing, source: str) -> _Source:
    """The folder or address that is named; of a job what it left, from where it lies or written out here."""
    from cloudtune.backend import InPlace
    from cloudtune.errors import Problem
    from cloudtune.importing import is_address

    path = Path(source).expanduser()
    if path.is_dir():
        return _Source(path)
    if is_address(source):
        return _Source(source)
    job: Job = session.job(source)
    name = job.snapshot().name or "model"
    found = importing.locate(job.model())
    if isinstance(found, InPlace):
        return _Source(found, name)
    note = Problem(code="brought_here", severity="info", message=f"brought here, and uploaded: {found.reason}")
    folder = _written(session, job)
    return _Source(folder, name, (note,), folder)


def _written(session: Session, job: Job) -> Path:
    """The job's weights, merged, in a folder beside the ledger."""
    from cloudtune.private_files import narrow, private_folder

    place = session.client.ledger.folder / "exports" / hashlib.sha256(str(job.ref).encode()).hexdigest()[:16]
    if not place.is_dir():
        private_folder(place.parent)
        session.say(f"merging the weights of {job.ref} into {place}")
        aside = place.with_name(f".{place.name}-{uuid.uuid4().hex[:8]}")  # one that is there is whole
        job.export(aside, merged=True)
        aside.replace(place)
        narrow(place)
    return place
