"""Edges of the rules of the data package: the last value that a rule accepts, and branches that are rare."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, cast

import pytest
import tokenizers

from cloudtune.data.checks.measuring import _one_by_one
from cloudtune.data.checks.preparing import _larger
from cloudtune.data.checks.tokens import TokenCounter
from cloudtune.data.conversation_rules import not_alternating, unmatched_calls
from cloudtune.data.places import Located
from cloudtune.data.problem_list import Faults
from cloudtune.data.read.arrow import dataset_files
from cloudtune.data.read.blocks import Block, _skip_line
from cloudtune.data.read.explain import _rename, headerless
from cloudtune.data.read.kinds_other import KINDS, deciding, kind_named
from cloudtune.data.read.reading import read
from cloudtune.data.read.tables import MAX_COLUMNS, _good_header
from cloudtune.data.records import Chat, ImagePart, ImageUrl, Message, Preference, Text, TextPart
from cloudtune.data.report import check
from cloudtune.data.write.dropped_features import ALL, _joined, _last_turns, without
from cloudtune.data.write.formats import Format
from cloudtune.data.write.preview import html_page, view
from cloudtune.data.write.profile import profile_page
from cloudtune.spec import Source

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


def test_images_of_users_stay_if_those_of_results_are_lost() -> None:
    parts: list[Any] = [TextPart("a"), ImagePart(ImageUrl("https://example.com/a.png"))]
    asked, result, answer = Message("user", parts), Message("tool", parts, tool_call_id="1"), Message("assistant", "b")
    kept = without(Chat([asked, result, answer]), {"tool_images"}).messages
    assert (kept[0], kept[1].content, kept[2]) == (asked, "a", answer)


def test_an_answer_of_a_pair_ends_with_its_last_learned_turn() -> None:
    turns = [Message("assistant", "a"), Message("user", "b"), Message("assistant", "c", weight=0)]
    pair = Preference([Message("user", "q")], turns, [Message("assistant", "d")])
    assert without(pair, {"weights"}).chosen == turns[:1]
    with pytest.raises(ValueError, match="no assistant message is learned"):
        without(Preference(pair.messages, turns[2:], pair.rejected), {"weights"})


def test_a_format_with_all_features_of_one_kind_does_not_carry_all() -> None:
    formats = [Format("a", "", kinds, carries).carries_all
               for kinds in (frozenset[str](), frozenset({"chat"})) for carries in (ALL, frozenset[str]())]  # fmt: skip
    assert formats == [True, False, False, False]


def test_the_splits_of_a_dataset_folder_are_listed(tmp_path: Path) -> None:
    for splits, message in ((["train", "test"], "splits train, test"), ([], "splits none")):
        (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": splits}))
        faults = Faults(9)
        assert dataset_files(tmp_path, faults) == []
        assert [one.message for one in faults.kept("error")] == [f"this folder contains the {message}"]


def test_a_prompt_is_not_repeated_before_whole_conversations(tmp_path: Path) -> None:
    whole = [[{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}] for answer in "ab"]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "q", "chosen": whole[0], "rejected": whole[1]}) + "\n")
    (batch,) = read(Source(path=str(tmp_path / "rows.jsonl")), Faults())
    (pair,) = cast("list[Preference]", batch.records)
    assert len(pair.messages) == len(pair.chosen) == 1


def test_answers_are_found_where_a_template_writes_earlier_turns_differently(tmp_path: Path) -> None:
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({letter: i for i, letter in enumerate("ab[]1?")}))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    made.save(str(tmp_path / "tokenizer.json"))
    written = "{% for m in messages %}{% if m.role == 'assistant' and not loop.last %}[1]{% endif %}{{ m.content }}"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": written + "{% endfor %}"}))
    turns = [Message("user", "?"), Message("assistant", "a"), Message("user", "b?"), Message("assistant", "b")]
    text, spans = TokenCounter(str(tmp_path)).spans(Chat(turns))
    assert text == "?[1]ab?b"
    assert [span.start for span in spans if span.learnt] == [4, 7]


def test_a_record_that_the_template_refuses_has_no_tokens() -> None:
    class OnlyShort:
        def count(self, records: list[Any]) -> list[int]:
            if any(len(one.text) > 1 for one in records):
                raise ValueError("no")
            return [1 for _ in records]

    found: list[Any] = []
    counted = _one_by_one(cast("Any", OnlyShort()), Located("a", [1, 2, 3]), [Text("a"), Text("bb"), Text("c")], found)
    assert counted == [1, 0, 1]
    assert [(one.code, one.line) for one in found] == [("template", 2)]


def test_a_profile_names_the_place_of_a_problem(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"prompt": 1, "completion": "b"}\n')
    page = profile_page(check(str(tmp_path / "rows.jsonl"), workers=0), "rows")
    assert f"<td>{tmp_path}/rows.jsonl:2<td>" in page
