"""Datasets that are shaped on the way, in bounded memory and repeatably."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from cloudtune.data import Dataset
from cloudtune.data.records import Chat, Message
from cloudtune.data.transform.shaping import label_of, question_of, shuffled
from cloudtune.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


def chat(question: str, answer: str = "a") -> Chat:
    return Chat([Message("user", question), Message("assistant", answer)])


def made(*rows: Chat) -> Dataset:
    return Dataset(lambda: list(rows))


def asked(rows: Any) -> list[str]:
    return [row.messages[0].content for row in rows]


def test_nothing_is_read_before_it_is_needed_and_everything_again_each_time(tmp_path: Path) -> None:
    rows = Dataset.read(tmp_path / "a.jsonl").filter(lambda row: row.messages[0].content != "b").shuffle(1)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"prompt": p, "completion": "x"}) + "\n" for p in "abc"))
    assert sorted(asked(rows)) == ["a", "c"]
    (tmp_path / "a.jsonl").write_text("{broken\n")
    with pytest.raises(DataError):
        rows.count()


def test_dedupe_keeps_the_first() -> None:
    assert asked(made(chat("a"), chat("b"), chat("a"), chat("a", "other")).dedupe()) == ["a", "b", "a"]


def test_near_duplicates() -> None:
    pytest.importorskip("rensa")
    text = " ".join(f"word{i}" for i in range(60))
    rows = made(chat(text), chat(text.replace("word59", "end")), chat(text.upper() + "!"), chat("short"),
                chat(" ".join(f"else{i}" for i in range(60))))  # fmt: skip
    assert asked(rows.dedupe(near=0.8)) == [text, "short", " ".join(f"else{i}" for i in range(60))]
    assert rows.dedupe(near=1.0).count() == 4  # case and punctuation never count


def test_balance_takes_as_many_of_each_and_is_repeatable() -> None:
    rows = made(*[chat(str(i), "yes" if i % 5 else "no") for i in range(100)])
    kept = list(rows.balance())
    assert Counter(map(label_of, kept)) == {"yes": 20, "no": 20}
    assert kept == list(rows.balance())
    assert kept != list(rows.balance(seed=1))
    assert asked(kept) == sorted(asked(kept), key=int)
    assert Counter(map(label_of, rows.balance(most=30))) == {"yes": 30, "no": 20}


def test_sample_grows_and_keeps_what_it_had() -> None:
    rows = made(*[chat(str(i)) for i in range(2000)])
    small, large = set(asked(rows.sample(0.1))), set(asked(rows.sample(0.3)))
    assert small < large
    assert 150 < len(small) < 250


def test_split_by_group_and_by_label() -> None:
    rows = made(*[chat(f"q{i % 40}", f"answer {i}") for i in range(400)])
    sides = rows.split(0.2, group=question_of)
    train, held = set(asked(sides["train"])), set(asked(sides["validation"]))
    assert train
    assert held
    assert not train & held
    rows = made(*[chat(f"q{i}", "rare" if i % 50 == 0 else "often") for i in range(500)])
    counts = {name: Counter(map(label_of, side)) for name, side in rows.split(0.1, 0.2, stratify=label_of).items()}
    assert counts == {
        "train": {"often": 343, "rare": 7}, "validation": {"often": 49, "rare": 1}, "test": {"often": 98, "rare": 2},
    }  # fmt: skip
    with pytest.raises(ValueError, match="cannot be combined"):
        rows.split(0.1, group=question_of, stratify=label_of)


@pytest.mark.parametrize("memory", [100, 1 << 20])
def test_shuffle_keeps_every_record_in_and_beyond_memory(memory: int) -> None:
    rows = [chat(f"line\nbreak {i}") for i in range(2000)]
    once = list(shuffled(rows, 3, memory=memory))
    assert sorted(asked(once)) == sorted(asked(rows))
    assert asked(once) != asked(rows)
    assert once == list(shuffled(rows, 3, memory=memory))
    assert once != list(shuffled(rows, 4, memory=memory))
    # No trace of the old order: neighbours are strangers.
    numbers = [int(text.split()[-1]) for text in asked(once)]
    near = sum(abs(a - b) < 20 for a, b in pairwise(numbers))
    assert near < 100


def test_mix_draws_by_weight_until_the_first_ends() -> None:
    own, other = made(*[chat(f"own{i}") for i in range(300)]), made(chat("x"), chat("y"))
    mixed = asked(own.mix((other, 0.5), seed=1))
    assert [text for text in mixed if text.startswith("own")] == [f"own{i}" for i in range(300)]
    assert 100 < len(mixed) - 300 < 200
    assert mixed == asked(own.mix((other, 0.5), seed=1))


def test_redact_and_normalise() -> None:
    rows = made(chat("mail a.b@example.org, card 4111 1111 1111 1111, no card 4111 1111 1111 1112",
                     "key AKIAIOSFODNN7EXAMPLE"))  # fmt: skip
    (row,) = rows.redact()
    assert row.messages[0].content == "mail [EMAIL], card [CARD_NUMBER], no card 4111 1111 1111 1112"
    assert row.messages[1].content == "key [SECRET]"
    (row,) = made(chat(" e\u0301\r\n\r\n\r\n\r\na \t\u00a0b\x07 ")).normalise()
    assert row.messages[0].content == "é\n\na b"


def test_write_refuses_losses(tmp_path: Path) -> None:
    rows = made(Chat([Message("system", "s"), Message("user", "q"), Message("assistant", "a")]))
    with pytest.raises(DataError) as caught:
        rows.write(tmp_path / "out.jsonl", "alpaca")
    assert [(p.code, p.row, p.field) for p in caught.value.problems] == [("loss", 1, "system")]
    assert not list(tmp_path.iterdir())
    done = rows.write(tmp_path / "out.jsonl", "alpaca", allow_dropped=["system"])
    assert done.path.read_bytes() == b'{"instruction":"q","input":"","output":"a"}\n'
