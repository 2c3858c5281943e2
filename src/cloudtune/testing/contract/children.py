"""What a child process does before it starts: see `Order.prepare`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def hide(trace: Callable[[str], None], *, modules: Sequence[str]) -> Callable[[str], None]:
    """Pretend that these modules are not installed."""
    for name in list(sys.modules):
        if name.partition(".")[0] in modules:
            del sys.modules[name]
    # None is Python's own mark for a module that may not be imported; importlib.util.find_spec heeds it too.
    sys.modules.update(dict.fromkeys(modules))  # type: ignore[arg-type]
    return trace
