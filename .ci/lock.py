"""Writes ``requirements/*.txt``: every pin of constraints.txt with the hashes of its files. Run by ``make lock``.

uv reads the hashes from the package index in seconds; pip checks them at every installation.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHON = "3.11"
QUICKSTART = ("data", "plot", "local")
ALL = (
    *QUICKSTART, "audio", "images", "postgres", "openai", "openai-tokens", "azure", "aws", "ray", "emulator",
    "evaluate", "tune", "docs", "dev",
)  # fmt: skip
"""The extras that the Makefile installs. SageMaker's SDK stays apart: it brings a package named ``tests``."""
BUILD = ("editables", "hatchling", "setuptools")
"""What builds cloudtune itself, without isolation."""
UNHASHED = "torch"
"""pip prefers files whose hash the index tells. Those of torch bring CUDA even where a CPU build is at hand."""
HEAD = """\
# Made by `make lock` from constraints.txt; do not edit. Installed with `pip install --require-hashes --no-deps -r`.
"""


def main() -> int:
    """Write both files."""
    locked = _compile("constraints.txt", "--no-deps", "--generate-hashes")
    blocks = {match[1]: match[0] for match in re.finditer(r"^([\w.\-]+)==(?:.*\\\n)*.*\n", locked, re.MULTILINE)}
    del blocks[UNHASHED]
    build = _names(_compile("-", given="\n".join(BUILD)))
    for file, extras in (("all.txt", ALL), ("quickstart.txt", QUICKSTART)):
        options = [word for extra in extras for word in ("--extra", extra)]
        _write(file, blocks, build | _names(_compile("pyproject.toml", *options)))
    return 0


def _compile(source: str, *options: str, given: str = "") -> str:
    command = [
        sys.executable, "-m", "uv", "pip", "compile", source, "--quiet", "--no-header", "--no-annotate",
        "--python-version", PYTHON, "--constraint", "constraints.txt", *options,
    ]  # fmt: skip
    return subprocess.run(command, cwd=ROOT, input=given, check=True, stdout=subprocess.PIPE, text=True).stdout


def _names(text: str) -> set[str]:
    return set(re.findall(r"^([\w.\-]+)==", text, re.MULTILINE))


def _write(name: str, blocks: dict[str, str], wanted: set[str]) -> None:
    chosen = "".join(block for key, block in sorted(blocks.items()) if key in wanted)
    (ROOT / "requirements" / name).write_text(HEAD + chosen, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
