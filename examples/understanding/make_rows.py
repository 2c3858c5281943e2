"""Write the rows of this example: sentences with names, questions about a text, and phrases in two languages."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

COUNTS = {"train": 120, "test": 24}
PEOPLE = ("Ada Lovelace", "Grace Hopper", "Alan Turing", "Konrad Zuse")
PLACES = ("London", "New York", "Berlin", "Paris")
NUMBERS = {"two": "dos", "three": "tres", "four": "cuatro", "five": "cinco", "six": "seis"}
ANIMALS = {"cats": "gatos", "dogs": "perros", "birds": "aves", "cows": "vacas", "ducks": "patos"}
Row = dict[str, Any]


def tags(rng: random.Random) -> Row:
    """A sentence with a person and a place, word by word."""
    tokens: list[str] = []
    found: list[str] = []
    for part in rng.choice(("PER met us in LOC", "in LOC lives PER", "we saw PER near LOC today")).split():
        words = rng.choice(PEOPLE if part == "PER" else PLACES).split() if part.isupper() else [part]
        tokens += words
        found += [f"B-{part}", *[f"I-{part}"] * (len(words) - 1)] if part.isupper() else ["O"]
    return {"tokens": tokens, "tags": found}


def question(rng: random.Random) -> Row:
    """Who has a box of a color."""
    one, other = rng.sample([name.split()[0] for name in PEOPLE], 2)
    context = f"{one} has a red box . {other} has a blue box ."
    who, color = rng.choice(((one, "red"), (other, "blue")))
    answers = {"text": [who], "answer_start": [context.index(f"{who} has")]}
    return {"question": f"who has the {color} box", "context": context, "answers": answers}


def pair(rng: random.Random) -> Row:
    """Some animals, in English and in Spanish."""
    number, animal = rng.choice(list(NUMBERS)), rng.choice(list(ANIMALS))
    return {"source": f"{number} {animal}", "target": f"{NUMBERS[number]} {ANIMALS[animal]}"}


def rows() -> dict[str, list[Row]]:
    """The rows of each file."""
    rng = random.Random(7)
    makers = {"tags": tags, "questions": question, "pairs": pair}
    return {f"{name}-{split}": [make(rng) for _ in range(count)]
            for name, make in makers.items() for split, count in COUNTS.items()}  # fmt: skip


if __name__ == "__main__":
    for name, content in rows().items():
        lines = "".join(json.dumps(row) + "\n" for row in content)
        (Path(__file__).parent / f"{name}.jsonl").write_text(lines, encoding="utf-8")
