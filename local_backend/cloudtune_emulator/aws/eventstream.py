"""Amazon's event stream: each message consists of its lengths, headers, a payload and two checksums.

https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html (seen 2026-11-21); botocore 1.44.5,
``eventstream.py``, reads it.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CONTENT_TYPE = "application/vnd.amazon.eventstream"
_STRING = 7


def encoded(events: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[bytes]:
    """Encode events, each a name and a JSON document."""
    for name, document in events:
        headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
        yield _message(headers, msgspec.json.encode(document))


def _message(headers: dict[str, str], payload: bytes) -> bytes:
    head = b"".join(_header(name, value) for name, value in headers.items())
    prelude = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    body = prelude + struct.pack("!I", zlib.crc32(prelude)) + head + payload
    return body + struct.pack("!I", zlib.crc32(body))


def _header(name: str, value: str) -> bytes:
    key, text = name.encode(), value.encode()
    return struct.pack("!B", len(key)) + key + struct.pack("!BH", _STRING, len(text)) + text
