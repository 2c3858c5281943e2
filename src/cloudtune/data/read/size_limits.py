"""How much a compressed file may expand."""

from __future__ import annotations

MAX_RATIO = 500
"""How many times larger than the file its rows may be. Text compresses to a tenth, rarely to a hundredth."""
FREE_BYTES = 128 << 20
"""The limit on the ratio holds from this size on."""
