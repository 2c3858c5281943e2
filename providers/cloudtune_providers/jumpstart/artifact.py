"""Downloads and unpacks a tuned model's archive from S3."""

from __future__ import annotations

import secrets
import shutil
from typing import TYPE_CHECKING

from cloudtune.errors import ArchiveError, InvalidRequest
from cloudtune.files.archives import extract_tar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cloudtune.state import TunedModel
    from cloudtune_providers.aws.clients import Clients

_BLOCK = 4 * 1024 * 1024
_ARCHIVE = ".tar.gz"


def export(clients: Clients, model: TunedModel, to: Path, *, merged: bool) -> Sequence[Path]:
    """Extract the archive to a new folder, atomically. Raises InvalidRequest."""
    if merged and (model.raw.get("HyperParameters") or {}).get("merge_weights") != "True":
        raise InvalidRequest(
            f"{model.id} contains an adapter that the script did not merge into its base model",
            hint="submit again with overrides.jumpstart.hyperparameters.merge_weights: true",
        )
    if to.exists():
        raise InvalidRequest(f"{to} already exists", hint="choose a folder that does not exist")
    if not (model.uri or "").endswith(_ARCHIVE):
        raise InvalidRequest(f"{model.uri} is not an archive; download it with `aws s3 sync`")
    to.parent.mkdir(parents=True, exist_ok=True)
    aside = to.with_name(f".{to.name}.{secrets.token_hex(4)}")
    aside.mkdir()
    try:
        archive = aside / "model.tar.gz"
        _fetch(clients, str(model.uri), archive)
        extract_tar(archive, aside / "model")
        (aside / "model").rename(to)
    except ArchiveError as error:
        raise ArchiveError(f"cannot unpack {model.uri}: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return sorted(path for path in to.rglob("*") if path.is_file())


def _fetch(clients: Clients, uri: str, to: Path) -> None:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    with clients.asking(f"download of {uri}"), to.open("wb") as file:
        for block in clients.client("s3").get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(_BLOCK):
            file.write(block)
