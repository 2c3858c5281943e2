"""``cloudtune import``: import a model that was trained elsewhere."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003
from typing import TYPE_CHECKING

import click

from cloudtune.cli.options import command, watch_options, yes_option

if TYPE_CHECKING:
    from cloudtune.cli.options import Waiting
    from cloudtune.cli.session import Session
    from cloudtune.execute import StepUpdate


@command("import", without=("backend",))
@click.argument("source", metavar="JOB|FOLDER|ADDRESS")
@click.option("--to", "to", metavar="NAME", required=True, help="Back end to import the model to: bedrock.")
@click.option("--name", metavar="NAME", help="Name of the imported model. Default: the name of the job or folder.")
@click.option("--again", is_flag=True, help="Start a new attempt if the last one has ended.")
@click.option("--requests", is_flag=True, help="Include the exact requests in the plan.")
@yes_option
@watch_options
def import_model(
    session: Session, source: str, to: str, name: str | None, again: bool, requests: bool, yes: bool,
    waiting: Waiting,
) -> None:  # fmt: skip
    """Import a model that was trained elsewhere to a back end, and wait for the import to finish.

    JOB is a job whose weights can be exported. If the back end can read them in place, they are not copied; otherwise
    they are merged and exported first. FOLDER holds safetensors, config.json and the tokenizer, as save_pretrained
    writes them. ADDRESS is such a folder in S3 (s3://BUCKET/FOLDER/) or the ARN of a SageMaker model package; neither
    is downloaded or uploaded. Models that the back end does not accept are rejected before anything is sent. Importing
    the same files under the same name returns the existing import.
    """
    from cloudtune.cli.follow import finished, follow
    from cloudtune.cli.render_plan import plan_text
    from cloudtune.cli.render_watch import step_line
    from cloudtune.cli.run import ask

    def exporting(folder: Path) -> None:
        session.say(f"merging the weights of {source} in {folder}")

    def report(update: StepUpdate) -> None:
        if update.what != "begun" or session.verbose:
            session.say(step_line(update))

    plan = session.client.plan_import(source, backend=to, name=name, again=again, on_export=exporting)
    session.say(plan_text(plan, requests=requests))
    session.say()
    if not yes:
        ask("Import this?")
    job = session.client.import_model(plan, on_step=report)
    session.put(str(job.ref))
    snapshot = follow(session, job, waiting)
    finished(session, job, snapshot)
