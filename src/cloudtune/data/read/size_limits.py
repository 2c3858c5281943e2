"""Limits on the expansion of compressed files, and on what messages show of them."""

from __future__ import annotations

AS_JSONL = "if that is correct, write its rows as JSONL"

MAX_RATIO = 500
"""Maximum ratio of the rows' size to the file's size. Text compresses to a tenth, rarely to a hundredth."""
FREE_BYTES = 128 << 20
"""The limit on the ratio applies from this size on."""
FREE_ROWS, ROW_BYTES = 100_000, 4
"""From so many rows on, a file that is read by columns must have so many bytes for each of them."""
FREE_VALUES, VALUES_PER_BYTE = 8 << 20, 8
"""From so many values on, it may have so many of them for each of its bytes."""
SHOWN_CHARS = 80
"""Characters of a key or a value that a message shows."""


def expansion(size: int, content: int = 0, rows: int = 0, values: int = 0) -> str | None:
    """What a file of ``size`` bytes contains too much of, if anything. ``content`` is in bytes."""
    if content > max(FREE_BYTES, MAX_RATIO * size):
        return f"its content is larger than {FREE_BYTES >> 20} MiB and {MAX_RATIO} times the file size"
    if rows > max(FREE_ROWS, size // ROW_BYTES):
        return f"it has more than {FREE_ROWS:,} rows, and fewer than {ROW_BYTES} bytes for each"
    if values > max(FREE_VALUES, VALUES_PER_BYTE * size):
        return f"it has more than {FREE_VALUES:,} values, and more than {VALUES_PER_BYTE} for each byte"
    return None
