"""Held-out shares: by content and seed alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property_tests import examples

from cloudtune.data import encode, prepare
from cloudtune.errors import DataError
from cloudtune.spec import Data

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, prompts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"prompt": prompt, "completion": "x"}) + "\n" for prompt in prompts))
    return path


def sides(path: Path, tmp: Path, **shares: Any) -> dict[str, list[str]]:
    """The prompts on each side."""
    data = Data.model_validate({"train": str(path), **shares})
    found = {}
    for split, info in prepare(data).splits.items():
        out = encode(data, split=split, format="cloudtune", to=tmp / split, expect_sha256=info.sha256)
        found[split] = [json.loads(line)["messages"][0]["content"] for line in out.path.read_bytes().splitlines()]
    return found


@settings(max_examples=examples(20), deadline=None)
@given(st.integers(0, 10), st.randoms(use_true_random=False), st.sampled_from([(0.2, None), (0.1, 0.3), (None, 0.5)]))
def test_sides_are_disjoint_whole_and_stable(
    tmp_path_factory: pytest.TempPathFactory, seed: int, random: Any, shares: tuple[float | None, float | None]
) -> None:
    tmp = tmp_path_factory.mktemp("split")
    prompts = [*map(str, range(300)), *(str(random.randint(0, 299)) for _ in range(100))]
    random.shuffle(prompts)
    requested = {"validation": shares[0], "test": shares[1], "split_seed": seed}
    before = sides(write(tmp / "a.jsonl", prompts), tmp, **requested)
    # every row is somewhere once, in its order; equal rows are on one side
    assert sorted(p for side in before.values() for p in side) == sorted(prompts)
    where = {prompt: split for split, side in before.items() for prompt in side}
    assert all(set(side) == {p for p in prompts if where[p] == split} for split, side in before.items())
    for split, side in before.items():
        assert side == [p for p in prompts if where[p] == split]
    # new rows move no old one, and neither does another order
    more = [*prompts, *(f"new {i}" for i in range(50))]
    random.shuffle(more)
    after = sides(write(tmp / "a.jsonl", more), tmp, **requested)
    assert all(where[p] == split for split, side in after.items() for p in side if p in where)


def test_shares_are_about_as_asked_and_the_seed_matters(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [str(i) for i in range(5000)])
    one = sides(path, tmp_path, validation=0.1, test=0.2)
    assert 400 < len(one["validation"]) < 600
    assert 880 < len(one["test"]) < 1120
    other = sides(path, tmp_path, validation=0.1, test=0.2, split_seed=1)
    assert set(other["validation"]) != set(one["validation"])


def test_the_fingerprint_is_of_content_not_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ["a", "b"])
    table = tmp_path / "b.csv"
    table.write_text("prompt,completion\na,x\nb,x\n")
    one, two = (prepare(Data.model_validate({"train": str(p)})) for p in (path, table))
    assert one.fingerprint == two.fingerprint
    assert prepare(Data.model_validate({"train": str(write(path, ["b", "a"]))})).fingerprint != one.fingerprint


def test_files_that_changed_since_they_were_checked_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ["a", "b"])
    data = Data.model_validate({"train": str(path)})
    report = prepare(data)
    write(path, ["a", "c"])
    out = tmp_path / "out.jsonl"
    with pytest.raises(DataError) as caught:
        encode(data, split="train", format="cloudtune", to=out, expect_sha256=report.splits["train"].sha256)
    assert caught.value.problems[0].code == "data_changed"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl"]  # nothing is left behind


def test_validation_from_a_file_of_its_own(tmp_path: Path) -> None:
    train, held = write(tmp_path / "a.jsonl", ["a", "b"]), write(tmp_path / "b.jsonl", ["c"])
    assert sides(train, tmp_path, validation=str(held)) == {"train": ["a", "b"], "validation": ["c"]}


def test_an_unknown_output_format_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ["a"])
    with pytest.raises(DataError, match="nope"):
        encode(Data.model_validate({"train": str(path)}), split="train", format="nope", to=tmp_path / "x")
