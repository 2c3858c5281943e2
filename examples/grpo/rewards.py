"""The reward of the example: answers to sums, in digits."""

from __future__ import annotations

from typing import Any


def right_number(
    prompts: list[list[dict[str, str]]], completions: list[list[dict[str, str]]], reference_answer: list[str], **_: Any
) -> list[float]:
    """For each completion: 1 for the right number and nothing else; half the share of digits for any other text."""
    rewards = []
    for completion, right in zip(completions, reference_answer, strict=True):
        text = completion[0]["content"].strip()
        share = sum(char in "0123456789" for char in text) / max(1, len(text))
        rewards.append(1.0 if text == right else share / 2)
    return rewards
