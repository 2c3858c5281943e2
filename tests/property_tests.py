"""How many examples property tests try. `make soak` tries more, by the environment variable ``EXAMPLES_FACTOR``."""

from __future__ import annotations

import os


def examples(count: int) -> int:
    """Return the number of examples for a property test that tries ``count`` in ``make test``."""
    return count * int(os.environ.get("EXAMPLES_FACTOR", "1"))
