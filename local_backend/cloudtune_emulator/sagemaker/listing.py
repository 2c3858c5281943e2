"""Lists: filters, order and pages of the service's List calls (botocore 1.44.5, its service model)."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cloudtune_emulator.sagemaker import shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloudtune_emulator.http import Call

DEFAULT_PAGE = 10
_TIMES = {
    "CreationTimeAfter": ("CreationTime", 1), "CreationTimeBefore": ("CreationTime", -1),
    "LastModifiedTimeAfter": ("LastModifiedTime", 1), "LastModifiedTimeBefore": ("LastModifiedTime", -1),
}  # fmt: skip


def page(
    call: Call,
    views: Sequence[dict[str, Any]],
    *,
    under: str,
    name: str,
    status: str | None = None,
    by: dict[str, Callable[[dict[str, Any]], Any]] | None = None,
) -> dict[str, Any]:
    """One page. ``name`` and ``status`` are the views' fields that NameContains and StatusEquals look at."""
    request = call.body
    kept = [view for view in views if _fits(view, request, name, status)]
    orders: dict[str, Callable[[dict[str, Any]], Any]] = {
        "Name": lambda view: view[name], "CreationTime": lambda view: view["CreationTime"], **(by or {}),
    }  # fmt: skip
    if status is not None:
        orders["Status"] = lambda view: view[status]
    key = orders.get(request.get("SortBy", "CreationTime"), orders["CreationTime"])
    is_falling = request.get("SortOrder", "Descending") == "Descending"
    # Items of the same second keep their creation order.
    numbered = sorted(enumerate(kept), key=lambda pair: (key(pair[1]), pair[0]), reverse=is_falling)
    start = _start(request.get("NextToken"))
    size = request.get("MaxResults", DEFAULT_PAGE)
    body: dict[str, Any] = {under: [view for _, view in numbered[start : start + size]]}
    if start + size < len(numbered):
        body["NextToken"] = base64.b64encode(f"from {start + size}".encode()).decode()
    return body


def _fits(view: dict[str, Any], requested: dict[str, Any], name: str, status: str | None) -> bool:
    if (part := requested.get("NameContains")) and part.lower() not in view[name].lower():
        return False
    if status is not None and (word := requested.get("StatusEquals")) and view[status] != word:
        return False
    for field, (mine, sign) in _TIMES.items():
        if (limit := requested.get(field)) is not None and (view.get(mine, 0) - moment(limit)) * sign <= 0:
            return False
    return True


def moment(value: Any) -> float:
    """A time of a request: seconds since 1970, or ISO 8601."""
    if isinstance(value, int | float):
        return float(value)
    try:
        return datetime.fromisoformat(value).timestamp()
    except ValueError as error:
        raise shapes.failed("SerializationException", f"{value} is no time") from error


def _start(token: str | None) -> int:
    if not token:
        return 0
    try:
        start = int(base64.b64decode(token, validate=True).decode().removeprefix("from "))
    except (binascii.Error, ValueError) as error:
        raise shapes.refused("Invalid NextToken.") from error
    if start < 0:
        raise shapes.refused("Invalid NextToken.")
    return start
