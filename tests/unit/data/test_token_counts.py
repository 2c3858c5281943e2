"""The tokens of a split: exact with the tokenizer at hand, and otherwise bounds that contain the exact number."""

from __future__ import annotations

import json
import wave
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property_tests import examples

from cloudtune.data import prepare
from cloudtune.data.checks import preparing, token_counts
from cloudtune.data.checks.limits import length_problem
from cloudtune.data.checks.targets import find_target
from cloudtune.data.checks.token_counts import SplitTokens, TokenBounds, unread
from cloudtune.data.records import Answers as AnswerSpans
from cloudtune.data.records import (
    Chat,
    Function,
    Item,
    Labelled,
    Message,
    Pair,
    Preference,
    Question,
    Rated,
    Tagged,
    Text,
    Tool,
    ToolCall,
    canonical,
    canonical_lines,
    decoded,
    kind_of,
)
from cloudtune.spec import Data
from cloudtune_providers.openai_dialect.tokens import OpenAITokens

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtune.plan import SplitInfo, TokenCount

pytest.importorskip("bpe_openai")

ENCODINGS = ("o200k_base", "cl100k_base")
COUNTERS = {name: OpenAITokens(name) for name in ENCODINGS}
TARGET = find_target("openai", "gpt-4.1-mini-2025-04-14", "sft")

# Letters of several scripts with their marks, white space of all sorts, what JSON escapes, and words.
_pieces = st.one_of(
    st.text(max_size=12),
    st.text(alphabet=' \u00a0\u3000\u2003\t\n\r\\"a1.\u00b2\u0915\u093f\u0e33\u064e', max_size=20),
    st.sampled_from(
        [" the", "don't ", "हिन्दी ", "ภาษาไทย", "العَرَبِيَّة ", "12345 ", " \n \n \n", "    return x\n", "漢字 "]
    ),
)
_texts = st.lists(_pieces, min_size=1, max_size=8).map("".join).filter(str.strip)
_word = st.text(alphabet="abc_", min_size=1, max_size=8)
_calls = st.builds(ToolCall, id=_word, function=st.builds(Function, name=_word, arguments=_texts))
_user = st.builds(Message, role=st.just("user"), content=_texts, name=_texts)
_answer = st.one_of(
    st.builds(Message, role=st.just("assistant"), content=_texts, reasoning_content=_texts),
    st.builds(Message, role=st.just("assistant"), content=_texts),
    st.builds(Message, role=st.just("assistant"), tool_calls=st.lists(_calls, min_size=1, max_size=2)),
)
_turns = st.lists(st.one_of(_user, _answer), min_size=1, max_size=4)
_tools = st.just([Tool("function", {"name": "f", "description": "what it does", "fields": {}})])
RECORDS = st.one_of(
    st.builds(Chat, messages=_turns),
    st.builds(Chat, messages=_turns, tools=_tools),
    st.builds(Preference, messages=_turns, chosen=_turns, rejected=_turns),
    st.builds(Rated, messages=_turns, completion=_turns, label=st.booleans()),
    st.builds(Item, messages=_turns, fields=st.dictionaries(_word, _texts, max_size=3)),
    st.builds(Text, text=_texts),
    st.builds(Labelled, text=_texts, label=st.sampled_from(["good", "not so good"])),
    st.builds(Pair, source=_texts, target=_texts),
    st.builds(Tagged, tokens=st.lists(_texts, min_size=1, max_size=3), tags=st.just(["X"])),
    st.builds(
        Question, question=_texts, context=_texts,
        answers=st.builds(AnswerSpans, text=st.lists(_texts, max_size=2), answer_start=st.just([0])),
    ),
)  # fmt: skip


def bounds_of(lines: bytes, rows: int = 1) -> tuple[int, int]:
    bounds = TokenBounds()
    bounds.add(lines, rows)
    return bounds.least(unread=unread(lines)), bounds.most()


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(max_examples=examples(25), deadline=None)
@given(record=RECORDS)
def test_bounds_contain_the_exact_count(encoding: str, record: Any) -> None:
    (count,) = COUNTERS[encoding].count([record])
    least, most = bounds_of(canonical(record))
    assert least <= count <= most, (least, count, most)
    assert decoded(canonical_lines([record]), kind_of(record)) == [record]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_token_spans_two_gaps(encoding: str) -> None:
    """The whole vocabulary: a token that begins with a space may start one gap, another one none."""
    wrong = []
    for token in COUNTERS[encoding]._encoding.token_byte_values():
        if b" " not in token:
            continue
        # Gaps that end within this token: as in JSON, and without spaces whose next character is in another token.
        written = json.dumps(token.decode("latin-1"), ensure_ascii=False)[1:-1].encode("latin-1").rstrip(b" ")
        bounds = TokenBounds()
        bounds.add(written, 0)
        if bounds.least(unread=False) > written.startswith(b" "):
            wrong.append(token)
    assert not wrong


