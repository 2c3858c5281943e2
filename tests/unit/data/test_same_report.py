"""One report, however rows are gone through: compiled or not, one process or several, in blocks of any size."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.property_tests import examples

from cloudtune.data.read import plain_blocks
from cloudtune.data.report import check
from cloudtune.spec import Data

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {"small": 300, "middle": 4000, "whole": 1 << 19}


def chat(answer: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": answer}], **more}


ANSWERS = st.one_of(st.sampled_from(["yes", "no", "maybe", "x" * 41, "y" * 300]), st.integers(0, 120).map(str))
ROWS = st.one_of(
    ANSWERS.map(chat),
    ANSWERS.map(lambda said: chat(said, tools=[{"type": "function", "function": {"name": "f"}}])),
    st.tuples(ANSWERS, st.integers(0, 120)).map(lambda two: chat(two[0], **{f"k{two[1]}": 1})),
    st.sampled_from([{"text": "a"}, chat(" "), chat("<|im_end|>"), {"messages": []}, [1]]),
)
# Short answers come first, long ones later: whether the first ones are labels shows only at the end.
LATE = [chat("yes")] * 60 + [chat("z" * 200)] * 6
EARLY = [chat("z" * 200)] * 6 + [chat("yes")] * 60 + [chat("no")] * 3
MANY = [chat(f"{i}") for i in range(101)]
KEYS = [chat("yes", **{f"k{i}": 1}) for i in range(150)]


def report(data: Data, monkeypatch: pytest.MonkeyPatch, compiled: bool, workers: int, size: int) -> Any:
    with monkeypatch.context() as patch:
        if not compiled:
            patch.setattr(plain_blocks, "compiled", lambda: None)
        patch.setattr("cloudtune.data.read.blocks.BLOCK_BYTES", size)
        patch.setattr("cloudtune.data.read.blocks.PART_BYTES", size // 3)
        patch.setattr("cloudtune.data.read.plain_blocks.PART_BYTES", size // 3)
        patch.setattr("cloudtune.data.read.plain_blocks._WORTH_BYTES", size // 8)
        patch.setattr("cloudtune.data.read.reading._HEAD", size)
        return msgspec.to_builtins(check(data, workers=workers, private=True))


def spec(folder: Path, rows: list[Any], share: float | None, array: bool) -> Data:
    path = folder / "rows.jsonl"
    path.write_text(json.dumps(rows, indent=1) if array else "".join(json.dumps(row) + "\n" for row in rows))
    return Data.model_validate({"train": str(path), "validation": share})


@settings(max_examples=examples(10), deadline=None)
@given(rows=st.lists(ROWS, min_size=1, max_size=60), share=st.sampled_from([None, 0.3]), array=st.booleans())
@example(LATE, None, False)
@example(EARLY, None, False)
@example(EARLY, 0.3, True)
@example(MANY, None, False)
@example(KEYS, None, False)
def test_one_report_in_one_process(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], share: float | None, array: bool
) -> None:
    data = spec(tmp_path_factory.mktemp("same"), rows, share, array)
    with pytest.MonkeyPatch.context() as patch:
        found = [report(data, patch, compiled, 0, size) for size in SIZES.values() for compiled in (True, False)]
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize("rows", [LATE, EARLY, MANY, KEYS], ids=["late", "early", "many", "keys"])
def test_one_report_in_several_processes(
    tmp_path: Path, rows: list[Any], array: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = spec(tmp_path, [*rows, [1], *rows], 0.3, array)
    alone = report(data, monkeypatch, True, 0, 1 << 19)
    assert report(data, monkeypatch, True, 2, 700) == alone


def test_labels_are_told_by_all_rows(tmp_path: Path) -> None:
    labels = [check(spec(tmp_path, rows, None, False)).labels for rows in (LATE, EARLY, MANY)]
    assert labels == [{"yes": 60}, {"yes": 60, "no": 3}, None]
    assert check(spec(tmp_path, [*LATE, chat("z" * 99)], None, False)).labels is None
