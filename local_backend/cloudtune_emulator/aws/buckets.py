"""S3 objects for the other APIs: a service reads from and writes to its customer's buckets."""

from __future__ import annotations

import gzip
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext

ESCROW = "customer-escrow-"
"""The name prefix of the AWS-owned buckets that hold tuned Nova models. Customers cannot read them.

Source: the IAM policies and tests of github.com/aws/nova-forge-sdk (seen 2026-11-21).
"""
_URI = re.compile(r"s3://(?P<bucket>[a-z0-9][-.a-z0-9]{1,61}[a-z0-9])(?:/(?P<key>.*))?")


class Place(NamedTuple):
    """A bucket, and a key or prefix in it."""

    bucket: str
    key: str

    @property
    def uri(self) -> str:
        """``s3://bucket/key``."""
        return f"s3://{self.bucket}/{self.key}"

    def under(self, *parts: str) -> Place:
        """A location below this one."""
        return Place(self.bucket, "/".join([self.key.rstrip("/"), *parts]).lstrip("/"))


class NoSuch(Exception):
    """A bucket or an object does not exist."""


def parse(uri: str) -> Place:
    """Bucket and key of a URI. Raises ValueError."""
    found = _URI.fullmatch(uri)
    if found is None:
        raise ValueError(f"not an S3 URI: {uri}")
    return Place(found["bucket"], found["key"] or "")


def region(context: EmulatorContext, bucket: str) -> str:
    """The region of a bucket. Raises NoSuch."""
    return str(_bucket(context, bucket).region_name)


def keys(context: EmulatorContext, place: Place) -> list[tuple[str, int]]:
    """Keys under a prefix with their sizes, sorted. Raises NoSuch."""
    held = _bucket(context, place.bucket).keys
    found = [(name, held[name]) for name in sorted(held.keys()) if name.startswith(place.key)]
    return [(name, int(key.size)) for name, key in found if getattr(key, "value", None) is not None or key.size]


def get(context: EmulatorContext, place: Place) -> bytes:
    """An object's bytes. Raises NoSuch."""
    _bucket(context, place.bucket)
    with context.aws.joining:
        key: Any = context.aws.backend("s3").get_object(place.bucket, place.key)
        if key is None:
            raise NoSuch(place.uri)
        return bytes(key.value)


def text(context: EmulatorContext, place: Place) -> bytes:
    """An object's bytes, unpacked where its name ends in .gz. Raises NoSuch."""
    data = get(context, place)
    return gzip.decompress(data) if place.key.endswith(".gz") else data


def put(context: EmulatorContext, place: Place, data: bytes, now: float | None = None) -> None:
    """Write an object, last modified now. Raises NoSuch if the bucket does not exist."""
    _bucket(context, place.bucket)
    made = context.aws.backend("s3").put_object(place.bucket, place.key, data)
    if now is not None:
        made.last_modified = datetime.fromtimestamp(now, UTC).replace(tzinfo=None)
    context.aws.keep(place.bucket)


def _bucket(context: EmulatorContext, name: str) -> Any:
    try:
        return context.aws.backend("s3").get_bucket(name)
    except Exception as error:  # moto's MissingBucket, whose module differs between versions
        raise NoSuch(f"s3://{name}") from error
