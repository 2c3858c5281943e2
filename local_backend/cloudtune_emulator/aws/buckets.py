"""Objects in S3, for the faces here: what a service reads from and writes to its customer's buckets."""

from __future__ import annotations

import gzip
import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from cloudtune_emulator.context import Site

ESCROW = "customer-escrow-"
"""How the names of the buckets begin that AWS keeps tuned Nova models in, where no customer may look.

So in the IAM policies and tests of github.com/aws/nova-forge-sdk (seen 2026-11-21).
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
        """Further down."""
        return Place(self.bucket, "/".join([self.key.rstrip("/"), *parts]).lstrip("/"))


class NoSuch(Exception):
    """A bucket or an object that is not there."""


def parse(uri: str) -> Place:
    """Bucket and key of a URI. Raises ValueError."""
    found = _URI.fullmatch(uri)
    if found is None:
        raise ValueError(f"not an S3 URI: {uri}")
    return Place(found["bucket"], found["key"] or "")


def region(site: Site, bucket: str) -> str:
    """Where a bucket lies. Raises NoSuch."""
    return str(_bucket(site, bucket).region_name)


def keys(site: Site, place: Place) -> list[tuple[str, int]]:
    """Keys under a prefix with their sizes, sorted. Raises NoSuch."""
    held = _bucket(site, place.bucket).keys
    found = [(name, held[name]) for name in sorted(held.keys()) if name.startswith(place.key)]
    return [(name, int(key.size)) for name, key in found if getattr(key, "value", None) is not None or key.size]


def get(site: Site, place: Place) -> bytes:
    """An object's bytes. Raises NoSuch."""
    _bucket(site, place.bucket)
    with site.aws.joining:
        key: Any = site.aws.backend("s3").get_object(place.bucket, place.key)
        if key is None:
            raise NoSuch(place.uri)
        return bytes(key.value)


def text(site: Site, place: Place) -> bytes:
    """An object's bytes, unpacked where its name ends in .gz. Raises NoSuch."""
    data = get(site, place)
    return gzip.decompress(data) if place.key.endswith(".gz") else data


def put(site: Site, place: Place, data: bytes) -> None:
    """Write an object. Raises NoSuch where the bucket is not there."""
    _bucket(site, place.bucket)
    site.aws.backend("s3").put_object(place.bucket, place.key, data)
    site.aws.keep(place.bucket)


def _bucket(site: Site, name: str) -> Any:
    try:
        return site.aws.backend("s3").get_bucket(name)
    except Exception as error:  # moto's MissingBucket, whose home moves
        raise NoSuch(f"s3://{name}") from error
