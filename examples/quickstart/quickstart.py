"""The main job, from a bare checkout to a measured gain: fetch, plan, train with LoRA, compare.

Run it by ``make quickstart``. A job that has run already is found again and not trained twice, whether this script or
``cloudtune run examples/quickstart/job.yaml --backend local --yes`` ran it; ``--again`` trains it once more.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

os.environ.setdefault("TQDM_DISABLE", "1")  # disables progress bars; read when transformers is imported

import cloudtune
from cloudtune import EvaluateOptions, Evaluation, Job, Plan

sys.path.insert(0, str(Path(__file__).resolve().parent))
import fetch as fetching
from fetch import CACHE, HERE, TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

OPTIONS = EvaluateOptions(few_shot=5, max_tokens=8)
"""Also compare with the base model after five training rows as examples."""
SHOWN = 8
"""Number of held-out headlines whose answers are printed."""


class Row(NamedTuple):
    """One held-out headline: the prompt and the correct answer."""

    question: list[dict[str, str]]
    topic: str

    @property
    def headline(self) -> str:
        """The headline alone."""
        return self.question[-1]["content"].partition("\n")[0]


class Interval(NamedTuple):
    """A share or a difference of shares, with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:5.1f} %   (95 % interval {100 * self.low:.1f} to {100 * self.high:.1f})"


def main() -> None:
    """Run the quickstart. Exits with the error's exit code if a part fails."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--again", action="store_true", help="train again, even if the job has already run")
    again = parser.parse_args().again
    started = time.monotonic()

    fetching.fetch()
    client = cloudtune.Client("local")
    plan = client.plan(cloudtune.load_spec(HERE / "job.yaml"), again=again)
    show_plan(plan)
    job = client.submit(plan)
    print(f"\njob {job.ref}\n")
    memory_mb = follow(job)

    rows = held_out(CACHE / "test.jsonl")
    found = client.evaluate(job, str(CACHE / "test.jsonl"), options=OPTIONS, on_progress=show_progress)
    base, tuned = (answers(found, model) for model in ("base model", found.models[0].name))
    show_answers(rows, base, tuned)
    show_gain(rows, base, tuned)
    report = HERE / f"{plan.name}-report.html"
    report.write_text(job.report(evaluation=found).html(), encoding="utf-8")
    memory_mb = max(memory_mb, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _rss_unit())
    print(f"\n{time.monotonic() - started:.0f} s in all, at most {memory_mb / 1000:.1f} GB of memory in one process.")
    print(f"Report with all metrics, curves and rows: {report}")
    print(f"Try it: cloudtune generate {plan.name} 'Rovers held to draw in derby'")


def show_plan(plan: Plan) -> None:
    """Print the plan."""
    train = plan.data.splits["train"]
    print(f"{plan.name}: {train.rows} rows to learn from, on {plan.backend}")
    for number, step in enumerate(plan.steps, 1):
        print(f"  {number}. {step.title}")


def follow(job: Job) -> float:
    """Show the loss until the job ends. Returns the trainer's peak memory in MB."""
    first, peak, said = None, 0.0, ""
    for update in job.watch():
        total = update.snapshot.progress.total_steps or 0
        for metric in update.metrics:
            peak = max(peak, metric.values.get("memory_mb", 0.0))
            loss = metric.values.get("loss")
            if loss is None:
                continue
            first = first or loss
            if metric.split != "train":
                print(f"{metric.split} loss {loss:.3f} after step {metric.step}", flush=True)
            elif metric.step == 1 or metric.step % 4 == 0 or metric.step == total:
                print(f"step {metric.step:3}/{total}  loss {loss:6.3f}  {'█' * round(40 * loss / first)}", flush=True)
        if said != update.snapshot.native_state:
            said = update.snapshot.native_state
            print(said, flush=True)
    return peak


def held_out(path: Path) -> list[Row]:
    """Return the held-out rows."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        *question, answer = json.loads(line)["messages"]
        rows.append(Row(question, answer["content"]))
    return rows


def show_progress(model: str, done: int, count: int) -> None:
    """Print how many answers a model has given."""
    if done % 50 == 0:
        print(f"{model}: {done} of {count} held-out headlines", flush=True)


def answers(evaluation: Evaluation, model: str) -> list[str]:
    """Return the answers of a model to all rows."""
    return [" ".join(row["answers"][model].split()) for row in evaluation.answers]


def named_topic(answer: str) -> str | None:
    """Return the first topic in an answer. This favors the base model, which writes long answers."""
    return next((word for word in re.findall("[a-z]+", answer.lower()) if word in TOPICS), None)


def show_answers(rows: Sequence[Row], base: Sequence[str], tuned: Sequence[str]) -> None:
    """Print a few answers side by side."""
    print(f"\n{'headline':40} {'right':14} {'tuned model':14} base model")
    for row, before, after in list(zip(rows, base, tuned, strict=True))[:SHOWN]:
        print(f"{row.headline[:39]:40} {row.topic:14} {after[:13]:14} {before[:60]}")


def show_gain(rows: Sequence[Row], base: Sequence[str], tuned: Sequence[str]) -> None:
    """Print the accuracy of both models, and the gain with its interval."""
    before = [named_topic(answer) == row.topic for row, answer in zip(rows, base, strict=True)]
    after = [named_topic(answer) == row.topic for row, answer in zip(rows, tuned, strict=True)]
    commonest = max(sum(row.topic == topic for row in rows) for topic in TOPICS) / len(rows)
    print(f"\nright on {len(rows)} held-out headlines (always naming the commonest topic: {100 * commonest:.1f} %)")
    print(f"  base model   {share(before)}")
    print(f"  tuned model  {share(after)}")
    print(f"  gain         {gain(before, after)}")


def share(right: Sequence[bool]) -> Interval:
    """Return the accuracy with its Wilson interval."""
    n, p, z = len(right), sum(right) / len(right), 1.96
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Interval(p, middle - half, middle + half)


def gain(before: Sequence[bool], after: Sequence[bool], resamples: int = 4000) -> Interval:
    """Return the difference on the same rows, with a bootstrap interval."""
    differences = [int(b) - int(a) for a, b in zip(before, after, strict=True)]
    chance = random.Random(0)
    means = sorted(_mean(chance.choices(differences, k=len(differences))) for _ in range(resamples))
    return Interval(_mean(differences), means[resamples * 25 // 1000], means[resamples * 975 // 1000])


def _mean(values: Iterable[int]) -> float:
    values = list(values)
    return sum(values) / len(values)


def _rss_unit() -> float:
    return 1e6 if sys.platform == "darwin" else 1e3  # macOS counts bytes, Linux kilobytes


if __name__ == "__main__":
    try:
        main()
    except cloudtune.CloudtuneError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from error
