"""Rules for training data that only Azure OpenAI has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.data.row_rules import DataRule, Source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.data.row_rules import DataFacts, Finding

_RFT = Source("https://learn.microsoft.com/azure/foundry/openai/how-to/reinforcement-fine-tuning", "2026-11-29")


def _no_validation(facts: DataFacts) -> Iterator[Finding]:
    if not facts.rows.get("validation"):
        yield "data.validation", "there are no validation rows, and a job without them is refused"


# A warning: a check of one file cannot tell whether the job has another file. The plan of the job refuses.
REINFORCEMENT = DataRule(
    "no_validation", "A job of reinforcement fine-tuning has validation rows.", _RFT, "no validation file",
    "give a validation file, or hold out a share of the rows", _no_validation, "warning",
)  # fmt: skip
