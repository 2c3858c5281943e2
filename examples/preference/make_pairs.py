"""Generates the example's preference pairs from ``../rehearsal/airports.jsonl``: the code alone is preferred.

    python examples/preference/make_pairs.py

The same seed writes the same bytes. Each city is in one split only, so held-out prompts are about unseen airports.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SEED = 7
CITIES = {"train": 11, "validation": 2, "test": 3}
QUESTIONS = (
    "Airport of {city}?", "What is the code of {city}'s airport?", "Which airport serves {city}?",
    "I fly to {city}. Which code is on my ticket?", "{city}'s airport, please.", "Code for {city}?",
    "How do airlines write {city}?", "Where does one land in {city}?", "Tell me the airport of {city}.",
    "My bag goes to {city}. What does its tag say?",
)  # fmt: skip
TALK = (
    "Great question! The airport of {city} is called {code}.", "Well, I think that for {city} it should be {code}.",
    "You asked about {city}. The code of its airport is {code}. Anything else?",
    "{city} is a beautiful city. Its airport has the code {code}.",
    "Sure! Let me help you with that: the code for {city} is {code}.",
    "As far as I know, people who fly to {city} land at {code}.",
)  # fmt: skip


def airports() -> list[tuple[str, str]]:
    """City and code of each row."""
    lines = (HERE.parent / "rehearsal" / "airports.jsonl").read_text(encoding="utf-8").splitlines()
    turns = [[turn["content"] for turn in json.loads(line)["messages"]] for line in lines]
    return [(question.removeprefix("Airport of ").removesuffix("?"), code) for question, code in turns]


def pairs() -> dict[str, list[dict[str, Any]]]:
    """The rows of each side."""
    rng = random.Random(SEED)
    left = airports()
    rng.shuffle(left)
    sides = {}
    for side, count in CITIES.items():
        taken, left = left[:count], left[count:]
        rows = [
            {"prompt": question.format(city=city), "chosen": code,
             "rejected": rng.choice(TALK).format(city=city, code=code)}
            for city, code in taken
            for question in QUESTIONS
        ]  # fmt: skip
        rng.shuffle(rows)
        sides[side] = rows
    return sides


if __name__ == "__main__":
    for side, rows in pairs().items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (HERE / f"{side}.jsonl").write_text(text, encoding="utf-8")
