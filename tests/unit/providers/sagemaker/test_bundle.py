"""The job's code: the same bytes whatever packs them, with what it needs and nothing else."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

from cloudtune_trainer.submit.bundle import REQUIREMENTS, files, pack

REPOSITORY = Path(__file__).resolve().parents[4]


def test_the_same_files_give_the_same_bytes() -> None:
    contents = files()
    assert pack(contents) == pack(dict(reversed(contents.items())))
    assert pack({**contents, "train.py": b"pass"}) != pack(contents)


def test_nothing_in_it_depends_on_the_machine() -> None:
    packed = pack({"b": b"2", "a": b"1"})
    assert packed[4:8] == bytes(4), "no time in gzip's head"
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(packed))) as archive:
        entries = archive.getmembers()
    assert [entry.name for entry in entries] == ["a", "b"]
    assert {(e.mtime, e.uid, e.gid, e.uname, e.gname, e.mode) for e in entries} == {(0, 0, 0, "", "", 0o644)}


def test_it_holds_the_trainer_and_no_more() -> None:
    names = set(files())
    assert {"train.py", "requirements.txt", "cloudtune_trainer/__init__.py"} <= names
    assert "cloudtune_trainer/sagemaker/entrypoint.py" in names
    others = {name for name in names if not name.startswith("cloudtune_trainer/")}
    assert others == {"train.py", "requirements.txt"}
    assert not [name for name in names if "/submit/" in name]


def test_requirements_are_those_that_are_tested_with() -> None:
    constraints = set((REPOSITORY / "constraints.txt").read_text().splitlines())
    lines = [line.partition("#")[0].strip() for line in files()[REQUIREMENTS].decode().splitlines()]
    assert {line for line in lines if line} <= constraints
