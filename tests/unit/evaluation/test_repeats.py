"""Two ways to train, compared by the probability of texts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cloudtune.evaluation.compare import Answered
from cloudtune.evaluation.likelihoods import as_answer
from cloudtune.evaluation.repeats import compare_repeats
from cloudtune.evaluation.result import EvaluateOptions
from cloudtune.spec import JobSpec, Source
from cloudtune.state import Likelihood

if TYPE_CHECKING:
    from pathlib import Path


class Scored:
    """Gives each text a probability that depends on the way."""

    trust_reward = False

    def answered(self, jobs: dict[str, list[float]], test: Any, options: EvaluateOptions) -> dict[str, list[Answered]]:
        found = {}
        for name, values in jobs.items():
            scores = [[as_answer(Likelihood(log_probability=-value * len(text), tokens=len(text)))
                       for text in test.expected] for value in values]  # fmt: skip
            found[name] = [Answered(name, "other", [one.text for one in some], some, some) for some in scores]
        return found


def test_repeats_are_compared_by_perplexity(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text("".join(f"{json.dumps({'text': f'text {n}'})}\n" for n in range(30)))
    spec = JobSpec.model_validate({"name": "x", "model": "m", "data": {"train": str(path)}, "method": "cpt"})
    ways: dict[str, Any] = {"tuned": [1.0, 1.0], "original": [2.0, 2.0]}
    found = compare_repeats(Scored(), ways, Source(path=str(path)), EvaluateOptions(), spec)  # type: ignore[arg-type]
    assert found.metrics == ("byte_perplexity", "perplexity")
    assert found.comparison.verdict == "helped"
