"""The error of estimates over many seeded jobs: what a plan expects, and what the emulated vendor bills afterwards.

OpenAI and Azure bill tokens, which the emulator counts from the uploaded file. SageMaker and JumpStart bill time: a job
takes a fixed time for its machine and a time for each byte, with noise. Bedrock does not report what it bills, and the
tokenizers of its models are not published: o200k_base stands in for them.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import pytest
from tests.emulator.test_costs import desk

from cloudtune_emulator.job_timeline import Script
from cloudtune_emulator.openai.token_counts import TrainingTokens

if TYPE_CHECKING:
    from tests.emulator.test_bedrock_commands import Desk

__all__ = ["desk"]

MOST_MEDIAN = {"openai": 0.03, "azure_openai": 0.03, "sagemaker": 0.15, "jumpstart": 0.15}
"""The largest median of the relative errors."""
USD_PER_TOKEN = 3.78e-6
"""The price of training Nova 2 Lite, in the catalog."""
RESERVED = ("user:", "bot:", "assistant:", "system:", "thought:", "<image>", "<video>", "<unk>", "[eos]", "s3://")
"""Nova refuses texts with them."""
SECONDS_PER_BYTE, NOISE, FIXED_S = 0.005, 0.1, 60.0
TOOLS = [{"type": "function", "function": {"name": "look_up", "description": "Find a product.", "parameters": {}}}]


@pytest.fixture(scope="module")
def passages() -> list[str]:
    """Real text: the paragraphs of this project's documents, and reviews in Spanish."""
    root = Path(__file__).parents[2]
    found = [part for file in ("README.md", "CHANGELOG.md", "SECURITY.md")
             for part in (root / file).read_text("utf-8").split("\n\n") if len(part) > 40]  # fmt: skip
    found += (root / "tests/data/resenas.jsonl").read_text("utf-8").splitlines()
    return [part for part in found if not any(word in part.lower() for word in RESERVED)]


def write_rows(path: Path, dice: random.Random, passages: list[str], *, may_call: bool) -> list[dict[str, object]]:
    """Write conversations of one to three turns, some with instructions, names or tools."""
    rows: list[dict[str, object]] = []
    for _ in range(round(20 * 20 ** dice.random())):
        turns = [{"role": "system", "content": dice.choice(passages)[:200]}] if dice.random() < 0.5 else []
        for _ in range(dice.randint(1, 3)):
            turns.append({"role": "user", "content": dice.choice(passages)})
            turns.append({"role": "assistant", "content": dice.choice(passages)[: dice.randint(20, 600)]})
        rows.append({"messages": turns} | ({"tools": TOOLS} if may_call and dice.random() < 0.1 else {}))
    path.write_text("".join(json.dumps(row, ensure_ascii=dice.random() < 0.5) + "\n" for row in rows), "utf-8")
    return rows


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_estimates_are_close_to_the_bills_of_100_jobs(desk: Desk, passages: list[str]) -> None:
    dice = random.Random(18)
    names = ["openai", "azure_openai", "bedrock", "sagemaker", "jumpstart"]
    stand_ins: dict[str, int] = {}
    for number, name in enumerate(names * 20):
        may_call = "openai" in name
        rows = write_rows(desk.folder / "rows.jsonl", dice, passages, may_call=may_call)
        epochs = dice.randint(1, 4)
        work = (desk.folder / "rows.jsonl").stat().st_size * epochs
        desk.emulator.script = Script(
            loading_s=FIXED_S, running_s=work * SECONDS_PER_BYTE * dice.lognormvariate(0, NOISE)
        )
        options = ("--backend", name, "--set", f"hyperparameters.epochs={epochs}", "--set", f"name=job-{number}")
        ref = desk.run("submit", "job.yaml", *options).stdout.split()[-1]
        desk.emulator.clock.advance(1e6)
        desk.run("cost")  # records what the job cost, for the estimates of the next ones
        tokens = TrainingTokens("")
        for row in rows:
            tokens.add(row, 1)
        stand_ins[ref] = tokens.total() * epochs
    costs = desk.json("cost")["costs"]
    assert [one["state"] for one in costs] == ["succeeded"] * 100
    for name in names:
        errors = [
            abs(one["estimate_usd"] / (one["actual_usd"] or stand_ins[one["job"]] * USD_PER_TOKEN) - 1)
            for one in costs if one["backend"] == name and one["estimate_usd"] is not None
        ]  # fmt: skip
        print(f"{name:<13} {len(errors):>3} estimates, median {median(errors):.1%}, worst {max(errors):.1%}")
        assert len(errors) >= 19, "only the first job on a machine has no estimate"
        assert median(errors) <= MOST_MEDIAN.get(name, 1)
