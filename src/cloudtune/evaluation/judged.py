"""What a judge model found: rates of good answers, corrected for the judge's errors by labels of people.

References: Rogan and Gladen, "Estimating prevalence from the results of a screening test" (1978); Lang and Reiczigel,
"Confidence limits for prevalence of disease adjusted for estimated sensitivity and specificity" (2014).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from cloudtune.evaluation.compare import Score
from cloudtune.evaluation.statistics import Z, wilson
from cloudtune.state import Value

if TYPE_CHECKING:
    from collections.abc import Sequence

Mode = Literal["rubric", "pairwise"]


class Agreement(Value, frozen=True, kw_only=True):
    """How the judge's judgments agree with labels of people."""

    good: int
    """Answers that people call good: right by the rubric, or the better of two."""
    found_good: int
    """Those of them that the judge calls good."""
    bad: int
    found_bad: int

    @property
    def sensitivity(self) -> float | None:
        """The share of good answers that the judge calls good. None without labels of good answers."""
        return self.found_good / self.good if self.good else None

    @property
    def specificity(self) -> float | None:
        """The share of other answers that the judge does not call good."""
        return self.found_bad / self.bad if self.bad else None


class JudgedModel(Value, frozen=True, kw_only=True):
    """The answers of one model, as the judge sees them."""

    model: str
    against: str | None = None
    """For a pairwise judgment, the other model."""
    good: int
    """Answers that the judge calls right by the rubric, or better in both orders."""
    worse: int | None = None
    """For a pairwise judgment: answers that are worse in both orders. The rest are ties."""
    judged: int
    unclear: int
    """Answers without a judgment. No rate includes them."""
    order_decided: int | None = None
    """For a pairwise judgment: rows on which the judge prefers the answer in one place. They count as ties."""
    rate: Score | None
    """The share of good answers among those judged. None if none is."""
    corrected: Score | None = None
    """The rate, corrected for the judge's sensitivity and specificity. None without labels that allow it."""


class Unclear(Value, frozen=True, kw_only=True):
    """An answer without a judgment, and why."""

    model: str
    """Empty for a label of people."""
    file: str
    line: int
    reason: str


class Judged(Value, frozen=True, kw_only=True):
    """What a judge model found."""

    judge: str
    """The model, as `Client.evaluate` takes it."""
    mode: Mode
    prompt_version: int
    rubric: str | None = None
    """Its text."""
    models: tuple[JudgedModel, ...]
    agreement: Agreement | None = None
    """None without labels of people."""
    unclear: tuple[Unclear, ...] = ()

    def sentences(self) -> list[str]:
        """The result in words. A rate never stands without the judge's agreement with people, or that it is unknown."""
        return [self._of_model(one) for one in self.models] + self._about_unclear()

    def _of_model(self, one: JudgedModel) -> str:
        what = (f"{one.model} satisfies the rubric" if self.mode == "rubric"
                else f"{one.model} is better than {one.against}")  # fmt: skip
        if one.rate is None:
            return f"Judge {self.judge}: no answer of {one.model} is judged."
        raw = f"by the judge's count, {what} in {_percent(one.rate)} of {one.judged:,} answers"
        if one.worse is not None:
            ties = one.judged - one.good - one.worse
            raw += f", worse in {one.worse:,}, and equal in {ties:,} ({one.order_decided or 0:,} by order only)"
        if self.agreement is None:
            return f"Judge {self.judge}, not checked against people: {raw}."
        checked = _agreement_text(self.agreement)
        if one.corrected is None:
            return f"Judge {self.judge}: {raw}. {checked} So the rate cannot be corrected."
        return f"Judge {self.judge}: {what} in {_percent(one.corrected)}, corrected; {raw}. {checked}"

    def _about_unclear(self) -> list[str]:
        if not self.unclear:
            return []
        first = self.unclear[0]
        verb = "judgment is" if len(self.unclear) == 1 else "judgments are"
        return [f"{len(self.unclear):,} {verb} missing and in no rate, first {first.file}:{first.line}: {first.reason}"]


def _percent(one: Score) -> str:
    return f"{100 * one.value:.1f}% ({100 * (one.low or 0):.1f} to {100 * (one.high or 0):.1f})"


def _agreement_text(found: Agreement) -> str:
    count, right = found.good + found.bad, found.found_good + found.found_bad
    text = f"It agrees with {right:,} of {count:,} labels of people"
    if found.sensitivity is None or found.specificity is None:
        return f"{text}, which are all {'good' if found.good else 'bad' if found.bad else 'without a judgment'}."
    worst = " It is no better than chance." if found.sensitivity + found.specificity <= 1 else ""
    return f"{text} (sensitivity {found.sensitivity:.1%}, specificity {found.specificity:.1%}).{worst}"


def rate(good: Sequence[bool], groups: Sequence[object]) -> tuple[Score, float]:
    """The share of good answers with Wilson's interval, and the effective number of answers.

    Answers of one group can depend on each other, so they count as fewer: the number is the one with which independent
    answers would have the variance of the groups.
    """
    count, share = len(good), sum(good) / len(good)
    totals: dict[object, float] = {}
    for one, group in zip(good, groups, strict=True):
        totals[group] = totals.get(group, 0.0) + one - share
    squares = math.fsum(value * value for value in totals.values())
    effective = float(count)
    if len(totals) < count:
        effective = float(len(totals))
        if squares > 0:
            variance = squares / count**2 * len(totals) / max(1, len(totals) - 1)
            effective = min(float(count), share * (1 - share) / variance)
    return Score(**wilson(share * effective, effective)._asdict()), effective


def corrected(share: float, count: float, found: Agreement) -> Score | None:
    """The share of good answers, corrected for the errors of the judge, with Lang and Reiczigel's 95% interval.

    Rogan and Gladen's estimate, (share + specificity - 1) / (sensitivity + specificity - 1), within 0 and 1.

    Args:
        share: The share that the judge calls good.
        count: The number of judged answers.
        found: The agreement with labels of people.

    Returns None if there are no labels of good or of bad answers, or if the judge is no better than chance.
    """
    sensitivity, specificity = found.sensitivity, found.specificity
    if sensitivity is None or specificity is None or sensitivity + specificity <= 1:
        return None
    value = (share + specificity - 1) / (sensitivity + specificity - 1)
    # The interval adds z squared answers, half of them good, and to the labels of each kind one right and one wrong.
    answers, good, bad = count + Z * Z, found.good + 2, found.bad + 2
    p, se, sp = (count * share + Z * Z / 2) / answers, (found.found_good + 1) / good, (found.found_bad + 1) / bad
    scale = se + sp - 1
    if scale <= 0:
        return None
    center = (p + sp - 1) / scale
    of_se, of_sp = se * (1 - se) / good, sp * (1 - sp) / bad
    shift = 2 * Z * Z * (center * of_se - (1 - center) * of_sp)
    error = Z * math.sqrt(p * (1 - p) / answers + center**2 * of_se + (1 - center) ** 2 * of_sp) / scale
    value = min(1.0, max(0.0, value))
    low, high = max(0.0, center + shift - error), min(1.0, center + shift + error)
    return Score(value=value, low=min(low, value), high=max(high, value))
