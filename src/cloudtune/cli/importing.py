"""``cloudtune import``: bring a model that was trained elsewhere to a back end that answers from it."""

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
    from cloudtune.cli.render_watch import step_line
    from cloudtune.cli.run import ask

    def exporting(folder: Path) -> None:
        session.say(f"merging the weights of {source} into {folder}")

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
