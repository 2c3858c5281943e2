"""However rows are gone through (at once, one by one, by other processes) the same comes of it: to the last byte."""

from __future__ import annotations

import json
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property_tests import examples
from tests.unit.data.test_formats import READ_AS, RECORDS, chats

from cloudtune.data.checks.record_checks import is_plain
from cloudtune.data.places import Batch
from cloudtune.data.problem_list import Faults
from cloudtune.data.read.blocks import Block
from cloudtune.data.read.decoding import FileRows
from cloudtune.data.read.kinds import row_type
from cloudtune.data.read.kinds_other import kind_named
from cloudtune.data.read.plain_blocks import PlainBlocks
from cloudtune.data.read.reading import read
from cloudtune.data.records import Chat, Message, canonical, canonical_lines
from cloudtune.data.report import CheckReport, check, convert, source_data
from cloudtune.data.write.dropped_features import features
from cloudtune.data.write.formats_table import find_format, format_names
from cloudtune.spec import Data, Source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloudtune.data.records import Record

FORMATS = {name: find_format(name) for name in format_names()}

BOM = b"\xef\xbb\xbf"
U, A, S = ({"role": role, "content": "x"} for role in ("user", "assistant", "system"))
ODD = [  # lines that are not plain conversations, or only nearly
    b"", b"  ", b"{", b"null", b"[1]", b'{"messages":[]}', b'{"messages":[{"role":"user","content":"a"}]}',
    b'{"messages":[{"role":"bot","content":"a"}]}', b'{"messages":[{"role":"user","content":" "}]}', b'{"text":"a"}',
    b'{"messages":[{"role":"user","content":"\\ud800"}]}', b'\xff{"messages":[]}', b'{"messages":[{"role":"assistant"',
    *(json.dumps(row).encode() for row in (
        {"messages": [U, A, U]}, {"messages": [U, S, A]}, {"messages": [U, A], "note": 1}, {"messages": [S, U, A, A]},
        {"messages": [U, A | {"weight": 0}]}, {"messages": [U, A | {"content": ""}]}, {"messages": [U, A | {"n": 1}]},
        {"messages": [U, A | {"content": "a<|im_end|>\x07\x7f\x08"}]}, {"messages": [U, A | {"content": None}]},
        {"messages": [U, A]}, {"messages": [U, A | {"content": "another"}]}, {"messages": [S, U, A] + [U, A] * 40},
        {"messages": [U, {"content": "key order", "role": "assistant"}]},
    )),
    b'{"messages":[{"role":"user","content":"a\xffb"},{"role":"assistant","content":"b"}]}',
    b'{"messages":[{"role":"user","content":"a\tb"},{"role":"assistant","content":"b"}]}',
    b'{"messages":[{"role":"user","content":["a"]},{"role":"assistant","content":7}]}',
    b'{"messages":[{"role":"user","content":"\\/ \\u00f1"},{"role":"assistant","content":"\\\\u00f1"}]}',
    b'{"messages":[{"role":"user","content":"a","content":"b"},{"role":"assistant","content":"b"}]}',
    b'{"messages":[{"role":"user","content":"\\n\\t"},{"role":"assistant","content":"b"}]}',
    # A key twice, and a call without its type, which is added: as many keys in the record as in the row.
    (b'{"messages":[{"role":"user","content":"a","content":"b"},{"role":"assistant","tool_calls":['
     b'{"id":"c","function":{"name":"f","arguments":"{}"}}]}]}'),
    (b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],'
     b'"tools":[{"type":"function","function":{}}]}'),
    b'{"messages":[{"role":"user","content":"a"},\r', b'{"messages":[{"role":"user","content":"a"},',
    b'{"role":"assistant","content":"b"}]}',
    b"%b%b" % (2 * (b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}',)),
]  # fmt: skip


def dumped(value: Any, chooser: random.Random) -> bytes:
    """As some writer of JSON might have it, a different one each time."""
    separators = chooser.choice([(",", ":"), (", ", ": "), (" , ", " : ")])
    text = json.dumps(value, separators=separators, ensure_ascii=chooser.random() < 0.5)
    return (chooser.choice(["", "", "", " "]) + text + chooser.choice(["", "", "", " ", "\r"])).encode()


def spaced(value: Any) -> bytes:
    """As Python writes it."""
    return json.dumps(value, ensure_ascii=False).encode()


@st.composite
def files(draw: Any) -> bytes:
    """Mostly plain conversations, at times all of them, with odd lines between."""
    chooser = random.Random(draw(st.integers(0, 1 << 30)))
    rows = draw(st.lists(chats(), max_size=25))
    writers = chooser.choice([lambda value: dumped(value, chooser), spaced, canonical])
    lines = [writers(msgspec.to_builtins(row)) for row in rows if is_plain(row) or chooser.random() < 0.3]
    lines = [line for line in lines for _ in range(chooser.choice([1, 1, 1, 5]))]
    for odd in draw(st.lists(st.sampled_from(ODD), max_size=6)):
        lines.insert(chooser.randint(0, len(lines)), odd)
    return chooser.choice([b"", BOM]) + b"\n".join(lines) + chooser.choice([b"", b"\n"])


