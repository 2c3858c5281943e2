"""How many examples property tests try: the number that they name in `make test`, 20 times it in `make soak`.

The environment variable ``EXAMPLES_FACTOR`` sets the factor.
"""

from __future__ import annotations

import os


def examples(count: int) -> int:
    """Return the number of examples for a property test that names this count."""
    return max(1, round(count * float(os.environ.get("EXAMPLES_FACTOR", "1"))))
