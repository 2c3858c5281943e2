"""Baselines without a pretrained model."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from sources import Rows

_WORD = re.compile(r"\w+")


def tf_idf_logistic_regression(train: Rows, test: Rows) -> float:
    """Accuracy of logistic regression on TF-IDF of words that occur twice or more, with a penalty of 1/C = 0.1."""
    counts = [Counter(_WORD.findall(row["text"].lower())) for row in train]
    rows_with = Counter(word for count in counts for word in count)
    words = {word: place for place, word in enumerate(word for word, rows in rows_with.items() if rows > 1)}
    weights = torch.tensor([math.log((1 + len(train)) / (1 + rows_with[word])) + 1 for word in words])

    def vectors(found: list[Counter[str]]) -> torch.Tensor:
        matrix = torch.zeros(len(found), len(words))
        for row, count in enumerate(found):
            for word, times in count.items():
                if word in words:
                    matrix[row, words[word]] = times
        return F.normalize(matrix * weights)

    labels = sorted({row["label"] for row in train})
    target = torch.tensor([labels.index(row["label"]) for row in train])
    given = vectors(counts)
    layer = torch.nn.Linear(len(words), len(labels))
    torch.nn.init.zeros_(layer.weight)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(layer(given), target, reduction="sum") + 0.05 * layer.weight.pow(2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    predicted = layer(vectors([Counter(_WORD.findall(row["text"].lower())) for row in test])).argmax(1)
    return sum(labels[i] == row["label"] for i, row in zip(predicted.tolist(), test, strict=True)) / len(test)


def most_frequent_tag(train: Rows, test: Rows) -> float:
    """Accuracy of each word's most frequent tag in training; of the most frequent tag of all, for new words."""
    by_word: dict[str, Counter[str]] = {}
    every: Counter[str] = Counter()
    for row in train:
        for token, tag in zip(row["tokens"], row["tags"], strict=True):
            by_word.setdefault(token, Counter())[tag] += 1
            every[tag] += 1
    usual = every.most_common(1)[0][0]
    right = total = 0
    for row in test:
        for token, tag in zip(row["tokens"], row["tags"], strict=True):
            right += tag == (by_word[token].most_common(1)[0][0] if token in by_word else usual)
            total += 1
    return right / total
