"""Shared calls of the Bedrock modules: paged lists, idempotent create, deleting a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune.backend import Done, Found
from cloudtune.errors import Conflict, InvalidRequest, JobNotFound
from cloudtune.state import JobRef
from cloudtune_providers.aws.errors import code_of, words_of
from cloudtune_providers.bedrock.responses import NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cloudtune_providers.aws.clients import Clients

PAGE = 1000
MOST_PAGES = 1000


def pages(clients: Clients, call: str, key: str, filters: Mapping[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """The pages of a list in Bedrock, including those after an empty one."""
    more: dict[str, Any] = {}
    for _ in range(MOST_PAGES):
        with clients.asking(call.replace("_", " "), missing=InvalidRequest):
            page = getattr(clients.client(NAME), call)(**filters, **more)
        yield list(page.get(key) or ())
        if not page.get("nextToken"):
            return
        more = {"nextToken": page["nextToken"]}


def newest(clients: Clients, call: str, key: str, filters: Mapping[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """`pages`, in the order of job lists."""
    order = {"sortBy": "CreationTime", "sortOrder": "Descending", "maxResults": PAGE}
    return pages(clients, call, key, order | dict(filters))


def made(clients: Clients, kind: str, name: str, arn: Any) -> dict[str, Any]:
    """Return the outputs of a step that creates a job. ``kind`` is the prefix of the name in its reference."""
    return {"name": name, "arn": str(arn), "ref": str(JobRef(NAME, clients.scope(), f"{kind}{name}"))}


def create_once(
    clients: Clients, doing: str, create: Callable[[], dict[str, Any]], find: Callable[[], Found]
) -> dict[str, Any]:
    """Return the outputs of ``create``, or of the existing resource if the service reports that the name is taken.

    An earlier request may have created it.
    """
    try:
        with clients.asking(doing, missing=InvalidRequest):
            return create()
    except (Conflict, InvalidRequest) as error:
        if not says_taken(error):
            raise
        found = find()
        if isinstance(found, Done):
            return found.outputs
        raise


def says_taken(error: Exception) -> bool:
    """Whether a create error reports that the name, or the token, is in use."""
    cause = error.__cause__
    if code_of(cause) in ("ConflictException", "ResourceInUseException", "ResourceInUse"):
        return True
    said = words_of(cause).lower()
    return any(words in said for words in ("already exist", "already in use", "in use", "must be unique", "duplicate"))


def delete_model(clients: Clients, arn: str) -> None:
    """Delete a custom or imported model, if it exists.

    Raises Conflict while a deployment uses it.
    """
    delete = "delete_imported_model" if ":imported-model/" in arn else "delete_custom_model"
    try:
        with clients.asking(f"model {arn}"):
            getattr(clients.client(NAME), delete)(modelIdentifier=arn)
    except JobNotFound:
        return
    except Conflict as error:
        error.hint = "delete its deployments first: cloudtune deployments, cloudtune undeploy"
        raise


def split_url(url: str) -> tuple[str, str]:
    """Bucket and key."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key
