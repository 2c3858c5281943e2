"""Installs the packages that the image lacks with pip before the trainer starts. Standard library only."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cloudtune_trainer.problems import TrainingProblem

REQUIREMENTS = "requirements.txt"
_ONLY_FOR = {"gguf": ("model", "source", "gguf"), "bitsandbytes": ("adapter", "type", "qlora")}
"""Package -> the setting of jobs that need it."""
_TOLD = 1500


def install(spec: dict[str, Any]) -> None:
    """Install missing packages with pip. Raises ``not_installed`` if this fails.

    The pinned versions are in ``requirements.txt`` beside the package. With ``CLOUDTUNE_REQUIREMENTS=image`` the
    image's own versions are used: for images that were built for this, and if no package index is reachable.
    """
    file = Path(__file__).resolve().parents[2] / REQUIREMENTS
    if os.environ.get("CLOUDTUNE_REQUIREMENTS") == "image" or not file.is_file():
        return
    missing = [line for line in wanted(file.read_text(encoding="utf-8"), spec) if not _is_there(line)]
    if not missing:
        return
    sys.stdout.write(f"installing {', '.join(missing)}\n")
    sys.stdout.flush()
    pip = [sys.executable, "-P", "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--quiet"]
    command = [*pip, *missing]
    done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise TrainingProblem(
            "not_installed",
            f"pip could not install {', '.join(missing)}: {done.stderr.strip()[-_TOLD:]}",
            "Give the job access to a package index, or use an image that has them and set requirements: image.",
        )


def wanted(text: str, spec: dict[str, Any]) -> list[str]:
    """The lines of requirements that this job needs."""
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line and _needs(spec, line.partition("==")[0].strip())]


def _needs(spec: dict[str, Any], package: str) -> bool:
    if package not in _ONLY_FOR:
        return True
    part, name, value = _ONLY_FOR[package]
    return bool((spec.get(part) or {}).get(name) == value)


def _is_there(line: str) -> bool:
    name, _, pinned = line.partition("==")
    try:
        return not pinned or version(name.strip()) == pinned.strip()
    except PackageNotFoundError:
        return False
