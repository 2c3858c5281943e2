"""``cloudtune compare``: compare the models of jobs on held-out rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudtune.cli.evaluate import evaluation_options, put_evaluation
from cloudtune.cli.options import command

if TYPE_CHECKING:
    from cloudtune.cli.session import Session


@command("compare", without=("backend",))
@click.argument("refs", nargs=-1, required=True, metavar="JOB JOB...")
@evaluation_options
def compare(
    session: Session, refs: tuple[str, ...], data: str, kind: str, metrics: tuple[str, ...], max_tokens: int | None,
    group: str | None, seed: int, trust_remote_code: bool,
) -> None:  # fmt: skip
    """Compare the model of the first job with those of the others, on held-out rows."""
    from cloudtune.evaluation.evaluating import EvaluateOptions

    if len(refs) < 2:
        raise click.UsageError("name at least two jobs")
    jobs = [session.job(ref) for ref in refs]
    options = EvaluateOptions(metrics=metrics, baselines=False, max_tokens=max_tokens, group=group, seed=seed)
    put_evaluation(session, jobs, data, kind, options, trust_remote_code=trust_remote_code)
