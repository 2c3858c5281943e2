"""``cloudtune export``: export the trained weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudtune.cli.options import command, ref_argument, trust_option

if TYPE_CHECKING:
    from cloudtune.cli.session import Session


@command("export", without=("backend",))
@ref_argument
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--merged", is_flag=True, help="Export the full model with the adapter merged, as safetensors.")
@trust_option
def export(session: Session, ref: str, folder: Path, merged: bool, trust_remote_code: bool) -> None:
    """Export the adapter, or the merged weights, to a new folder."""
    job = session.job(ref)
    files = job.export(folder, merged=merged, trust_remote_code=trust_remote_code)
    session.result({"ref": str(job.ref), "folder": str(folder.absolute()), "files": [str(path) for path in files]})
    for path in files:
        session.put(str(path))
    session.say(f"wrote {len(files)} files")
