"""Records become tokens; what does not fit is cut or dropped, and always reported."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest

from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.records import read_records
from cloudtune_trainer.samples import encode_records
from cloudtune_trainer.tiny import CHAT_TEMPLATE, build_tokenizer

TOKENIZER = build_tokenizer([], chat_template=CHAT_TEMPLATE)  # one token a byte
END = TOKENIZER.eos_token_id


def chat(question: str, answer: str, **extra: int) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer, **extra}]}


def test_texts_are_learnt_whole_and_end() -> None:
    samples = encode_records([{"text": "abc"}, {"text": "de"}], TOKENIZER, loss_on="assistant", max_length=10)
    assert samples.lengths.tolist() == [4, 3]
    assert samples.ids[[3, 6]].tolist() == [END, END]
    assert samples.learn.all()
    assert samples.learnt_tokens == 5, "a text's first token has nothing before it"


def test_long_texts_go_on_in_further_sequences_and_lose_nothing() -> None:
    text = "abcdefghij" * 5
    samples = encode_records([{"text": text}], TOKENIZER, loss_on="all", max_length=16)
    assert samples.lengths.tolist() == [16, 16, 16, 3]
    assert TOKENIZER.decode(samples.ids[:-1]) == text
    assert samples.cuts.split == 1


def test_long_dialogues_are_cut_or_dropped_and_reported() -> None:
    rows = [chat("q", "a"), chat("q", "a" * 100), chat("q" * 100, "a"), chat("q", "a", weight=0)]
    samples = encode_records(rows, TOKENIZER, loss_on="assistant", max_length=40)
    assert samples.cuts.truncated == [2]
    assert samples.cuts.dropped == [3]
    assert samples.cuts.unlearnt == [4]
    assert len(samples) == 2
    assert max(samples.lengths) == 40
    requested = [{"role": "user", "content": "q"}]
    prompt = TOKENIZER.apply_chat_template(requested, tokenize=False, add_generation_prompt=True)
    kept = 40 - len(TOKENIZER(prompt)["input_ids"])
    assert samples.cuts.lost_tokens == (101 - kept) + 2


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(TrainingProblem, match="1 rows exceed max_length") as caught:
        encode_records([chat("q" * 100, "a")], TOKENIZER, loss_on="assistant", max_length=40)
    assert caught.value.code == "bad_data"


def test_cpt_learns_dialogues_whole() -> None:
    samples = encode_records([chat("q" * 50, "a")], TOKENIZER, loss_on="assistant", max_length=40, whole=True)
    assert samples.learn.all()
    assert samples.lengths.tolist()[0] == 40


def test_order_of_the_file_is_kept_whatever_the_kinds() -> None:
    rows = [{"text": "one"}, chat("q", "two"), {"text": "three"}, chat("q", "four")]
    samples = encode_records(rows, TOKENIZER, loss_on="assistant", max_length=99)
    parts = [TOKENIZER.decode(samples.ids[a:b]) for a, b in zip(samples.starts, samples.starts[1:], strict=False)]
    assert [word for part, word in zip(parts, ("one", "two", "three", "four"), strict=True) if word in part] == [
        "one", "two", "three", "four",
    ]  # fmt: skip


def test_more_rows_than_one_batch_of_the_tokenizer() -> None:
    rows = [{"text": f"row {i}"} for i in range(2500)]
    samples = encode_records(rows, TOKENIZER, loss_on="all", max_length=99)
    assert TOKENIZER.decode(samples.ids[samples.starts[2400] : samples.starts[2401] - 1]) == "row 2400"
    assert samples.ids.dtype == np.int32


def test_slow_tokenizers_encode_by_parts() -> None:
    class Slow:
        """A tokenizer that cannot tell where its tokens lie in the text."""

        is_fast = False

        def __getattr__(self, name: str) -> object:
            return getattr(TOKENIZER, name)

    rows = [chat("one two", "three four"), chat("five", "six")]
    fast = encode_records(rows, TOKENIZER, loss_on="assistant", max_length=99)
    slow = encode_records(rows, Slow(), loss_on="assistant", max_length=99)
    assert np.array_equal(fast.ids, slow.ids)
    assert np.array_equal(fast.learn, slow.learn)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: Expecting"),
        ("[1]", "line 2: a record must be an object"),
        ('{"prompt": "x"}', 'line 2: a record requires "text" or'),
        ('{"text": ""}', "line 2: the text is empty"),
        ('{"messages": []}', "line 2: a record requires"),
        ('{"messages": [{"content": "x"}]}', "line 2: a message must be an object with a role"),
        ('{"messages": [{"role": "user", "content": 3}]}', "line 2: a message's content must be a string"),
        ('{"messages": [{"role": "assistant", "content": "x", "weight": 0.5}]}', "line 2: a message's weight"),
    ],
)
def test_bad_lines_are_named(tmp_path, line: str, words: str) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text('{"text": "good"}\n' + line + "\n")
    with pytest.raises(TrainingProblem, match="train.jsonl: " + words.replace("[", r"\[")) as caught:
        read_records(file)
    assert caught.value.code == "bad_data"


def test_all_bad_lines_are_reported_at_once(tmp_path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text("{\n" * 30)
    with pytest.raises(TrainingProblem, match=r"line 1: .*line 10: .*\(and 20 more\)"):
        read_records(file)


def test_no_rows(tmp_path) -> None:
    (tmp_path / "train.jsonl").write_text("\n\n")
    with pytest.raises(TrainingProblem, match="has no records"):
        read_records(tmp_path / "train.jsonl")
    with pytest.raises(TrainingProblem, match="does not exist"):
        read_records(tmp_path / "none.jsonl")


def test_a_file_is_gone_through_and_not_kept(tmp_path) -> None:
    """Its rows need not fit into memory: what stays is a few bytes a token."""
    file = tmp_path / "train.jsonl"
    file.write_text((json.dumps(chat("x" * 4000, "a")) + "\n") * 5000)  # 20 MB
    tracemalloc.start()
    try:
        records = read_records(file)
        assert sum(1 for _ in records) == sum(1 for _ in records) == 5000
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