class Outcome(NamedTuple):
    report: CheckReport
    written: bytes | None


def outcome(data: Data, folder: Path, form: str | None, workers: int) -> Outcome:
    if form is None:
        return Outcome(check(data, workers=workers), None)
    out = folder / "out.jsonl"
    out.unlink(missing_ok=True)
    dropped = ["tools", "parts", "thoughts", "weights", "repeated_roles", "later_system"]
    report = convert(data, to=form, out=out, workers=workers, allow_dropped=dropped)
    return Outcome(msgspec.structs.replace(report, out=None), out.read_bytes() if report.ok else None)


@contextmanager
def one_by_one() -> Iterator[None]:
    """Every row decoded and looked at alone."""

    def refuse(*_: object) -> Batch:
        raise ValueError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PlainBlocks, "rows", lambda *_: None)
        patch.setattr(FileRows, "_at_once", refuse)
        yield


FORMS = st.sampled_from([None, "cloudtune", "openai", "azure-openai", "bedrock-converse", "claude", "jumpstart-chat",
                         "sharegpt", "prompt-completion"])  # fmt: skip


@settings(max_examples=examples(25), deadline=None)
@given(content=files(), form=FORMS, share=st.sampled_from([None, None, 0.3]), size=st.integers(200, 3000))
def test_at_once_and_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, form: str | None, share: float | None, size: int
) -> None:
    folder = tmp_path_factory.mktemp("way")
    path = folder / "rows.jsonl"
    path.write_bytes(content)
    data = source_data(str(path), **({"validation": share} if share and form is None else {}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cloudtune.data.read.blocks.BLOCK_BYTES", size)
        patch.setattr("cloudtune.data.read.plain_blocks.PART_BYTES", size // 3)
        patch.setattr("cloudtune.data.read.plain_blocks._WORTH_BYTES", size // 8)
        patch.setattr("cloudtune.data.read.reading._HEAD", size)
        at_once = outcome(data, folder, form, 0)
        with one_by_one():
            alone = outcome(data, folder, form, 0)
    assert at_once == alone


ROW = b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}'
# As many values as lines, but not one a line: the second line holds two, the third and the fourth one.
ASTRIDE = ROW + ROW + b"\n" + ROW.replace(b'},{"role":"a', b'},\n{"role":"a')


@pytest.mark.parametrize("odd", [*ODD, ASTRIDE], ids=range(len(ODD) + 1))
def test_one_odd_line_between_plain_ones(tmp_path: Path, odd: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    head = ROW + b"\n"
    path.write_bytes(head * 1500 + odd + b"\n" + head * 3)  # beyond the first block, which is always looked at closely
    for form in (None, "openai"):
        found = outcome(source_data(str(path)), tmp_path, form, 0)
        with one_by_one():
            assert found == outcome(source_data(str(path)), tmp_path, form, 0)


def sample(path: Path, seed: int, rows: int) -> Path:
    """A file of so many lines with faults all over it, made from a seed."""
    chooser = random.Random(seed)
    with path.open("wb") as out:
        for number in range(rows):
            pairs = [[U | {"content": f"q{number} ñ\n"}, A | {"content": "a" * chooser.randint(1, 90)}]
                     for _ in range(chooser.randint(1, 3))]  # fmt: skip
            row = {"messages": [S] * chooser.randint(0, 1) + [turn for pair in pairs for turn in pair]}
            out.write(dumped(row, chooser) + b"\n")
            if chooser.random() < (0.2 if number > rows / 2 else 0.001):
                out.write(chooser.choice(ODD) + b"\n")
    return path


def good_rows(path: Path, to: Path) -> Path:
    """Those lines that a conversion takes."""
    bad = {problem.line for problem in check(str(path), workers=0, problems=100_000).problems
           if problem.severity == "error"}  # fmt: skip
    lines = path.read_bytes().split(b"\n")
    to.write_bytes(b"\n".join(line for number, line in enumerate(lines, 1) if number not in bad))
    return to


@pytest.mark.parametrize("form", [None, "openai", "bedrock-converse"])
def test_here_and_in_two_other_processes(tmp_path: Path, form: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudtune.data.read.blocks.BLOCK_BYTES", 100 << 10)
    compare_processes(tmp_path, form, seed=1, rows=3000)


def compare_processes(folder: Path, form: str | None, seed: int, rows: int) -> None:
    path = sample(folder / "rows.jsonl", seed, rows)
    if form is not None:
        path = good_rows(path, folder / "good.jsonl")
    for more in ({}, {"validation": 0.2}) if form is None else ({},):
        data = source_data(str(path), **more)
        here, there = (outcome(data, folder, form, workers) for workers in (0, 2))
        with one_by_one():
            alone = outcome(data, folder, form, 0)
        assert here.report.rows > rows / 2
        assert here.report.ok == (form is not None)
        assert there == here == alone


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(40))
def test_here_and_in_two_other_processes_at_length(tmp_path: Path, seed: int) -> None:
    compare_processes(tmp_path, [None, "openai", "claude", "bedrock-converse"][seed % 4], seed + 100, 20_000)


# --- rows that are in the format already


@pytest.mark.parametrize("name", sorted(name for name, form in FORMATS.items() if form.own))
@settings(max_examples=examples(12), deadline=None)
@given(data=st.data())
def test_rows_in_the_format_are_written_from_records(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: Any
) -> None:
    form = FORMATS[name]
    chooser = random.Random(data.draw(st.integers(0, 1 << 30)))
    lines: list[bytes] = []
    raw: list[bytes] = []
    for record in data.draw(st.lists(RECORDS[min(form.kinds)], min_size=1, max_size=4)):
        if not features(record) - form.carries and (line := written(name, record)):
            lines.append(line + b"\n")
            raw.append(dumped(json.loads(line), chooser) + b"\n")
    if not lines:
        return
    folder = tmp_path_factory.mktemp("same")
    (folder / "rows.jsonl").write_bytes(b"".join(raw))
    source = Source(path=str(folder / "rows.jsonl"), kind=READ_AS[name] or "auto")
    report = convert(source, to=name, out=folder / "out.jsonl", workers=0)
    assert report.ok, report.problems
    assert (folder / "out.jsonl").read_bytes() == (BOM if form.bom else b"") + b"".join(lines)


def written(name: str, record: Record) -> bytes | None:
    """The record in the format; None if it breaks a rule of the format, or is not read back from it as it is."""
    form = FORMATS[name]
    try:
        line = form.line(record, canonical(record))
    except ValueError:
        return None
    if any(problem.severity == "error" for rule in form.rules for problem in rule.problems(record)):
        return None
    kind = READ_AS[name]
    assert kind is not None
    (back,) = FileRows("-", {}, row_type(kind_named(kind), {}), Faults()).of_block(Block(line, 1, lines=1)).records
    return line if form.line(back, canonical(back)) == line else None


@pytest.mark.parametrize("workers", [0, 2])
def test_a_large_file_is_written_from_its_records(tmp_path: Path, workers: int) -> None:
    path = good_rows(sample(tmp_path / "rows.jsonl", 5, 4000), tmp_path / "good.jsonl")
    report = convert(str(path), to="openai", out=tmp_path / "out.jsonl", workers=workers)
    assert report.ok
    batches = read(Source(path=str(path)), Faults())
    assert (tmp_path / "out.jsonl").read_bytes() == canonical_lines([row for one in batches for row in one.records])


def test_unused_keys_and_empty_values_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "Q", "completion": "A", "system": null, "id": 7}\n{"prompt": "R",  "completion": "B"}')
    convert(str(path), to="bedrock-prompt", out=tmp_path / "out.jsonl", workers=0)
    assert (tmp_path / "out.jsonl").read_bytes() == (
        b'{"prompt":"Q","completion":"A"}\n{"prompt":"R","completion":"B"}\n'
    )


# --- the two ways agree on what is plain


@settings(max_examples=examples(30), deadline=None)
@given(rows=st.lists(chats(), min_size=1, max_size=4))
def test_a_block_is_plain_when_its_records_are(rows: list[Chat]) -> None:
    block = Block(b"".join(canonical(row) + b"\n" for row in rows), 1, lines=len(rows))
    found = PlainBlocks().rows(block)
    assert (found is not None) == all(map(is_plain, rows))
    if found is not None:
        assert list(found) == rows == [*found[:]]
        assert found.joined == block.data
        assert found.short_answers(10_000) == [row.messages[-1].content for row in rows]
        assert [found.chars(i) for i in range(len(rows))] == [sum(len(m.text) for m in row.messages) for row in rows]


LINE = b'{"messages":[{"role":"user","content":%b},{"role":"assistant","content":"b"}]}\n'
SPACES = [chr(code) for code in range(0x110000) if chr(code).isspace()]


@pytest.mark.parametrize("text", [*SPACES, "".join(SPACES), " \n" * 3, "", "\u200b", "\ufeff"], ids=ascii)
def test_texts_of_white_space_alone_are_found_in_every_way(text: str) -> None:
    for said in (text, text + "a", "a" + text, f" {text}", f"{text}\u00e9", f"{text}\u65e5"):
        for content in (json.dumps(said), json.dumps(said, ensure_ascii=False)):
            line = (
                b'{"messages":[{"role":"user","content":%b},{"role":"assistant","content":"b"}]}\n' % content.encode()
            )
            found = PlainBlocks().rows(Block(line, 1, lines=1))
            assert (found is not None) == bool(said.strip())
            if found is not None:
                assert found.joined == canonical(Chat([Message("user", said), Message("assistant", "b")])) + b"\n"


@pytest.mark.parametrize("turns", [1, 2, 40, 61, 62, 63, 64, 65, 130])
def test_long_conversations_are_gone_through_all_the_same(tmp_path: Path, turns: int) -> None:
    chat = Chat([Message("assistant" if i % 2 else "user", f"{i}") for i in range(turns)])
    (tmp_path / "a.jsonl").write_bytes((canonical(chat) + b"\n") * 2)
    report = check(str(tmp_path / "a.jsonl"), workers=0)
    assert report.ok == (turns % 2 == 0)
