"""The break-even between the base model with a long prompt and the tuned model."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest

import cloudtune
from cloudtune.advice import Prices, break_even
from cloudtune.advice.prices import PRICES, prices_of
from cloudtune.cost import CostEstimate
from cloudtune.errors import InputError
from cloudtune.evaluation.result import Evaluation
from cloudtune.ledger.costs import JobCost
from cloudtune.ledger.rows import Attempt
from cloudtune.plan import DataReport, Plan, Resolved

BASE, TUNED = "base model, 5 examples", "job"
KNOWN = Prices(training=120.0, hosting_month=90.0, base_input=1.0, base_output=2.0, tuned_input=1.5, tuned_output=3.0)


def evaluation(
    *, base: int = 1020, tuned: int = 20, spread: int = 0, rows: int = 40, of_group: int = 1, counted: bool = True,
    **comparison: Any,
) -> Evaluation:  # fmt: skip
    """An evaluation in which the base model's prompts have about ``base`` tokens, and each answer has 20."""
    tokens = [{BASE: [base + spread * (number % 5 - 2), 20], TUNED: [tuned, 20]} for number in range(rows)]
    found = {
        "model": TUNED, "against": BASE, "role": "few_shot", "metric": "accuracy", "difference": 0.1, "low": 0.05,
        "high": 0.15, "p_value": 0.01, "test": "permutation", "verdict": "helped", "detectable": 0.1, "same_answers": 3,
    }  # fmt: skip
    document = {
        "rows": rows, "groups": rows, "kind": "pair", "task": "text", "metrics": ["accuracy"], "verdict": "",
        "models": [{"name": name, "role": role, "scores": {}} for name, role in ((TUNED, "tuned"), (BASE, "few_shot"))],
        "comparisons": [found | comparison], "overlap": {"checked": False, "reason": ""},
        "answers": [{"file": "t", "line": number, "group": number // of_group, "prompt": f"p{number}", "expected": "",
                     "answers": {}, "tokens": one if counted else {}} for number, one in enumerate(tokens)],
    }  # fmt: skip
    return msgspec.convert(document, Evaluation)


def test_the_break_even_is_the_one_computed_by_hand() -> None:
    # Base: 1,020 x $1 + 20 x $2 = $1,060 per million requests. Tuned: 20 x $1.5 + 20 x $3 = $90. Saving: $970.
    # Fixed: $120 / 12 months + $90 = $100 a month. 100 / 0.000970 = 103,092.8 requests.
    found = break_even(evaluation(), KNOWN)
    assert found.decision == "above"
    assert found.requests_per_month is not None
    assert found.requests_per_month.value == pytest.approx(103_092.78, abs=0.01)
    assert found.requests_per_month.low == found.requests_per_month.high == pytest.approx(103_092.78, abs=0.01)
    base, tuned = found.monthly_usd(found.requests_per_month.value) or (0, 1)
    assert base == pytest.approx(tuned) == pytest.approx(109.278, abs=0.001)
    assert "103,093 requests per month" in found.summary
    assert cloudtune.break_even(evaluation(), KNOWN, months=6).requests_per_month.value == pytest.approx(113_402.06)


def test_the_interval_has_the_spread_of_rows_and_of_the_estimate() -> None:
    spread = break_even(evaluation(spread=300), KNOWN).requests_per_month
    assert spread is not None
    assert spread.low < 103_092 < spread.high
    estimated = msgspec.structs.replace(KNOWN, training_low=60.0, training_high=240.0)
    found = break_even(evaluation(), estimated).requests_per_month
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(95 / 970e-6), pytest.approx(110 / 970e-6))
    bounds = break_even(evaluation(), msgspec.structs.replace(estimated, training=None)).requests_per_month
    assert bounds is not None
    assert (bounds.value, bounds.low) == (None, found.low)


