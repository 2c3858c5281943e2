"""A copy of the quickstart whose cache already holds a tiny model and a few rows, so that nothing is fetched."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart"


@dataclass(frozen=True)
class Quickstart:
    """The copy, and where its jobs live."""

    folder: Path
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "CLOUDTUNE_HOME": str(self.home),
            "PYTHON_WARM_ALL": "1",
        }

    def run(self, *words: str) -> str:
        """What ``quickstart.py`` prints; fails if it fails."""
        done = subprocess.run(
            [sys.executable, self.folder / "quickstart.py", *words],
            env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def copied(to: Path) -> Quickstart:
    """The quickstart's files without its cache."""
    folder = to / "quickstart"
    shutil.copytree(QUICKSTART, folder, ignore=shutil.ignore_patterns(".cache", "__pycache__"))
    return Quickstart(folder, to / "home")


def made_tiny(copy: Quickstart) -> Quickstart:
    """The same with a few rows and a model that can be trained in a second in its cache."""
    from cloudtune_trainer.tiny import write_tiny_model

    cache = copy.folder / ".cache"
    topics = ("business", "entertainment", "politics", "sport", "tech")
    for split, count in {"train": 64, "validation": 10, "test": 20}.items():
        rows = [_row(f"{split} item {n} on {topics[n % 5]} today", topics[n % 5]) for n in range(count)]
        cache.mkdir(exist_ok=True)
        (cache / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    texts = [(cache / "train.jsonl").read_text(encoding="utf-8")]
    write_tiny_model(cache / "smollm2-135m-instruct", vocab_texts=texts)
    keep_hashes(copy)
    return copy


def keep_hashes(copy: Quickstart) -> None:
    """Let what is in the cache count as fetched."""
    fetching, cache = runpy.run_path(str(copy.folder / "fetch.py")), copy.folder / ".cache"
    rows = [cache / f"{split}.jsonl" for split in fetching["SPLITS"]]
    fetching["write_hashes"](cache, fetching["ROWS"], rows, fetching["HEADLINES"])
    fetching["write_hashes"](cache, fetching["MODEL"], [cache / fetching["MODEL"]], fetching["WEIGHTS"])


@pytest.fixture
def copy(tmp_path: Path) -> Quickstart:
    """The quickstart's files without its cache."""
    return copied(tmp_path)


@pytest.fixture
def quickstart(copy: Quickstart) -> Quickstart:
    """The quickstart with a model that can be trained in a second."""
    return made_tiny(copy)


def _row(headline: str, topic: str) -> dict[str, object]:
    return {
        "messages": [
            {"role": "system", "content": "Sort the news."},
            {"role": "user", "content": f"{headline}\nIs this business, entertainment, politics, sport or tech?"},
            {"role": "assistant", "content": topic},
        ]
    }
