"""The monitor of learning: planted faults are found within 200 steps, and good runs have no warning."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cloudtune_trainer.monitor import LearningMonitor, entropy

from .conftest import Rows, Runs, events
from .test_training_images import METHOD, write_rows
from .test_training_speech import SMALL
from .test_training_speech import write_rows as write_recordings

soundfile = pytest.importorskip("soundfile")
if TYPE_CHECKING:
    from pathlib import Path

STEPS = 200
CONSTANT = 1.1


class Task:
    """A task whose constant prediction has the loss `CONSTANT`; its sums are rows, and rows with the same answer."""

    def constant_loss(self, _: Any) -> float:
        return CONSTANT

    def collapsed(self, metric_sums: Any) -> str | None:
        rows, same = metric_sums
        return "the label 'a'" if same == rows else None


def watched(losses: list[float], *, same: int = 4, norms: list[float] | None = None) -> list[str]:
    monitor = LearningMonitor(Task(), None, total_steps=len(losses), learning_rate=0.1)  # type: ignore[arg-type]
    norms = norms or [1.0] * len(losses)
    found = [monitor.step(loss, (8, same), norm) for loss, norm in zip(losses, norms, strict=True)]
    return [text for text in found if text is not None]


def noisy(start: float, end: float, seed: int, *, steps: int = STEPS) -> list[float]:
    chance = random.Random(seed)
    return [start + (end - start) * step / steps + chance.gauss(0, 0.15) for step in range(steps)]


def test_a_flat_loss_at_the_level_of_a_constant_is_reported() -> None:
    (text,) = watched(noisy(1.12, 1.12, 0))
    assert text.startswith("not learning: the loss, 1.1")
    assert "labels or transcripts that do not belong to their rows" in text
    assert "a learning rate, 0.1, that is far too high or too low" in text


def test_the_same_answer_for_all_rows_is_reported() -> None:
    (text,) = watched(noisy(0.9, 0.9, 0), same=8)
    assert "the model predicts the label 'a' for all rows" in text


@pytest.mark.parametrize(("losses", "norms", "what"), [
    (noisy(1.0, 9.0, 0), None, "the loss has grown from"),
    (noisy(1.0, 1.2, 0), [1.0] * 20 + [1e4] * 180, "the gradient norm has grown from 1 to 1e\\+04"),
])  # fmt: skip
def test_growing_losses_and_gradients_are_reported_at_once(
    losses: list[float], norms: list[float] | None, what: str
) -> None:
    (text,) = watched(losses, norms=norms)
    assert re.search(what, text)
    assert "the likeliest cause is the learning rate, 0.1" in text


@pytest.mark.parametrize("seed", range(20))
def test_good_runs_have_no_warning(seed: int) -> None:
    chance = random.Random(seed)
    start, end = chance.uniform(0.9, 3.0), chance.uniform(0.05, 0.8)
    assert not watched(noisy(start, end, seed))
    assert not watched(noisy(end, end, seed))  # learned before this run
    assert not watched(noisy(2.5, 1.5, seed))  # above the level of a constant, and falling
    assert not watched(noisy(start, end, seed), same=8)  # one answer so far, and falling
    assert not watched(noisy(1.2, 1.2, seed, steps=40))  # too short to tell


@pytest.mark.parametrize("seed", range(10))
def test_losses_of_single_rows_may_differ_by_factors(seed: int) -> None:
    chance = random.Random(seed)
    rows = [1.0 if chance.random() < 0.05 else chance.uniform(0.005, 0.015) for _ in range(STEPS)]
    wide = [chance.lognormvariate(0, 1.5) for _ in range(STEPS)]
    for losses in (rows, wide):
        monitor = LearningMonitor(None, None, total_steps=STEPS, learning_rate=0.1)  # type: ignore[arg-type]
        assert not any(monitor.step(loss, (), 1.0) for loss in losses)


def test_the_loss_of_a_constant_is_the_entropy() -> None:
    assert entropy([5, 5]) == pytest.approx(np.log(2))
    assert entropy([7, 0]) == 0
    assert entropy([]) == 0


def trained(tmp_path: Path, base: Path, rows: Rows, method: str, **hyper: Any) -> list[str]:
    runs = Runs(tmp_path, base)
    run = runs.make(rows=rows, method=method, adapter={"type": "full"},
                    hyperparameters={"packing": False, "max_steps": STEPS, "batch_size": 16} | hyper)  # fmt: skip
    assert runs.train(run) == "succeeded"
    return [event["message"] for event in events(run, "warning")]


@pytest.mark.soak
@pytest.mark.parametrize("fault", ["shuffled labels", "high rate", "no rate", "constant images", "none"])
def test_planted_faults_of_images_are_found(tmp_path: Path, fault: str) -> None:
    from cloudtune_trainer.tiny_media import write_vision_model

    base = write_vision_model(tmp_path / "base", model={"image_size": 16, "patch_size": 4, "hidden_size": 32})
    rows = write_rows(tmp_path / "rows", 480, seed=0)
    if fault == "shuffled labels":
        labels = random.Random(0).sample([row["label"] for row in rows], len(rows))
        rows = [row | {"label": label} for row, label in zip(rows, labels, strict=True)]
    if fault == "constant images":
        rows = [row | {"image": rows[0]["image"]} for row in rows]
    rate = {"high rate": 0.3, "no rate": 1e-9}.get(fault, 3e-3)
    found = trained(tmp_path, base, rows, METHOD, learning_rate=rate)
    assert any(text.startswith("not learning: ") for text in found) is (fault != "none"), found


@pytest.mark.soak
@pytest.mark.parametrize("fault", ["blank", "none"])
def test_a_ctc_model_that_writes_only_blanks_is_found(tmp_path: Path, fault: str) -> None:
    from cloudtune_trainer.tiny_speech import write_speech_model

    base = write_speech_model(tmp_path / "base", vocab_texts=["abc"], model=SMALL["wav2vec2"])
    rows = write_recordings(tmp_path / "rows", 64, seed=0)
    if fault == "blank":  # silence, from which nothing can be read
        for row in rows:
            soundfile.write(row["audio"], np.random.default_rng(0).normal(0, 1e-3, 8000), 16_000)
    found = trained(tmp_path, base, rows, "speech_recognition", learning_rate=5e-3, dropout=0.0)
    assert any(text.startswith("not learning: ") for text in found) is (fault == "blank"), found
