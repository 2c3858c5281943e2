"""The cost of answers: the estimate, its limit, and the price of the counted tokens."""

from __future__ import annotations

from typing import Any

import pytest

from cloudtune.backend import Capabilities
from cloudtune.cost import AnswerPrice
from cloudtune.errors import PolicyRefused
from cloudtune.evaluation.compare import Answered
from cloudtune.evaluation.costs import EvaluationCost, Questions, check, estimate
from cloudtune.evaluation.evaluating import _distinct, _tokens, _usage
from cloudtune.evaluation.models import EvaluatedModel
from cloudtune.evaluation.runs import ModelRun, _size
from cloudtune.prompts import ToolPrompt
from cloudtune.state import Generation, TunedModel

PRICE = AnswerPrice(prompt=1.0, answer=2.0, source="a page")


class Vendor:
    """Knows one price."""

    capabilities = Capabilities(supports=frozenset())

    def __init__(self, price: AnswerPrice | None) -> None:
        self.name, self._price = "vendor", price

    def answer_price(self, model: TunedModel, *, base: bool = False) -> AnswerPrice | None:
        return self._price


def model_of(price: AnswerPrice | None) -> EvaluatedModel:
    vendor: Any = Vendor(price)
    return EvaluatedModel("m", vendor, TunedModel(id="m", base="m", backend="vendor", scope=""), "identity")


@pytest.mark.parametrize(("most", "cap", "unknown"), [
    (0.5, 0.4, ()), (0.5, float("nan"), ()), (0.0, 5.0, ("m",)),
])  # fmt: skip
def test_a_cost_that_may_exceed_the_limit_is_refused(most: float, cap: float, unknown: tuple[str, ...]) -> None:
    with pytest.raises(PolicyRefused):
        check(EvaluationCost(answers=1, usd=0.0, at_most_usd=most, unknown=unknown), cap)


def test_the_most_is_never_below_the_cost() -> None:
    asked = Questions("m", model_of(PRICE), False, 1, 1, 1, 1)
    cost = estimate([asked])
    assert cost.at_most_usd >= PRICE.usd(1 + 32, 1) > 0
    with pytest.raises(PolicyRefused):
        check(cost, 1e-6)
    exact = Questions("m", model_of(PRICE), False, 1, 268, 1, 0)
    assert estimate([exact]).at_most_usd == 0.0003


def test_the_definitions_of_tools_are_part_of_the_prompt() -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "x" * 5000}}
    assert _size(ToolPrompt(messages=({"role": "user", "content": "Hi"},), tools=(tool,))) > 5000


def test_models_of_one_name_have_their_own_prices() -> None:
    other = AnswerPrice(prompt=10.0, answer=20.0, source="a page")
    runs = _distinct([ModelRun("m", "other", model_of(price), []) for price in (PRICE, other)])
    answers = [Generation(text="a", prompt_tokens=1_000_000, completion_tokens=0)]
    found = _usage([Answered(run.name, "other", ["a"], answers) for run in runs], runs)
    assert [one.usd for one in found.values()] == [1.0, 10.0]


def test_tokens_that_are_not_counted_cost_an_unknown_amount() -> None:
    counted = Generation(text="a", prompt_tokens=5, completion_tokens=1)
    assert _tokens([Generation(text="a")], PRICE) is None
    some = _tokens([counted, Generation(text="a")], PRICE)
    assert some is not None
    assert (some.prompt_tokens, some.usd) == (5, None)
    all_of_them = _tokens([counted], PRICE)
    assert all_of_them is not None
    assert all_of_them.usd is not None
