"""The job's code as one archive: the trainer's package, its entry point, and pinned requirements.

The same files give the same bytes on every machine. The archive is therefore identified by its hash, is uploaded once,
and a plan names exactly the code that will run. The trainer imports nothing of cloudtune; its files are copied, not
imported.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

NAME = "sourcedir.tar.gz"
ENTRY = "train.py"
REQUIREMENTS = "requirements.txt"
_PACKAGE = "cloudtune_trainer"
_LEFT_OUT = "submit"
"""The part that back ends import; a run does not need it."""
_START = '''"""Starts the trainer that lies beside this file, wherever it was started from."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from cloudtune_trainer.sagemaker.entrypoint import main

sys.exit(main())
'''


class Bundle(NamedTuple):
    """The archive."""

    content: bytes
    sha256: str


@cache
def bundle() -> Bundle:
    """Pack the installed trainer."""
    content = pack(files())
    return Bundle(content, hashlib.sha256(content).hexdigest())


def files() -> dict[str, bytes]:
    """Every file of the archive, by its name."""
    requirements = Path(__file__).parents[1] / "sagemaker" / REQUIREMENTS
    return {ENTRY: _START.encode(), REQUIREMENTS: requirements.read_bytes(), **package()}


def requirements() -> list[str]:
    """What the trainer needs beside torch, in the versions that cloudtune is tested with, as pip takes it."""
    lines = files()[REQUIREMENTS].decode().splitlines()
    return [package for line in lines if (package := line.partition("#")[0].strip())]


@cache
def package_bundle() -> Bundle:
    """Pack the installed trainer without an entry point, for machines whose Python starts it as a module."""
    content = pack(package())
    return Bundle(content, hashlib.sha256(content).hexdigest())


def package() -> dict[str, bytes]:
    """Every file of the trainer's package, by its name in the archive."""
    trainer = Path(__file__).parents[1]
    found = {}
    for path in sorted(trainer.rglob("*.py")):
        name = path.relative_to(trainer)
        if name.parts[0] != _LEFT_OUT:
            found[f"{_PACKAGE}/{name.as_posix()}"] = path.read_bytes()
    return found


def pack(contents: dict[str, bytes]) -> bytes:
    """A .tar.gz that does not depend on the machine: no times, no owners, uncompressed.

    Compression would save little, and its result differs between versions of zlib.
    """
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(contents):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(contents[name]), 0o644
            archive.addfile(entry, io.BytesIO(contents[name]))
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, compresslevel=0, mtime=0) as file:
        file.write(plain.getvalue())
    return packed.getvalue()
