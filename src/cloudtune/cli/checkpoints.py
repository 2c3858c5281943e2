"""``cloudtune checkpoints``: what a job has kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.cli.options import command, ref_argument

if TYPE_CHECKING:
    from cloudtune.cli.session import Session


@command("checkpoints", without=("backend",))
@ref_argument
def checkpoints(session: Session, ref: str) -> None:
    """List what a job has kept: the best, the last, and others."""
    from cloudtune.cli.render import figure, table
    from cloudtune.state import to_json

    job = session.job(ref)
    kept = job.checkpoints()
    session.result({"ref": str(job.ref), "checkpoints": [to_json(one) for one in kept]})
    if session.json:
        return
    if not kept:
        session.say("none yet")
        return
    rows = [
        [one.id, one.step if one.step is not None else "", f"{one.epoch:.2f}" if one.epoch is not None else "",
         " ".join(word for word in ("best", "last", "resumable") if getattr(one, word)),
         "  ".join(f"{name} {figure(value)}" for name, value in one.metrics.items()), one.uri or ""]
        for one in kept
    ]  # fmt: skip
    table(["ID", "STEP", "EPOCH", "WHICH", "FIGURES", "WHERE"], rows, right=("STEP", "EPOCH"))
