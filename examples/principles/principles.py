"""Preference pairs by a written list of principles, and DPO on them.

    python examples/principles/principles.py JOB [--model FOLDER] [--pairs FILE]

JOB is the reference of any succeeded job whose back end generates text. Its model answers each prompt, criticizes its
answer by one of the principles, and writes a better one. The revision is the chosen answer of a pair, and the first
answer the rejected one (arxiv.org/abs/2212.08073, section 3). With ``--model``, DPO then trains that model on the
pairs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudtune
from cloudtune import GenerateOptions, Job, JobSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).resolve().parent
CRITICIZE = "Principle: {principle}\nName one way in which your answer breaks this principle."
REVISE = "Write a better answer to the question. Give nothing else."
Turns = list[dict[str, str]]


def principles() -> list[str]:
    """The lines of ``principles.txt``."""
    return lines_of(HERE / "principles.txt")


def lines_of(file: Path) -> list[str]:
    """The lines of a file that are not empty."""
    return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def turn(role: str, content: str) -> dict[str, str]:
    """One turn of a conversation."""
    return {"role": role, "content": content}


def pairs(job: Job, prompts: Sequence[str], rules: Sequence[str], *, max_tokens: int = 128) -> list[dict[str, Any]]:
    """A pair for each prompt, unless an answer is empty or the revision repeats the first one.

    The rules are used in turn. No conversation with an empty turn is sent: not every back end takes one.
    """

    def answered(conversations: list[Turns]) -> list[tuple[Turns, str]]:
        """The conversations that get an answer, each with it."""
        options = GenerateOptions(max_tokens=max_tokens)
        answers = [answer.text.strip() for answer in job.generate(conversations, options)] if conversations else []
        return [(turns, text) for turns, text in zip(conversations, answers, strict=True) if text]

    rule = {prompt: rules[number % len(rules)] for number, prompt in enumerate(prompts)}
    drafts = answered([[turn("user", prompt)] for prompt in prompts])
    critiques = answered([
        [*turns, turn("assistant", draft), turn("user", CRITICIZE.format(principle=rule[turns[0]["content"]]))]
        for turns, draft in drafts
    ])  # fmt: skip
    revisions = answered([
        [*turns, turn("assistant", critique), turn("user", REVISE)] for turns, critique in critiques
    ])  # fmt: skip
    return [
        {"prompt": turns[0]["content"], "chosen": revision, "rejected": turns[1]["content"]}
        for turns, revision in revisions
        if revision != turns[1]["content"]
    ]


def dpo(model: str, file: Path) -> JobSpec:
    """The job that trains on the pairs."""
    return JobSpec.parse({
        "name": "principles", "model": model, "method": "dpo", "adapter": {"type": "lora", "rank": 8},
        "data": {"train": str(file)}, "hyperparameters": {"epochs": 2, "batch_size": 4}, "seed": 0,
    })  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Write the pairs, and train on them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("job", help="the reference of the job that answers, criticizes and revises")
    parser.add_argument("--model", help="the model that DPO trains on the local back end")
    parser.add_argument("--prompts", type=Path, default=HERE / "prompts.txt", help="one prompt per line")
    parser.add_argument("--pairs", type=Path, default=Path("pairs.jsonl"), help="where the pairs are written")
    parser.add_argument("--max-tokens", type=int, default=128, help="of each answer, critique and revision")
    given = parser.parse_args(arguments)
    client = cloudtune.Client("local")
    prompts = lines_of(given.prompts)
    found = pairs(client.attach(given.job), prompts, principles(), max_tokens=given.max_tokens)
    given.pairs.write_text("".join(json.dumps(pair) + "\n" for pair in found), encoding="utf-8")
    print(f"{len(found)} pairs from {len(prompts)} prompts in {given.pairs}")
    if given.model is not None and found:
        job = client.submit(client.plan(dpo(given.model, given.pairs)))
        job.wait()
        print(f"DPO on them: {job.ref}")
    return len(found)


if __name__ == "__main__":
    main(sys.argv[1:])
