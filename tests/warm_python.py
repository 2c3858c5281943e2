"""An interpreter for containers on this machine whose programs the tests' warm server runs: it leaves out ``-I``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_PASSED_ON = ("PYTHONPATH", "PYTHON_WARM_SERVER", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "OMP_NUM_THREADS")


def write_warm_python(folder: Path) -> Path:
    """Write it into the folder. It drops its first argument, and passes on the variables that the server needs."""
    variables = " ".join(f"{name}='{os.environ[name]}'" for name in _PASSED_ON if name in os.environ)
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nshift\n{variables} PYTHON_WARM_ALL=1 exec "{sys.executable}" "$@"\n')
    program.chmod(0o755)
    return program
