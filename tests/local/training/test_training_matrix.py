"""Every cell of `cloudtune methods` trains, or the trainer refuses it too."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from cloudtune.cli.methods import matrix
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options
from cloudtune_trainer import loop, run_spec
from cloudtune_trainer.adapters import ADAPTERS
from cloudtune_trainer.micro_batches import StepSums, step_gradients
from cloudtune_trainer.problems import TrainingProblem

from .conftest import Rows, Runs, metrics, sums, texts, write_encoder
from .families import write_family
from .test_training_classification import rows as labelled
from .test_training_embedding import contrastive
from .test_training_kto import TERMS, rated
from .test_training_policy import items
from .test_training_policy import spec_of as policy_spec
from .test_training_preferences import pairs
from .test_training_preferences import spec_of as preference_spec
from .test_training_questions import rows as asked
from .test_training_seq2seq import rows as translated
from .test_training_tokens import rows as tagged

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudtune_trainer.job import Job

    Example = Callable[[str, Path], tuple[Rows, dict[str, Any]]]

REWARD = """
def digits(prompts, completions, **columns):
    return [sum(map(ord, words[0]["content"])) % 7 for words in completions]
"""
"""Completions of an untrained model get different rewards."""
SIZES: dict[str, dict[str, Any]] = {"lora": {"rank": 2}, "bottleneck": {"bottleneck_size": 4}}


def plain(rows: Callable[[int], Rows]) -> Example:
    return lambda method, _folder: (rows(4), {"method": method})


def paired(method: str, _folder: Path) -> tuple[Rows, dict[str, Any]]:
    return pairs(4), preference_spec({}, method=method)


def judged(method: str, _folder: Path) -> tuple[Rows, dict[str, Any]]:
    return rated(4), {"method": method, "preference": TERMS}


def rewarded(method: str, folder: Path) -> tuple[Rows, dict[str, Any]]:
    file = folder / "rewards.py"
    file.write_text(REWARD, encoding="utf-8")
    policy = {"num_generations": 1, "steps_per_batch": 2} if method == "ppo" else {}
    return items(4), policy_spec(file, {}, method=method, function="digits", policy=policy)


def taught(method: str, folder: Path) -> tuple[Rows, dict[str, Any]]:
    teacher = write_family(folder / "teacher", "qwen2", tie_word_embeddings=False, hidden_size=48)
    return sums(4), {"method": method, "teacher": {"path": str(teacher)}}


def embedded(method: str, _folder: Path) -> tuple[Rows, dict[str, Any]]:
    return contrastive(4), {"method": method, "embedding": {"loss": "multiple_negatives_ranking"}}


EXAMPLES: dict[str, Example] = {
    "sft": plain(sums), "cpt": plain(texts), "dpo": paired, "ipo": paired, "orpo": paired, "simpo": paired,
    "grpo": rewarded, "rloo": rewarded, "ppo": rewarded, "kto": judged, "reward": plain(pairs),
    "classification": plain(labelled), "token_classification": plain(tagged), "question_answering": plain(asked),
    "seq2seq": plain(translated), "distill": taught, "embedding": embedded,
}  # fmt: skip
"""Rows and settings for each method."""
OF_MEDIA = ("image_classification", "speech_recognition")
"""Their models have no tokens: test_training_images.py and test_training_speech.py train them."""
COUNT = max(len(EXAMPLES), len(ADAPTERS))
FAST = set(zip(islice(cycle(EXAMPLES), COUNT), islice(cycle(ADAPTERS), COUNT), strict=True))
CELLS = [
    pytest.param(method, adapter, marks=() if (method, adapter) in FAST else pytest.mark.soak)
    for method in EXAMPLES for adapter in ADAPTERS
]  # fmt: skip


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return matrix(LocalBackend(Options(root=tmp_path_factory.mktemp("root"))))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder with an output layer of its own."""
    return write_family(tmp_path_factory.mktemp("model"), "qwen2", tie_word_embeddings=False)


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """An encoder-decoder."""
    return write_encoder(tmp_path_factory.mktemp("writer"), tiny_model, "t5")


def test_the_matrix_has_the_trainers_methods_and_adapters(cells: dict[str, dict[str, Any]]) -> None:
    assert {name for name, row in cells.items() if row["trains"]} == set(run_spec.TASKS) == {*EXAMPLES, *OF_MEDIA}
    for name in EXAMPLES:
        offered = {adapter for adapter, cell in cells[name]["adapters"].items() if cell["trains"]}
        assert offered == set(ADAPTERS)
        layered = {adapter for adapter, cell in cells[name]["adapters"].items() if cell["layers"]}
        assert layered == {adapter for adapter, entry in ADAPTERS.items() if entry.in_layers}


def step_in_parts(job: Job, samples: Any, sequences: list[tuple[int, ...]]) -> StepSums:
    """Compute a step at once and in parts: the sums and the gradients are the same."""
    parameters = [p for group in job.optimizer.param_groups for p in group["params"]]
    progress, found = job.progress, []
    for limit in (None, 1, 3):
        job.optimizer.zero_grad()
        job.progress = replace(progress, sequences_at_once=limit)
        sums = step_gradients(job, samples, sequences)
        found.append((sums, [None if p.grad is None else p.grad.clone() for p in parameters]))
    job.progress = progress
    (whole, gradients), *others = found
    for sums, parts in others:
        assert (sums.count, sums.tokens) == (whole.count, whole.tokens)
        assert sums.loss == pytest.approx(whole.loss, rel=1e-6, abs=1e-6)
        for one, other in zip(gradients, parts, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6)
    return whole


@pytest.mark.parametrize(("method", "adapter"), CELLS)
def test_a_cell_trains(
    runs: Runs, cells: dict[str, dict[str, Any]], model: Path, writer: Path, method: str, adapter: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if ADAPTERS[adapter].quantized:
        pytest.importorskip("bitsandbytes")
    rows, spec = EXAMPLES[method](method, tmp_path)
    spec |= {
        "adapter": {"type": adapter, **SIZES.get(adapter, {})},
        "model": {"source": "folder", "path": str(writer if method == "seq2seq" else model)},
    }
    spec["hyperparameters"] = {"packing": False, "max_steps": 2, "batch_size": 4, "learning_rate": 1e-2,
                               "dropout": 0.0}  # fmt: skip
    monkeypatch.setattr(loop, "step_gradients", step_in_parts)
    if cells[method]["adapters"][adapter]["layers"]:
        spec["layers"] = {"freeze_depth": 1, "decay": 0.5, "unfreeze": [{"layers": 1, "share": 0.5}]}
    run = runs.make(rows=rows, **spec)
    if adapter == "head_only" and method in ("seq2seq", "embedding"):  # these models have no output layer of their own
        with pytest.raises(TrainingProblem, match="has no head of its own"):
            runs.train(run)
        return
    assert runs.train(run) == "succeeded"
    assert all(line["values"]["grad_norm"] > 0 for line in metrics(run))
