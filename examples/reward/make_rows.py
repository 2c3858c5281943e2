"""Write the rows of this example: questions to a help desk, with a polite and a rude answer to each.

The pairs train a reward model. The ratings are of one answer each, for KTO. The test pairs are of new topics.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

COUNTS = {"train": 120, "validation": 24, "test": 40}
TOPICS = ("invoice", "parcel", "password", "refund", "contract", "delivery", "account", "printer", "ticket", "booking")
NEW_TOPICS = ("router", "warranty", "voucher", "newsletter")
QUESTIONS = ("Where is my {topic}?", "What happened to my {topic}?", "I have a question about the {topic}.")
POLITE = ("Thank you for asking. I am happy to look up the {topic} for you.",
          "Of course, I am glad to help with the {topic}. One moment, please.",
          "Thank you. I will check the {topic} and write to you today.")  # fmt: skip
RUDE = ("Not my problem. Ask someone else about the {topic}.", "Read the manual. Everybody knows about the {topic}.",
        "How should I know? Stop asking about the {topic}.")  # fmt: skip


def pairs() -> dict[str, list[dict[str, str]]]:
    """The pairs of each split."""
    rng = random.Random(7)
    found = {}
    for split, count in COUNTS.items():
        topics = NEW_TOPICS if split == "test" else TOPICS
        texts = [(rng.choice(topics), *map(rng.choice, (QUESTIONS, POLITE, RUDE))) for _ in range(count)]
        found[split] = [
            {"prompt": question.format(topic=topic), "chosen": good.format(topic=topic),
             "rejected": bad.format(topic=topic)}
            for topic, question, good, bad in texts
        ]  # fmt: skip
    return found


def ratings(rows: list[dict[str, str]], seed: int) -> list[dict[str, Any]]:
    """One answer of each pair, with its rating."""
    rng = random.Random(seed)
    found = []
    for row in rows:
        good = rng.random() < 0.5
        found.append({"prompt": row["prompt"], "completion": row["chosen" if good else "rejected"], "label": good})
    return found


def rows() -> dict[str, list[dict[str, Any]]]:
    """The rows of each file."""
    found: dict[str, list[dict[str, Any]]] = {}
    for number, (split, rows) in enumerate(pairs().items()):
        found[f"pairs-{split}"] = [dict(row) for row in rows]
        found[f"ratings-{split}"] = ratings(rows, number)
    return found


if __name__ == "__main__":
    for name, content in rows().items():
        lines = "".join(json.dumps(row) + "\n" for row in content)
        (Path(__file__).parent / f"{name}.jsonl").write_text(lines, encoding="utf-8")
