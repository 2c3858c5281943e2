"""Write the rows of this example: short messages to a help desk, and the team that each is for.

Names and amounts differ between the splits, so that the test rows are new to the model.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

COUNTS = {"train": 180, "validation": 30, "test": 60}
SENTENCES = {
    "billing": ("I was charged {n} euros twice", "the invoice for {n} euros is wrong", "please refund {n} euros",
                "why did my bill rise to {n} euros"),
    "delivery": ("parcel {n} has not arrived", "where is order {n}", "order {n} came to the wrong address",
                 "the courier lost parcel {n}"),
    "technical": ("the app crashes with code {n}", "error {n} after the update", "the screen stays black, code {n}",
                  "I cannot log in, error {n}"),
}  # fmt: skip
GREETINGS = ("Hello, ", "Hi there, ", "Good morning, ", "")


def rows() -> dict[str, list[dict[str, str]]]:
    """The rows of each split."""
    rng = random.Random(7)
    numbers = rng.sample(range(100, 10_000), sum(COUNTS.values()))
    found = {}
    for split, count in COUNTS.items():
        found[split] = []
        for _ in range(count):
            label = rng.choice(list(SENTENCES))
            sentence = rng.choice(SENTENCES[label]).format(n=numbers.pop())
            found[split].append({"text": rng.choice(GREETINGS) + sentence, "label": label})
    return found


if __name__ == "__main__":
    for split, content in rows().items():
        lines = "".join(json.dumps(row) + "\n" for row in content)
        (Path(__file__).parent / f"{split}.jsonl").write_text(lines, encoding="utf-8")
