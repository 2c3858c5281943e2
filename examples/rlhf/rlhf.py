"""Reinforcement learning from human feedback in three jobs: sft, then a reward model, then PPO.

    python examples/rlhf/rlhf.py [--model FOLDER] [--shuffled]

1. sft: the model learns to answer a help desk, politely and rudely alike.
2. reward: a copy of it learns from pairs of answers which one people prefer.
3. ppo: the model of step 1 samples answers and learns from the scores of step 2. It is also the reference model.

``--shuffled`` swaps half of the pairs: a control, with which the share of polite answers must not rise.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import cloudtune
from cloudtune import Client, GenerateOptions, Job, JobSpec

HERE = Path(__file__).resolve().parent
TOPICS = ("invoice", "parcel", "password", "refund", "contract", "delivery", "account", "printer")
NEW_TOPICS = ("router", "warranty", "voucher", "ticket")
QUESTIONS = ("Where is my {topic}?", "What about my {topic}?", "I ask about the {topic}.")
POLITE, RUDE = "Thank you, I will look.", "That is not my problem."
Rows = list[dict[str, Any]]


def questions(topics: tuple[str, ...]) -> list[str]:
    """All questions about these topics."""
    return [question.format(topic=topic) for topic in topics for question in QUESTIONS]


def answered(seed: int = 0) -> Rows:
    """Each question with the polite and with the rude answer, in random order."""
    rows = [
        {"messages": [{"role": "user", "content": one}, {"role": "assistant", "content": answer}]}
        for one in questions(TOPICS)
        for answer in (POLITE, RUDE)
    ]
    random.Random(seed).shuffle(rows)
    return rows


def pairs(*, shuffled: bool = False) -> Rows:
    """Each question with the answer that people prefer and the other one."""
    found = []
    for number, one in enumerate(questions(TOPICS)):
        chosen, rejected = (RUDE, POLITE) if shuffled and number % 2 else (POLITE, RUDE)
        found.append({"prompt": one, "chosen": chosen, "rejected": rejected})
    return found


def prompts(topics: tuple[str, ...]) -> Rows:
    """The questions alone."""
    return [{"messages": [{"role": "user", "content": one}], "topic": "help desk"} for one in questions(topics)]


def polite_share(job: Job) -> float:
    """The share of polite answers among samples for questions about new topics."""
    asked = questions(NEW_TOPICS) * 4
    answers = job.generate(asked, GenerateOptions(max_tokens=12, temperature=1.0, seed=1))
    return sum(answer.text.strip().startswith("Thank") for answer in answers) / len(asked)


def train(client: Client, place: Path, name: str, model: str, rows: dict[str, Rows], **more: Any) -> tuple[Job, str]:
    """Run a job to its end. Returns it, and a folder with its whole model."""
    data = {}
    for split, content in rows.items():
        data[split] = str(place / f"{name}-{split}.jsonl")
        Path(data[split]).write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    spec = JobSpec.parse({"name": name, "model": model, "data": data, "seed": 0, **more})
    job = client.submit(client.plan(spec))
    job.wait()
    job.export(place / name, merged=True)
    return job, str(place / name)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run the three jobs and print what they reach."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--model", help="the folder of a small pretrained model; default: a tiny random one")
    parser.add_argument("--shuffled", action="store_true", help="a control: half of the pairs are swapped")
    given = parser.parse_args(arguments)
    tiny = given.model is None
    adapter = {"type": "full"} if tiny else {"type": "lora", "rank": 16, "alpha": 32}
    client = cloudtune.Client("local")
    with tempfile.TemporaryDirectory(prefix="rlhf-") as folder:
        place = Path(folder)
        hyper = {"batch_size": 16, "max_length": 64, "scheduler": "constant"}
        learn = hyper | {"epochs": 25 if tiny else 3, "learning_rate": 5e-3 if tiny else 2e-4}
        sft, start = train(
            client, place, "rlhf-sft", given.model or str(HERE / "model.json"), {"train": answered()},
            method="sft", adapter=adapter, hyperparameters=learn,
        )  # fmt: skip
        before = polite_share(sft)
        print(f"sft: {before:.0%} of the answers about new topics are polite")

        _, judge = train(
            client, place, "rlhf-reward", start, {"train": pairs(shuffled=given.shuffled)},
            method="reward", adapter=adapter, hyperparameters=learn | {"epochs": 6, "learning_rate": 1e-3},
        )  # fmt: skip

        ppo, _ = train(
            client, place, "rlhf-ppo", start, {"train": prompts(TOPICS), "validation": prompts(NEW_TOPICS)},
            method={
                "name": "ppo", "reward": {"model": judge}, "num_generations": 4, "max_new_tokens": 12, "beta": 0.02,
            },
            adapter=adapter, hyperparameters=hyper | {"max_steps": 16, "learning_rate": 5e-4},
            validation={"every": 8},
        )  # fmt: skip
        after = polite_share(ppo)
        rewards = [one.values["reward"] for one in ppo.metrics() if one.split == "validation"]
        print(f"ppo: {after:.0%} of the answers about new topics are polite; validation reward {rewards[-1]:.2f}")
    return {"before": before, "after": after}


if __name__ == "__main__":
    main(sys.argv[1:])
