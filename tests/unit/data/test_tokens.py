"""Exact counts, held against the transformers library."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cloudtune.data.checks.tokens import TokenCounter
from cloudtune.data.records import Chat, Message, Text
from cloudtune.data.report import check
from cloudtune.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

tokenizers = pytest.importorskip("tokenizers")
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message.role != 'system' %}<|im_start|>system\nhelp<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message.role }}\n{{ message.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|im_start|>", "<|im_end|>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    made.train_from_iterator(["the answer to the question is a word, and a word is an answer"] * 5, trainer)
    made.save(str(path / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "chat_template": TEMPLATE}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path


def chat(*turns: str) -> Chat:
    roles: Any = ["user", "assistant"] * len(turns)
    return Chat([Message(role, text) for role, text in zip(roles, turns, strict=False)])


CHATS = [chat("the question", " the answer ñ"), chat("a", "b", "c\n\nd", "e"),
         Chat([Message("system", "s"), Message("user", "q"), Message("assistant", "a")])]  # fmt: skip


def test_counts_are_those_of_transformers(folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(str(folder))
    expected = []
    for one in CHATS:
        messages = [{"role": m.role, "content": m.content} for m in one.messages]
        text = theirs.apply_chat_template(messages, tokenize=False)
        assert TokenCounter(str(folder)).text(one) == text
        expected.append(len(theirs(text, add_special_tokens=False)["input_ids"]))
    assert TokenCounter(str(folder)).count(list(CHATS)) == expected


def test_what_is_learnt_are_the_answers_and_their_ends(folder: Path) -> None:
    counter = TokenCounter(str(folder))
    text, spans = counter.spans(chat("the question", "the answer", "more", "a word"))
    learnt = "".join(text[span.start : span.end] for span in spans if span.learnt)
    assert learnt == "the answer<|im_end|>\na word<|im_end|>\n"
    row = chat("the question", "the answer", "more", "a word")
    row.messages[1].weight = 0
    text, spans = counter.spans(row)
    assert "".join(text[s.start : s.end] for s in spans if s.learnt) == "a word<|im_end|>\n"
    text, spans = counter.spans(Text("a word"))
    assert all(span.learnt for span in spans)


def test_rows_over_the_limit_are_told_with_what_would_be_cut(folder: Path, tmp_path: Path) -> None:
    rows = [("the question", "the answer"), ("the question " * 40, "a"), ("a", "the answer " * 40)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in rows))
    report = check(str(path), tokenizer=str(folder), max_tokens=60)
    long = [(p.line, p.message) for p in report.problems if p.code == "too_long"]
    assert [line for line, _ in long] == [2, 3]
    assert "whole answer would be truncated" in long[0][1]
    assert "would be truncated" in long[1][1]
    counts = TokenCounter(str(folder)).count([chat(*row) for row in rows])
    assert (report.tokens, report.largest_tokens) == (sum(counts), max(counts))


def test_a_row_that_the_template_refuses(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "strict"
    other.mkdir()
    (other / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system, please') }}{% endif %}" + TEMPLATE
    (other / "chat_template.jinja").write_text(strict)
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n{"system": "s", "prompt": "a", "completion": "b"}\n')
    report = check(str(path), tokenizer=str(other))
    refused = [(p.line, p.code) for p in report.problems if p.severity == "error"]
    assert refused == [(2, "template")]
    assert any("no system, please" in p.message for p in report.problems)


def test_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "tokenizer.json").write_text("{}")
    for path in (tmp_path / "nowhere", tmp_path / "bad"):
        with pytest.raises(DataError) as caught:
            TokenCounter(str(path))
        assert caught.value.problems[0].code == "no_tokenizer"


PANICS = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
"""A normalizer that the tokenizers package panics over."""


def test_a_panic_of_the_tokenizers_package_is_an_error(folder: Path, tmp_path: Path) -> None:
    document = json.loads((folder / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(document | {"normalizer": PANICS}))
    with pytest.raises(DataError, match="not a valid tokenizer"):
        TokenCounter(str(tmp_path))


@pytest.mark.parametrize(
    "template",
    ["{{ 'a' * 30000000000 }}", "{{ messages * 3000000000 }}", "{{ 30000000000 * messages[0].content }}",
     "{{ 2 ** (9 ** 9) }}", "{{ messages|length ** (9 ** 9) }}", "{{ '%99999999999d' % 5 }}",
     "{{ '%*d' % (99999999999, 5) }}", "{{ 'a'.ljust(30000000000) }}", "{{ 'a'.zfill(width=30000000000) }}",
     "{% for i in range(1000000000) %}{% endfor %}"],
)  # fmt: skip
def test_no_operation_of_a_template_takes_all_memory(template: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (tmp_path / "chat_template.jinja").write_text(template)
    with pytest.raises(ValueError, match="rejected by the chat template"):
        TokenCounter(str(tmp_path)).count([chat("a", "b")])


def test_templates_may_calculate(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    template = "{{ '-' * 3 }}{{ 2 ** 10 }}{{ 7 % 4 }}{{ '%05d' % 42 }}{{ [1] * 2 }}{{ 1.5 * 2 }}{{ 'a'.ljust(2) }}|"
    (tmp_path / "chat_template.jinja").write_text(template)
    assert TokenCounter(str(tmp_path)).text(chat("a", "b")) == "---1024300042[1, 1]3.0a |"
