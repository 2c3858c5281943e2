"""Writes the example's rows: sums with their results.

    python examples/grpo/make_rows.py

The same rows are written every time.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

HERE = Path(__file__).resolve().parent
COUNTS = {"train": 64, "validation": 16}


def rows() -> dict[str, list[dict[str, object]]]:
    """The rows of each split; no sum is in both."""
    sums = [(a, b) for a in range(10) for b in range(10)]
    random.Random(7).shuffle(sums)
    every = [
        {"messages": [{"role": "user", "content": f"What is {a} plus {b}?"}], "reference_answer": f"{a + b}"}
        for a, b in sums
    ]
    return {"train": every[: COUNTS["train"]], "validation": every[-COUNTS["validation"] :]}


if __name__ == "__main__":
    for split, found in rows().items():
        text = "".join(json.dumps(row) + "\n" for row in found)
        (HERE / f"{split}.jsonl").write_text(text, encoding="utf-8")
