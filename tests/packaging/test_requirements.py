"""Every distribution that is installed is locked, and its files are checked by their hashes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LOCKS = ("all.txt", "quickstart.txt")


def pins(text: str) -> dict[str, str]:
    """Distribution -> version."""
    found = re.findall(r"^([\w.\-]+)(?:\[[^]]*\])?==([^\s;\\]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def blocks(name: str) -> list[str]:
    text = (REPOSITORY / "requirements" / name).read_text(encoding="utf-8")
    return [block for block in re.split(r"^(?=[\w])", text, flags=re.MULTILINE) if re.match(r"\w", block)]


CONSTRAINTS = pins((REPOSITORY / "constraints.txt").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_has_hashes(name: str) -> None:
    bare = [block.partition(" ")[0] for block in blocks(name) if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", block)]
    assert bare == []


def test_the_locks_hold_the_versions_of_the_constraints() -> None:
    everything, some = (pins("".join(blocks(name))) for name in LOCKS)
    assert everything.items() <= CONSTRAINTS.items()
    assert some.items() <= everything.items()
    assert {"transformers", "peft", "pyarrow", "matplotlib", "hatchling", "setuptools"} <= some.keys()
    assert set(blocks("quickstart.txt")) <= set(blocks("all.txt"))  # the same hashes


def test_make_installs_only_what_is_locked() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert "LOCKED := $(PIP) --require-hashes --no-deps" in makefile
    for target, lock in ((".run", "quickstart.txt"), (".all", "all.txt")):
        recipe = re.search(rf"^\$\(VENV\)/\{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
        assert recipe is not None
        assert recipe[1].splitlines()[0] == f"\t$(LOCKED) -r requirements/{lock}"
    assert "--no-build-isolation" in makefile
