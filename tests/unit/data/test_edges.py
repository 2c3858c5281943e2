"""Edges of the rules of the data package: the last value that a rule accepts, and branches that are rare."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, cast

import pytest
import tokenizers

from cloudtune.data.checks.preparing import _larger
from cloudtune.data.checks.tokens import TokenCounter
from cloudtune.data.conversation_rules import not_alternating, unmatched_calls
from cloudtune.data.problem_list import Faults
from cloudtune.data.read.blocks import Block, _skip_line
from cloudtune.data.read.explain import _rename, headerless
from cloudtune.data.read.kinds_other import KINDS, deciding, kind_named
from cloudtune.data.read.tables import MAX_COLUMNS, _good_header
from cloudtune.data.records import Chat, Message, Text
from cloudtune.data.report import check
from cloudtune.data.write.dropped_features import _joined, _last_turns
from cloudtune.data.write.preview import html_page, view

if TYPE_CHECKING:
    from pathlib import Path


def problems(folder: Path, rows: list[Any], **options: Any) -> dict[str, str]:
    """The message of each problem of a file of these rows, by its code."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {one.code: one.message for one in check(str(folder / "rows.jsonl"), workers=0, **options).problems}


@pytest.mark.parametrize(
    ("method", "labels", "message"),
    [("classification", ["x"] * 9, "all rows have the label 'x'"), ("classification", ["x", "y"], None),
     ("kto", [True] * 9, "all rows have the label true"), ("kto", [True, False], None)],
)  # fmt: skip
def test_rows_of_one_label(method: str, labels: list[Any], message: str | None, tmp_path: Path) -> None:
    texts = {"kto": ("prompt", "completion")}.get(method, ("text",))
    rows = [dict.fromkeys(texts, f"text {number}") | {"label": label} for number, label in enumerate(labels)]
    assert problems(tmp_path, rows, method=method, target="local").get("one_label") == message


@pytest.mark.parametrize("call", [{"name": 5, "arguments": "{}"}, {"name": "f", "arguments": 3}])
def test_a_call_without_name_or_arguments(call: Any, tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "a"}, {"from": "function_call", "value": json.dumps(call)}]
    (message,) = {one for one in problems(tmp_path, [{"conversations": turns}]).values() if "call" in one}
    assert message == "a tool call must have a name and arguments"


def test_blocks_of_a_file_are_joined() -> None:
    rows: Any = object()
    other: Any = object()
    pieces = Block(b"", 1, [(1, b"{}")])
    chunks = [("a", rows, Block(b"1\n", 1, lines=1)), ("a", rows, Block(b"2\n", 2, lines=1)),
              ("a", other, Block(b"3\n", 1, lines=1)), ("a", other, pieces)]  # fmt: skip
    joined = [("a", rows, Block(b"1\n2\n", 1, lines=2)), ("a", other, Block(b"3\n", 1, lines=1)), ("a", other, pieces)]
    assert list(_larger(chunks)) == joined


def test_a_skipped_line_may_end_with_the_block() -> None:
    assert _skip_line(io.BytesIO(b"\nnext")) == b"next"


def test_the_last_number_of_columns() -> None:
    faults = Faults(9)
    assert _good_header([f"c{number}" for number in range(MAX_COLUMNS)], "a.csv", faults)
    assert not _good_header([f"c{number}" for number in range(MAX_COLUMNS + 1)], "a.csv", faults)


def test_without_a_user_turn_all_turns_are_the_last() -> None:
    turns = [Message("assistant", "a"), Message("assistant", "b")]
    assert _last_turns(turns) == turns


def test_a_result_without_the_id_of_its_call() -> None:
    chat = Chat([Message("user", "a"), Message("tool", "b"), Message("assistant", "c")])
    assert next(unmatched_calls(chat)) == (
        "messages[1].tool_call_id", "the tool turn does not say which call it answers",
    )  # fmt: skip


def test_turns_that_are_not_learnt_are_context() -> None:
    shown = view(Chat([Message("user", "a"), Message("assistant", "b", weight=0), Message("assistant", "c")]))
    assert [(piece.text, piece.fate) for piece in shown.pieces if piece.text in "abc"] == [
        ("a", "read"), ("b", "read"), ("c", "learnt"),
    ]  # fmt: skip
    assert "<h2>Row 1</h2>" in html_page([("Row 1", shown)], "rows")


def test_special_tokens_and_padding_are_not_learnt(tmp_path: Path) -> None:
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "a": 1, "b": 2}, unk_token="<s>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    made.enable_padding(length=64)
    made.save(str(tmp_path / "tokenizer.json"))
    _, spans = TokenCounter(str(tmp_path)).spans(Text("a b"))
    assert [(span.start, span.end, span.learnt) for span in spans] == [(0, 0, False), (0, 1, True), (2, 3, True)]


def test_turns_of_one_role_are_joined_if_they_are_texts() -> None:
    plain, weighted = Message("user", "a"), Message("user", "b", weight=0)
    assert _joined(plain, Message("user", "b")) == Message("user", "a\n\nb")
    for one, other in ((plain, weighted), (weighted, plain)):
        with pytest.raises(ValueError, match="plain text"):
            _joined(one, other)


@pytest.mark.parametrize(
    ("roles", "wrong"),
    [("user assistant user assistant", []), ("user assistant tool tool user", []), ("system user", []),
     ("user assistant assistant", ["messages[2].role"]), ("user tool", ["messages[1].role"]),
     ("user system", ["messages[1].role"]), ("assistant", ["messages[0].role"])],
)  # fmt: skip
def test_turns_that_do_not_alternate(roles: str, wrong: list[str]) -> None:
    turns: list[Any] = [Message(cast("Any", role), "a") for role in roles.split()]
    assert [field for field, _ in not_alternating(Chat(turns))] == wrong


@pytest.mark.parametrize(
    ("cells", "fix"),
    [(["Is it?"], "text"), (["Is it?", "yes"], "prompt,completion"), (["Is it?", "yes", "no"], None),
     (["a" * 61], "text"), (["a b c d e f"], "text")],
)  # fmt: skip
def test_a_first_line_of_data_has_a_remedy(cells: list[str], fix: str | None) -> None:
    problem = headerless(cells)
    assert problem is not None
    assert (problem.fix or "").partition("such as ")[2] == (fix or "")
    assert headerless(["a" * 60, "a b c d e", "yes"]) is None


def test_two_keys_are_not_mapped_to_one_name() -> None:
    row = {"completion": "c", "promt": "a", "prompr": "b"}
    assert _rename(row, KINDS["prompt_completion"]) is None


def test_keys_that_decide_the_kind_of_a_row() -> None:
    """A reference answer makes a row an item; an item may have fields of its own."""
    for name in KINDS:
        assert ("ground_truth" in deciding(name)) == (not kind_named(name).keeps_extra)
