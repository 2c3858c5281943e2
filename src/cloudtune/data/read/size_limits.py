"""Limits on the expansion of compressed files, and on what messages show of them."""

from __future__ import annotations

MAX_RATIO = 500
"""Maximum ratio of the rows' size to the file's size. Text compresses to a tenth, rarely to a hundredth."""
FREE_BYTES = 128 << 20
"""The limit on the ratio applies from this size on."""
SHOWN_CHARS = 80
"""Characters of a key or a value that a message shows."""
