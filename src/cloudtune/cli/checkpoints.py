"""``cloudtune checkpoints``: list the checkpoints of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.cli.options import command, ref_argument

if TYPE_CHECKING:
    from cloudtune.cli.session import Session


@command("checkpoints", without=("backend",))
@ref_argument
def checkpoints(session: Session, ref: str) -> None:
    """List the checkpoints of a job, with the best and the last one marked."""
    from cloudtune.cli.render import figure, table
    from cloudtune.state import to_json

    job = session.job(ref)
    kept = job.checkpoints()
    session.result({"ref": str(job.ref), "checkpoints": [to_json(one) for one in kept]})
    if session.json:
        return
    if not kept:
        session.say("no checkpoints yet")
        return
    rows = [
        [one.id, one.step if one.step is not None else "", f"{one.epoch:.2f}" if one.epoch is not None else "",
         " ".join(word for word in ("best", "last", "resumable") if getattr(one, word)),
         "  ".join(f"{name} {figure(value)}" for name, value in one.metrics.items()), one.uri or ""]
        for one in kept
    ]  # fmt: skip
    table(["ID", "STEP", "EPOCH", "KIND", "METRICS", "URI"], rows, right=("STEP", "EPOCH"))
