"""Runs the pages of the documentation: writes their files, runs their commands, and compares what they print.

A block with a title is a file. A ``console`` block has commands after ``$ `` with their output, in which ``...`` stands
for any text. Figures with a decimal point, times and ids differ between machines, so they only have to be there.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from click.testing import CliRunner

from cloudtune.cli.main import cli

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
_BLOCK = re.compile(
    r'^```(?P<kind>\w+)(?: title="(?P<file>[^"]+)")?[^\n]*\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL
)
_SHELL = re.compile(r"[|<>&;$`*]")
_DIFFERS = (
    (re.compile(r"\d+\.\d+(e[+-]\d+)?"), "N.N"),
    (re.compile(r"-[0-9a-f]{10}\b"), "-ID"),
    (re.compile(r"\b\d+s\b"), "Ns"),
    (re.compile(r"tok/s [\d,]+"), "tok/s N"),
    (re.compile(r"sha256 [0-9a-f]{12}"), "sha256 ID"),
    (re.compile(r" +"), " "),
)


class Block(NamedTuple):
    """A fenced block of a page."""

    kind: str
    file: str | None
    text: str


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, with the files that it includes."""
    text = re.sub(r'^--8<-- "(.+)"$', lambda found: (REPOSITORY / found[1]).read_text().rstrip(),
                  page.read_text(encoding="utf-8"), flags=re.MULTILINE)  # fmt: skip
    return [Block(found["kind"], found["file"], found["text"]) for found in _BLOCK.finditer(text)]


def commands(block: Block) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output that the page shows."""
    parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]
    return [(command, shown) for command, _, shown in (part.partition("\n") for part in parts)]


def run_page(page: Path, folder: Path) -> list[str]:
    """Follow the page in a folder. Return what differs from the page."""
    tools = _tools(folder)
    shutil.copytree(
        REPOSITORY / "examples", folder / "examples", ignore=shutil.ignore_patterns(".cache", "__pycache__")
    )
    wrong = []
    for block in blocks(page):
        if block.file is not None:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.kind == "console":
            for command, shown in commands(block):
                printed = _run(command, folder, tools)
                if not shown and os.environ.get("FILL_PAGES"):
                    text = page.read_text(encoding="utf-8")
                    page.write_text(text.replace(f"$ {command}\n", f"$ {command}\n{printed}", 1), encoding="utf-8")
                elif not _same(shown, printed):
                    wrong.append(f"$ {command}\n{printed}")
    return wrong


def _tools(folder: Path) -> Path:
    """A folder with ``cloudtune`` and ``python``, the ones under test."""
    tools = folder.parent / "bin"
    tools.mkdir(exist_ok=True)
    for name, words in {"cloudtune": "-m cloudtune ", "python": ""}.items():
        script = tools / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {words}"$@"\n', encoding="utf-8")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return tools


def _run(command: str, folder: Path, tools: Path) -> str:
    """What a command prints. Those of cloudtune run in this process, which takes a fraction of the time."""
    words = shlex.split(command)
    if words[0] == "cloudtune" and not _SHELL.search(command):
        printed = CliRunner().invoke(cli, words[1:]).output
    else:
        environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}",
                       "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # fmt: skip
        done = subprocess.run(["/bin/bash", "-c", command], cwd=folder, env=environment, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False)  # fmt: skip
        printed = done.stdout
    return printed.replace(str(folder), "/home/me")


def _same(shown: str, printed: str) -> bool:
    for pattern, instead in _DIFFERS:
        shown, printed = pattern.sub(instead, shown), pattern.sub(instead, printed)
    shown, printed = _trimmed(shown), _trimmed(printed)
    return doctest.OutputChecker().check_output(shown, printed, doctest.ELLIPSIS)


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n"