@pytest.mark.parametrize(
    "words", ["हिन्दी में लिखा हुआ ", "เขียนเป็นภาษาไทย ", "كَتَبَ الوَلَدُ رِسَالَةً ", "written in English ", "漢字で書く "]
)
def test_a_row_within_the_limit_is_never_refused(words: str) -> None:
    record = Text(words * 50)
    (limit,) = COUNTERS["o200k_base"].count([record])
    problem = length_problem(canonical(record), limit)
    assert (problem.code, problem.severity) == ("maybe_too_long", "warning")


# -- in a report -------------------------------------------------------------------------------------------------------


def chat(n: int) -> dict[str, Any]:
    return {"prompt": f"question number {n}?", "completion": "yes, it is " * (n % 7 + 1)}


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def split_infos(data: dict[str, Any], target: Any = TARGET) -> dict[str, SplitInfo]:
    return prepare(Data.model_validate(data), target=target).splits


def exact(rows: list[dict[str, Any]]) -> int:
    chats = [Chat([Message("user", row["prompt"]), Message("assistant", row["completion"])]) for row in rows]
    return sum(COUNTERS["o200k_base"].count([*chats]))


def contains(bounds: TokenCount | None, count: int) -> bool:
    return bounds is not None and not bounds.counted_by and 0 < bounds.least < count < bounds.most


def test_each_split_is_counted_exactly(tmp_path: Path) -> None:
    train, validation = [chat(n) for n in range(40)], [chat(n) for n in range(100, 115)]
    files = {"train": written(tmp_path / "a.jsonl", train), "validation": written(tmp_path / "b.jsonl", validation)}
    found = split_infos(files)
    for split, rows in (("train", train), ("validation", validation)):
        tokens = found[split].tokens
        assert tokens is not None
        assert (tokens.least, tokens.most, tokens.counted_by) == (exact(rows), exact(rows), "o200k_base")
    bounded = split_infos(files, TARGET._replace(tokenizer=None))
    assert contains(bounded["train"].tokens, exact(train))
    assert contains(bounded["validation"].tokens, exact(validation))


def test_held_out_shares_are_counted_apart(tmp_path: Path) -> None:
    rows = [chat(n) for n in range(60)]
    data = {"train": written(tmp_path / "a.jsonl", rows), "validation": 0.3, "test": 0.2}
    counts = [info.tokens.least for info in split_infos(data).values() if info.tokens]
    assert len(counts) == 3
    assert sum(counts) == exact(rows)


def test_mixed_in_rows_are_counted_as_often_as_drawn(tmp_path: Path) -> None:
    rows, other = [chat(n) for n in range(40)], [{"prompt": "What?", "completion": "That."}]
    path = written(tmp_path / "other.jsonl", other)
    data = {"train": written(tmp_path / "a.jsonl", rows), "mix": [{"path": path, "weight": 0.25}]}
    tokens = split_infos(data)["train"].tokens
    assert tokens is not None
    assert tokens.least == tokens.most == exact(rows) + 10 * exact(other)
    assert contains(split_infos(data, TARGET._replace(tokenizer=None))["train"].tokens, tokens.least)


def test_many_rows_are_only_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [chat(n) for n in range(40)]
    data = {"train": written(tmp_path / "a.jsonl", rows)}
    size = split_infos(data)["train"].bytes
    monkeypatch.setattr(token_counts, "COUNTED_BYTES", size)
    tokens = split_infos(data)["train"].tokens
    assert tokens is not None
    assert tokens.counted_by == "o200k_base"
    monkeypatch.setattr(token_counts, "COUNTED_BYTES", size - 1)
    assert contains(split_infos(data)["train"].tokens, tokens.least)


@pytest.mark.parametrize("tokenizer", ["o200k_base", None])
def test_other_processes_find_the_same_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: str | None
) -> None:
    rows = [chat(n) for n in range(4_000)]
    data = {"train": written(tmp_path / "a.jsonl", rows), "validation": 0.1}
    target = TARGET._replace(tokenizer=tokenizer)
    found = []
    for workers in (0, 2):
        monkeypatch.setattr(preparing, "workers_for", lambda _, workers=workers: workers)
        found.append(split_infos(data, target))
    assert found[0] == found[1]


def test_a_text_that_the_tokenizer_refuses_is_bounded() -> None:
    tokens = SplitTokens("o200k_base")
    lines = canonical_lines([Text("a word " * 150_000)])
    tokens.add(lines, 1)
    found = tokens.total(["text"], [])
    assert found is not None
    assert (found.counted_by, found.least, found.most) == ("", 300_000, len(lines))


def test_images_and_sound_are_not_bounded(tmp_path: Path) -> None:
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "https://a.example/b"}},
    ]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": "a cat"}]
    row = {"messages": messages}
    path = written(tmp_path / "a.jsonl", [row] * 12)
    target = find_target("openai", "gpt-4o-2024-08-06", "sft")
    assert split_infos({"train": path}, target)["train"].tokens is None
    assert split_infos({"train": path}, None)["train"].tokens is None
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 16_000, 0, "NONE", ""))
        sound.writeframes(bytes(range(200)) * 40)
    heard = written(tmp_path / "b.jsonl", [{"audio": "a.wav", "transcript": "hello"}] * 12)
    report = prepare(Data.model_validate({"train": heard}), method="speech_recognition")
    assert report.splits["train"].tokens is None
