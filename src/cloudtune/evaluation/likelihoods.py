"""Perplexity: how probable the expected texts are under a model.

Per token, models can be compared only if they have one tokenizer; per byte, all can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune.prompts import Passage
from cloudtune.state import Generation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune.evaluation.statistics import Array
    from cloudtune.state import Likelihood

_KEY = "log_probability"


def passages(prompts: Sequence[Any], expected: Sequence[str], *, alone: bool) -> list[Passage]:
    """The expected texts, each after its prompt; ``alone`` without one."""
    return [
        Passage(text=text, prompt=None if alone else tuple(prompt) if isinstance(prompt, list) else prompt)
        for prompt, text in zip(prompts, expected, strict=True)
    ]


def as_answer(found: Likelihood) -> Generation:
    """The likelihood in the form in which answers are stored."""
    return Generation(text=f"log probability {found.log_probability:.2f}", completion_tokens=found.tokens,
                      scores={_KEY: found.log_probability})  # fmt: skip


def token_counts(answers: Sequence[Generation], expected: Sequence[str]) -> Array:
    """The log probability and the tokens of each text."""
    return _rows(answers, [one.completion_tokens or 0 for one in answers])


def byte_counts(answers: Sequence[Generation], expected: Sequence[str]) -> Array:
    """The log probability and the bytes of each text."""
    return _rows(answers, [len(text.encode("utf-8", "replace")) for text in expected])


def _rows(answers: Sequence[Generation], sizes: Sequence[int]) -> Array:
    import numpy as np

    found = [((one.scores or {})[_KEY], size) for one, size in zip(answers, sizes, strict=True)]
    return np.array(found, dtype=np.float64)


def perplexity(weights: Array, rows: Array) -> Array:
    """The inverse of the geometric mean of the probabilities; at most 1e300."""
    import numpy as np

    sums = weights @ rows
    mean = np.divide(-sums[:, 0], sums[:, 1], out=np.zeros(len(sums)), where=sums[:, 1] > 0)
    return np.exp(np.minimum(mean, 690.0))
