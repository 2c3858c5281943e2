"""Names and tags: what AWS accepts, and how cloudtune derives them from a submission's token."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloudtune.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TOKEN_TAG = "cloudtune:token"  # noqa: S105 - a name
NAME_TAG = "cloudtune:name"
OUR_TAGS = (TOKEN_TAG, NAME_TAG)
MOST_TAGS = 50
MOST_NAME = 63
# docs.aws.amazon.com/tag-editor/latest/userguide/best-practices-and-strats.html, seen 2026-11-21; the models of bedrock
# and sagemaker have the same pattern.
_TAG = re.compile(r"[\w\s.:/=+@-]*", re.UNICODE)


def tags_of(token: str, name: str, *given: Mapping[str, str]) -> dict[str, str]:
    """Return all tags of a new resource: the given ones, later ones first, and cloudtune's."""
    merged = {key: value for tags in given for key, value in tags.items()}
    return merged | {TOKEN_TAG: token, NAME_TAG: name}


def tag_list(tags: Mapping[str, str], *, upper: bool = False) -> list[dict[str, str]]:
    """Tags in the services' formats: lowercase keys for Bedrock, capitalized for SageMaker."""
    key, value = ("Key", "Value") if upper else ("key", "value")
    return [{key: name, value: tags[name]} for name in sorted(tags)]


def tag_problems(tags: Mapping[str, str], field: str, *, others: int = 0) -> Iterator[Problem]:
    """Return problems that AWS would reject. ``others`` is the number of additional tags of the resource."""
    room = MOST_TAGS - len(OUR_TAGS) - others
    if len(tags) > room:
        message = f"{len(tags)} tags; at most {room} are allowed"
        yield Problem(code="too_many_tags", field=field, message=message, fix="remove some")
    for key, value in tags.items():
        if not _TAG.fullmatch(key) or not _TAG.fullmatch(value):
            message = f"AWS tags allow letters, digits, spaces and _ . : / = + - @, not {key!r}: {value!r}"
            yield Problem(code="tag", field=f"{field}.{key}", message=message, fix="remove the other characters")
        if key.lower().startswith("aws:") or key in OUR_TAGS:
            message = f"tags that start with {key.partition(':')[0]}: are reserved"
            yield Problem(code="tag", field=f"{field}.{key}", message=message, fix="choose another key")


def short(name: str, token: str, *, most: int = MOST_NAME, digits: int = 10) -> str:
    """A readable name of at most ``most`` letters, digits and single hyphens, unique through the token."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") or "job"
    return f"{plain[: most - digits - 1].rstrip('-')}-{token[:digits]}"
