"""Applies the decision rules to a situation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from cloudtune.advice.rules import (
    COMPARISON,
    CRITERIA,
    FINE_TUNING_USD,
    NAMES,
    PROMPTING,
    PROMPTING_ONLY,
    RULES,
    Approach,
    Effect,
)
from cloudtune.advice.situation import Situation, situation_from
from cloudtune.state import Value

if TYPE_CHECKING:
    from pathlib import Path

FIRST_STEP = (
    "First write a prompt and measure it on held-out rows. Whatever you build must be better than it: "
    "`cloudtune evaluate` shows whether it is."
)


class Reason(Value, frozen=True, kw_only=True):
    """Why an approach fits or does not."""

    approach: Approach
    effect: Effect
    text: str


class Advice(Value, frozen=True, kw_only=True):
    """What to use, and why."""

    recommended: tuple[Approach, ...]
    """The approaches to combine."""
    summary: str
    """The same in words."""
    reasons: tuple[Reason, ...]
    first_step: str = FIRST_STEP
    comparison: dict[str, dict[str, str]]
    """For each approach and some combinations, a text for each criterion."""


def advise(file: str | Path | None = None, **situation: Any) -> Advice:
    """Recommend prompting, RAG, fine-tuning, continued pre-training, training from scratch or a combination.

    Args:
        file: A YAML, JSON or TOML file with fields of `Situation`.
        situation: Fields of `Situation`. They replace those of the file.

    Raises:
        InputError: A field is missing or invalid. The error has all problems.
    """
    return advice_for(situation_from(situation, file))


def advice_for(situation: Situation) -> Advice:
    """The advice for a situation."""
    reasons = [Reason(approach=rule.approach, effect=rule.effect, text=rule.reason)
               for rule in RULES if rule.holds(situation)]  # fmt: skip
    used = {one.approach for one in reasons if one.effect == "use"}
    if not used:
        is_poor = situation.rows in ("none", "tens") or situation.budget_usd < FINE_TUNING_USD
        text = PROMPTING_ONLY if is_poor else PROMPTING
        reasons.insert(0, Reason(approach="prompting", effect="use", text=text))
        used = {"prompting"}
    recommended = tuple(one for one in get_args(Approach) if one in used)
    return Advice(
        recommended=recommended, summary=named(recommended),
        reasons=tuple(sorted(reasons, key=lambda one: one.effect != "use")), comparison=comparison(),
    )  # fmt: skip


def named(approaches: tuple[Approach, ...]) -> str:
    """The approaches in words."""
    *others, last = [NAMES[one] for one in approaches]
    return f"{', '.join(others)} and {last}" if others else last


def comparison() -> dict[str, dict[str, str]]:
    """The comparison table: for each approach and some combinations, a text for each criterion."""
    return {named(one): dict(zip(CRITERIA, texts, strict=True)) for one, texts in COMPARISON.items()}
