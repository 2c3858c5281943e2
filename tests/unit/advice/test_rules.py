"""The advice: the rules that the field teaches hold, and the table in the documentation is what the rules say."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

from cloudtune.advice import Situation, advise
from cloudtune.advice.advise import advice_for
from cloudtune.advice.rules import COMPARISON, CRITERIA, RULES
from cloudtune.advice.situation import CHOICES
from cloudtune.errors import InputError

PAGE = Path(__file__).parents[3] / "docs" / "advise.md"
DATA = {
    "little": {"rows": 20, "texts": 50}, "thousands of labeled pairs": {"rows": 5000},
    "millions of texts": {"rows": "none", "texts": "millions"},
}  # fmt: skip
GRID = list(product(("style", "knowledge"), ("never", "daily"), DATA, (100, 50_000)))
BUDGETS = (0, 100, 50_000, 2_000_000)


def recommended(change: str, updates: str, data: str, usd: float) -> set[str]:
    return set(advise(change=change, updates=updates, budget_usd=usd, **DATA[data]).recommended)


def expected(change: str, updates: str, data: str, usd: float) -> set[str]:
    """What the field teaches, in its own words and without the table of rules."""
    found = set()
    if updates == "daily":  # constantly fresh information
        found.add("rag")
    if data == "thousands of labeled pairs":
        found.add("fine_tuning")
    if data == "millions of texts" and usd == 50_000:
        found.add("continued_pretraining")
    if change == "knowledge" and (data, usd) in (("little", 100), ("little", 50_000), ("millions of texts", 100)):
        found.add("rag")  # knowledge that is only in documents, and no training
    return found or {"prompting"}


@pytest.mark.parametrize(("change", "updates", "data", "usd"), GRID, ids=str)
def test_the_24_combinations_follow_the_rules_of_the_field(change: str, updates: str, data: str, usd: float) -> None:
    assert recommended(change, updates, data, usd) == expected(change, updates, data, usd)


def test_little_data_and_budget_means_prompting_or_rag() -> None:
    for change, updates in product(("style", "knowledge"), ("never", "daily")):
        assert recommended(change, updates, "little", 100) <= {"prompting", "rag"}


def test_style_with_fresh_information_means_both() -> None:
    assert recommended("style", "daily", "thousands of labeled pairs", 100) == {"rag", "fine_tuning"}


def test_the_page_has_the_24_combinations() -> None:
    lines = [
        f"| {change} | {updates} | {data} | ${usd:,} | "
        f"{advise(change=change, updates=updates, budget_usd=usd, **DATA[data]).summary} |"
        for change, updates, data, usd in GRID
    ]
    assert len(lines) == 24
    assert "\n".join(lines) in PAGE.read_text()


def test_the_program_on_the_page_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    exec(compile(program, str(PAGE), "exec"), {})
    summary, *reasons = capsys.readouterr().out.splitlines()
    assert f"print(advice.summary)  # {summary}" in program
    assert reasons[0].startswith("rag use ")


def test_no_approach_is_both_recommended_and_refused() -> None:
    used = set()
    changes = (("style",), ("task",), ("knowledge",), ("language",), ("style", "language"))
    levels = product(CHOICES["updates"], CHOICES["rows"], CHOICES["texts"], BUDGETS)
    for change, (number, (updates, rows, texts, usd)) in product(changes, enumerate(levels)):
        given = Situation.model_construct(
            change=change, updates=updates, rows=rows, texts=texts, budget_usd=usd, cite_sources=number % 2 == 0,
            low_latency=number % 3 == 0,
        )  # fmt: skip
        holding = [rule for rule in RULES if rule.holds(given)]
        used |= {rule.reason for rule in holding}
        effects = {(rule.approach, rule.effect) for rule in holding}
        assert len(effects) == len({approach for approach, _ in effects}), given
        if rows in ("none", "tens"):
            assert ("fine_tuning", "use") not in effects
    assert used == {rule.reason for rule in RULES}, "a rule that never holds"
    advice = advice_for(given)
    assert set(advice.recommended) == {one.approach for one in advice.reasons if one.effect == "use"}


def test_transparency_latency_and_languages_decide() -> None:
    base = {"change": "task", "updates": "never", "rows": 300, "budget_usd": 500}
    assert advise(**base).summary == "fine-tuning"
    assert advise(**base, cite_sources=True).summary == "RAG and fine-tuning"
    knowledge = base | {"change": "knowledge"}
    assert advise(**knowledge).summary == "prompting"
    assert advise(**knowledge, low_latency=True).summary == "fine-tuning"
    language = {"change": "language", "updates": "never", "rows": "none", "texts": "millions"}
    assert advise(**language, budget_usd=50_000).summary == "continued pre-training"
    assert advise(**language, budget_usd=5e6).summary == "training from scratch"


def test_every_approach_is_compared_by_every_criterion() -> None:
    assert {len(texts) for texts in COMPARISON.values()} == {len(CRITERIA)}
    assert {name for names in COMPARISON for name in names} == {rule.approach for rule in RULES} | {"prompting"}


@pytest.mark.parametrize(
    ("count", "word"), [(0, "none"), ("7", "tens"), (99, "tens"), (100, "hundreds"), ("1,000", "thousands"),
                        (999_999, "thousands"), (1_000_000, "millions"), ("tens", "tens")],
)  # fmt: skip
def test_numbers_of_rows_are_read_as_words(count: object, word: str) -> None:
    assert Situation(change="style", updates="never", rows=count, budget_usd=1).rows == word


def test_all_problems_are_reported_at_once_with_their_lines(memory_path: Path) -> None:
    file = memory_path / "s.yaml"
    file.write_text("change: [stile]\nrows: -1\nrows: 5\nbudget_usd: .nan\nfresh: true\n")
    with pytest.raises(InputError) as caught:
        advise(file, cite_sources="perhaps")
    found = [(one.field, one.line) for one in caught.value.problems]
    assert {("change.0", 1), ("updates", None), ("budget_usd", 4), ("fresh", 5), ("cite_sources", None)} <= set(found)
    file.write_text("change: [style]\nrows: 5000\nbudget_usd: 60\nupdates: never\n")
    assert advise(file).summary == "fine-tuning"
    assert advise(file, updates="daily").summary == "RAG and fine-tuning"