def test_rows_of_one_group_are_not_independent() -> None:
    def width(of_group: int) -> float:
        # Rows of one group have one length, so that a group says as much as one row.
        found = evaluation(rows=40)
        tokens = [{BASE: [1020 + 300 * (number // of_group % 5 - 2), 20], TUNED: [20, 20]} for number in range(40)]
        rows = [row | {"tokens": one, "group": number // of_group}
                for number, (row, one) in enumerate(zip(found.answers, tokens, strict=True))]  # fmt: skip
        saving = break_even(msgspec.structs.replace(found, answers=tuple(rows)), KNOWN).saving_per_request_usd
        assert saving is not None
        return saving.high - saving.low

    assert width(of_group=8) > 2 * width(of_group=1)
    assert "too few independent rows" in break_even(evaluation(of_group=40), KNOWN).missing[0]


@pytest.mark.parametrize("name", PRICES)
def test_an_unknown_price_is_named_and_never_zero(name: str) -> None:
    found = break_even(evaluation(), msgspec.structs.replace(KNOWN, **{name: None}))
    assert (found.decision, found.requests_per_month) == ("undecided", None)
    assert found.summary == "The break-even cannot be decided from this data."
    assert found.missing == (f"the price {name} is unknown: {PRICES[name]}",)
    free = break_even(evaluation(), msgspec.structs.replace(KNOWN, **{name: 0.0}))
    assert free.decision == ("never" if name == "base_input" else "above")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"verdict": "worse", "difference": -0.1, "low": -0.15, "high": -0.05}, "is worse than"),
        ({"verdict": "no evidence", "low": -0.2, "high": 0.2}, "may be 20.0% of the metric's range worse"),
        ({"verdict": "no evidence", "low": None, "high": None}, "do not show that the tuned model is as good"),
        ({"verdict": "no evidence", "metric": "wer", "low": 0.0, "high": 0.0}, "do not show"),
        ({"verdict": "no evidence", "metric": "calibration_error", "low": -0.5, "high": 0.1}, "10.0% of"),
        ({"against": "another model"}, "does not compare the quality"),
        ({"counted": False}, "does not have the tokens"),
        ({"base": 60, "spread": 30}, "includes zero"),
        ({"rows": 1}, "too few independent rows"),
    ],
)
def test_what_the_data_cannot_decide_is_not_decided(given: dict[str, Any], reason: str) -> None:
    found = break_even(evaluation(**given), KNOWN)
    assert found.decision == "undecided"
    assert any(reason in one for one in found.missing), found.missing


def test_quality_within_the_margin_is_comparable() -> None:
    near = evaluation(verdict="no evidence", difference=0.0, low=-0.04, high=0.04)
    assert break_even(near, KNOWN).decision == "above"
    assert break_even(near, KNOWN, margin=0.03).decision == "undecided"
    worse = evaluation(verdict="worse", difference=-0.02, low=-0.03, high=-0.01)
    assert break_even(worse, KNOWN).decision == "above"
    with pytest.raises(InputError):
        break_even(near, KNOWN, months=0)


def test_dearer_requests_never_pay_whatever_training_costs() -> None:
    unknown = msgspec.structs.replace(KNOWN, training=None, hosting_month=None)
    assert break_even(evaluation(tuned=5000), unknown).decision == "never"
    free = msgspec.structs.replace(KNOWN, training=0.0, hosting_month=0.0)
    assert break_even(evaluation(), free).decision == "always"


def test_without_a_base_model_nothing_is_compared() -> None:
    found = evaluation()
    alone = msgspec.structs.replace(found, models=found.models[:1], comparisons=())
    assert "does not compare the tuned model with its base model" in break_even(alone, KNOWN).missing[0]


def test_given_prices_replace_known_ones_and_all_faults_are_reported() -> None:
    found = msgspec.structs.replace(KNOWN, training_low=1.0, training_high=2.0).given(["training=7", "base_input=0.5"])
    assert (found.training_bounds, found.base_input) == ((7.0, 7.0), 0.5)
    with pytest.raises(InputError) as caught:
        KNOWN.given(["hosting=1", "training=-1", "training=nan", "training", "base_input=inf"])
    assert len(caught.value.problems) == 5


def test_catalog_prices_have_sources_and_unknown_ones_stay_unknown() -> None:
    nova = prices_of("bedrock", "amazon.nova-2-lite-v1:0:256k", None)
    assert (nova.base_input, nova.base_output, nova.tuned_input, nova.tuned_output) == (0.33, 2.75, 0.3, 2.5)
    assert nova.hosting_month == pytest.approx(1.95)
    assert set(nova.sources) == {"base_input", "base_output", "tuned_input", "tuned_output", "hosting_month"}
    assert nova.unknown() == ["training"]
    assert prices_of("local", "./model", None) == Prices()
    assert prices_of("openai", "gpt-4.1-mini-2025-04-14", None).unknown() == ["training"]
    for model in ("gpt-0", "meta-llama/Llama-3.3-70B-Instruct"):  # the second is a model of a compatible service
        assert prices_of("openai", model, None).unknown() == list(PRICES)
    assert "hosting_month" in prices_of("azure_openai", "gpt-4.1-2025-04-14", None).unknown()  # it depends on the tier


@pytest.mark.parametrize(
    ("estimate", "bounds"),
    [
        ({"usd": 5.0, "at_most_usd": 9.0}, (0.0, 9.0)),
        ({"usd": 5.0, "at_least_usd": 4.0, "at_most_usd": 9.0}, (4.0, 9.0)),
        ({"usd": 5.0, "at_least_usd": 4.0}, (None, None)),  # it can cost more
    ],
)
def test_a_likely_cost_is_not_an_upper_limit(estimate: dict[str, float], bounds: tuple[float | None, ...]) -> None:
    plan = Plan(
        name="n", backend="openai", scope="s", key="k", attempt=1, token="t", spec={}, steps=(),
        data=DataReport(splits={}, fingerprint=""), resolved=Resolved(scope="s"),
        cost=CostEstimate(basis="measured", **estimate),  # type: ignore[arg-type]
    )  # fmt: skip
    attempt = Attempt(key="k", attempt=1, token="t", name="n", backend="openai", scope="s", model="m", ref=None,
                      gone_at=None, begun_at="2026-11-29T00:00:00+00:00", plan=plan)  # fmt: skip
    found = prices_of("openai", "gpt-4.1-mini-2025-04-14", JobCost(attempt=attempt, actual=None))
    assert found.training_bounds == bounds
    assert ("training" in found.unknown()) == (None in bounds)


def test_by_default_training_is_spread_until_the_model_ends() -> None:
    assert break_even(evaluation(), KNOWN).months == 12
    soon = msgspec.structs.replace(KNOWN, ends=datetime.now(UTC).date() + timedelta(days=73))
    assert break_even(evaluation(), soon).months == pytest.approx(2.4, abs=0.05)


def test_a_model_that_ends_soon_is_used_for_less_than_a_year() -> None:
    found = prices_of("openai", "gpt-4.1-mini-2025-04-14", None)
    assert found.ends == date(2027, 1, 14)
    assert found.months_of_use(date(2026, 1, 1)) == 12
    assert found.months_of_use(date(2026, 12, 15)) == pytest.approx(30 * 12 / 365)
    with pytest.raises(InputError, match="does not respond since 2027-01-14"):
        found.months_of_use(date(2027, 1, 14))
    assert Prices().months_of_use(date(2030, 1, 1)) == 12
