"""The entries: what is trained on which rows, and what is to be reached."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import baselines
import sources

if TYPE_CHECKING:
    from collections.abc import Callable

REWARDS = Path(__file__).resolve().parent / "rewards.py"


class Entry(NamedTuple):
    """One result."""

    method: str | dict[str, Any]
    metric: str
    rows: Callable[[int, int], sources.Rows]
    sizes: tuple[int, int]
    """Rows of training and test."""
    quick: tuple[int, int]
    packages: tuple[sources.Package, ...]
    mark: float | Callable[[sources.Rows, sources.Rows], float] | None
    """What is to be reached: a number, or a baseline on the same rows. None: the result of ``other``."""
    source: str
    hyperparameters: dict[str, Any]
    model: Callable[[Path], Path] = sources.minilm
    parts: dict[str, Any] = {"adapter": "full"}
    """Further parts of the spec."""
    other: dict[str, Any] | None = None
    """Parts of the spec of another job, whose result is the mark."""
    control: Callable[[sources.Rows], sources.Rows] | None = None
    """The training rows of that other job, if they differ."""
    seeds: int = 1
    """With several seeds, the interval is that of the mean paired difference between the two jobs."""


_LEARN = {"batch_size": 16, "learning_rate": 1e-4, "warmup_ratio": 0.1, "precision": "fp32"}
_BBC = _LEARN | {"max_length": 128}
_TF_IDF = (baselines.tf_idf_logistic_regression, "TF-IDF with logistic regression on the same rows")
_LORA = {"adapter": {"type": "lora", "rank": 8, "alpha": 16, "targets": "all-linear"}}
_SMALL_STEPS = {"precision": "fp32", "max_length": 160, "scheduler": "constant", "learning_rate": 2e-4}


def _few_shot(per_class: int, epochs: int) -> Entry:
    count = 5 * per_class
    return Entry(
        "classification", "accuracy", sources.balanced_topics, (count, 600), (count, 100),
        (sources.MINILM, sources.BBC), *_TF_IDF, _BBC | {"epochs": epochs, "batch_size": 8},
    )  # fmt: skip


def _unfreezing(count: int, epochs: int) -> Entry:
    return Entry(
        "classification", "accuracy", sources.balanced_topics, (count, 600), (count // 10, 50),
        (sources.MINILM, sources.BBC), None, "full training of all layers at one rate, with the same seeds",
        _BBC | {"epochs": epochs},
        parts={"adapter": "full", "layers": {"unfreeze": [{"layers": n, "share": 0.15} for n in range(1, 5)],
                                             "decay": 0.8}},
        other={"adapter": "full"}, seeds=5,
    )  # fmt: skip


ENTRIES: dict[str, Entry] = {
    "bbc-topics": Entry(
        "classification", "accuracy", sources.topics, (1500, 600), (480, 300), (sources.MINILM, sources.BBC), 0.95,
        "customary for BBC topics, on the first 128 tokens", _BBC | {"epochs": 3},
    ),
    "imdb-reviews": Entry(
        "classification", "accuracy", sources.reviews, (1000, 1000), (1000, 300), (sources.MINILM, sources.IMDB),
        *_TF_IDF, _LEARN | {"epochs": 3, "max_length": 256},
    ),
    "bbc-few-shot-8": _few_shot(8, 10),
    "bbc-few-shot-16": _few_shot(16, 8),
    "bbc-few-shot-64": _few_shot(64, 4),
    "bbc-unfreezing-100": _unfreezing(100, 8),
    "bbc-unfreezing-1000": _unfreezing(1000, 2),
    "penn-parts-of-speech": Entry(
        "token_classification", "token_accuracy", sources.sentences, (3000, 900), (400, 200),
        (sources.MINILM, sources.PENN), baselines.most_frequent_tag, "each word's most frequent tag in training",
        _LEARN | {"epochs": 2, "max_length": 96, "learning_rate": 5e-4},
    ),
    "bbc-headlines-to-articles": Entry(
        "embedding", "recall@1", sources.headlines, (1500, 600), (160, 200), (sources.MINILM, sources.BBC),
        None, "the base model on the same rows", _LEARN | {"epochs": 1, "max_length": 128, "learning_rate": 3e-5},
        other={"adapter": "full", "hyperparameters": {"max_steps": 1, "learning_rate": 1e-12}},
    ),
    "bbc-headlines-dpo": Entry(
        "dpo", "accuracy", sources.headline_pairs, (160, 200), (16, 20), (sources.SMOLLM2, sources.BBC),
        None, "a control: half of the training pairs are swapped", _SMALL_STEPS | {"epochs": 1, "batch_size": 8},
        model=sources.smollm2, parts=_LORA, other=_LORA, control=sources.half_swapped,
    ),
    "digits-vit": Entry(
        "image_classification", "accuracy", sources.digits, (1400, 397), (700, 200), (sources.SCIKIT_LEARN,), 0.95,
        "customary for these digits; chance is 0.10", {"epochs": 30, "batch_size": 32, "learning_rate": 1e-3,
        "warmup_ratio": 0.05, "precision": "fp32"}, model=sources.tiny_vit,
    ),
    "bbc-topics-ppo": Entry(
        {"name": "ppo", "reward": f"{REWARDS}:names_topic", "num_generations": 2, "max_new_tokens": 6, "beta": 0.02},
        "reward", sources.topic_prompts, (240, 100), (8, 8), (sources.SMOLLM2, sources.BBC),
        None, "a control: the topics of the training rows are shuffled",
        _SMALL_STEPS | {"max_steps": 30, "batch_size": 8}, model=sources.smollm2, parts=_LORA, other=_LORA,
        control=sources.shuffled_topics,
    ),
}  # fmt: skip
