"""Checks against a vendor's limits for rows and files: number, size, length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.data.checks.targets import row_rules
from cloudtune.data.checks.token_counts import TokenBounds, unread
from cloudtune.data.row_rules import DataRule
from cloudtune.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune.data.checks.targets import Target
    from cloudtune.data.problem_list import Faults
    from cloudtune.data.row_rules import DataFacts


def length_problem(line: bytes, limit: int) -> Problem:
    """The problem of a canonical line with more bytes than the token limit, if no tokenizer counts them."""
    bounds = TokenBounds()
    bounds.add(line, 1)
    least = bounds.least(unread=unread(line))
    if least > limit:
        message = f"at least {least:,} tokens; the limit is {limit:,}"
        return Problem(code="too_long", message=message, fix="shorten the row, or remove it")
    message = f"up to {len(line):,} tokens (upper bound: its bytes); the limit is {limit:,}"
    fix = "count with a tokenizer, or shorten the row"
    return Problem(code="maybe_too_long", severity="warning", message=message, fix=fix)


def hold(place: Target, facts: DataFacts, sizes: Mapping[str, int], faults: Faults) -> None:
    """Check a dataset, and the uploaded bytes of each split, against the target's limits."""
    for rule in row_rules(place.rules_of):
        if isinstance(rule, DataRule):
            for problem in rule.problems(facts):
                faults.add(problem)
    rows = facts.rows
    train = rows.get("train", 0) + (rows.get("validation", 0) if place.together else 0)
    what = "training and validation rows" if place.together else "rows"
    if train and train < place.min_rows:
        message = f"{place.name} requires at least {place.min_rows:,} {what}, found {train:,}"
        faults.error("too_few_rows", message + place.words("min_rows"), field="data.train", fix="add rows")
    if place.max_rows is not None and train > place.max_rows:
        message = f"{place.name} accepts at most {place.max_rows:,} {what}, found {train:,}"
        fix = "use a sample (cloudtune data convert --sample), or request a higher quota"
        faults.error("too_many_rows", message + place.words("max_rows"), field="data.train", fix=fix)
    for side, size in sizes.items():
        if side != "test" and place.max_bytes is not None and size > place.max_bytes:
            message = f"{place.name} accepts at most {place.max_bytes:,} bytes per file, found {size:,}"
            faults.error("too_large", message + place.words("max_bytes"), field=f"data.{side}", fix="use a sample")
