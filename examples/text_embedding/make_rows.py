"""Write the rows of this example: questions to a help desk, the answer to each, and an answer that is wrong.

Numbers differ between the splits, so that the test rows are new to the model.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

COUNTS = {"train": 160, "validation": 24, "test": 48}
TOPICS = {
    "parcel": ("where is parcel {n}", "the courier delivers parcel {n} tomorrow"),
    "invoice": ("why is invoice {n} so high", "invoice {n} includes the fee of last month"),
    "password": ("how do I reset the password of account {n}", "open the settings of account {n} to choose a new one"),
    "refund": ("when do I get {n} euros back", "a refund of {n} euros takes five days"),
}
"""Question and answer."""


def rows() -> dict[str, list[dict[str, object]]]:
    """The rows of each split."""
    rng = random.Random(7)
    numbers = rng.sample(range(10, 100), 90)
    shares = {"train": numbers[:60], "validation": numbers[60:75], "test": numbers[75:]}
    found = {}
    for split, count in COUNTS.items():
        pairs = rng.sample([(topic, number) for topic in TOPICS for number in shares[split]], count)
        found[split] = [_row(rng, topic, number, shares[split]) for topic, number in pairs]
    return found


def _row(rng: random.Random, topic: str, number: int, numbers: list[int]) -> dict[str, object]:
    question, answer = TOPICS[topic]
    other = rng.choice([one for one in numbers if one != number])
    return {"anchor": question.format(n=number), "positive": answer.format(n=number),
            "negatives": [answer.format(n=other)]}  # fmt: skip


if __name__ == "__main__":
    for split, content in rows().items():
        lines = "".join(json.dumps(row) + "\n" for row in content)
        (Path(__file__).parent / f"{split}.jsonl").write_text(lines, encoding="utf-8")
