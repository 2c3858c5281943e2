"""The reward of ``bbc-topics-ppo``."""

from __future__ import annotations

from typing import Any


def names_topic(
    prompts: list[Any], completions: list[Any], reference_answer: list[str], **_columns: Any
) -> list[float]:
    """1 if the answer starts with the topic of the article, else 0."""
    return [
        float(words[0]["content"].strip().lower().startswith(topic))
        for words, topic in zip(completions, reference_answer, strict=True)
    ]
