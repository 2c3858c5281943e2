"""Lines gone through by the compiled function: never another outcome than the decoder's, and no line too few."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property_tests import examples
from tests.unit.data.test_either_way import LINE, ODD, SPACES, spaced
from tests.unit.data.test_formats import chats

from cloudtune.data._conversations import rows as go_through
from cloudtune.data.checks.record_checks import is_plain
from cloudtune.data.read import plain, plain_blocks
from cloudtune.data.read.blocks import Block
from cloudtune.data.records import Chat, Message, canonical
from cloudtune.data.write.formats_table import find_format
from cloudtune.data.write.row_template import CANONICAL

if TYPE_CHECKING:
    from collections.abc import Callable

    Style = Callable[[Chat], bytes]

CONVERSE = find_format("bedrock-converse").weave


def escaped(row: Chat) -> bytes:
    """Nothing but ASCII."""
    return json.dumps(msgspec.to_builtins(row), indent="\t").replace("\n", "\r").encode()


STYLES: list[Style] = [canonical, lambda row: spaced(msgspec.to_builtins(row)), escaped]


def as_decoded(line: bytes) -> bytes | None:
    """The canonical line of a plain conversation, made from its record."""
    try:
        row = msgspec.json.decode(line, type=Chat)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return canonical(row) if line.startswith(b"{") and is_plain(row) else None


def agree(data: bytes) -> int:
    """How many lines are gone through. What is told of them is what the decoder makes of them."""
    end, joined, lines, has_escapes, woven, *_ = found = go_through(data, 0, CONVERSE)
    mine = data[:end].split(b"\n")
    mine = mine[:-1] if not mine[-1] else mine
    assert end == len(data) or data[end - 1 : end] in {b"\n", b""}
    assert lines == [as_decoded(line) for line in mine]
    assert joined == b"".join(line + b"\n" for line in lines)
    reported = plain.PlainRows(joined, lines, precomputed=plain.Precomputed(*found[4:]))
    decoded = plain.PlainRows(joined)
    for ask in (plain.PlainRows.hashes, plain.PlainRows.prompts, plain.PlainRows.sizes):
        assert ask(reported) == ask(decoded)
    assert woven == (decoded.woven(CONVERSE) if lines else b"")
    assert go_through(data, 0, CANONICAL)[4] == joined
    assert reported.short_answers(9) == decoded.short_answers(9) == [
        said for row in decoded if len(said := str(row.messages[-1].content)) <= 9
    ]  # fmt: skip
    assert has_escapes or not any(b"\\" + sign in joined.replace(b"\\\\", b"") for sign in (b"u", b"b", b"f"))
    return len(lines)


@pytest.mark.parametrize("style", STYLES)
@settings(max_examples=examples(30), deadline=None)
@given(rows=st.lists(chats(), min_size=1, max_size=6))
def test_all_plain_rows_up_to_the_first_other_one(style: Style, rows: list[Chat]) -> None:
    plain_ones = next((number for number, row in enumerate(rows) if not is_plain(row)), len(rows))
    assert agree(b"".join(style(row) + b"\n" for row in rows)) == plain_ones
    assert agree(b"\n".join(map(style, rows))) == plain_ones


@settings(max_examples=examples(75), deadline=None)
@given(rows=st.lists(chats(), min_size=1, max_size=4), seed=st.integers(0, 1 << 30), style=st.sampled_from(STYLES))
def test_whatever_is_changed_is_not_overlooked(rows: list[Chat], seed: int, style: Style) -> None:
    chooser = random.Random(seed)
    data = bytearray(b"".join(style(row) + b"\n" for row in rows))
    for _ in range(chooser.randint(0, 3)):
        at = chooser.randrange(len(data))
        some = bytes(chooser.choices(b'"\\{}[],: \n\tu\x00\xc2\x85\xed\xa0\xf4\x90\xff', k=chooser.randint(0, 2)))
        data[at : at + chooser.randint(0, 2)] = some
    agree(bytes(data))


ROW = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


@pytest.mark.parametrize("row", [ROW, ROW.replace(b": ", b":").replace(b", ", b",")], ids=["spaced", "compact"])
def test_every_byte_counts(row: bytes) -> None:
    assert agree(row * 3) == 3
    for at in range(len(row)):
        for byte in (*b'"\\ ,{x\n\r', row[at] ^ 1):
            agree(row + row[:at] + bytes([byte]) + row[at + 1 :] + row)
        agree(row + row[:at] + row[at + 1 :] + row)
        agree(row + row[:at] + b" " + row[at:] + row)
        agree(row + row[:at])


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_odd_lines_are_not_overlooked(odd: bytes) -> None:
    for style in STYLES:
        line = style(Chat([Message("user", "a"), Message("assistant", "b")])) + b"\n"
        for data in (line + odd + b"\n" + line, odd + b"\n" + line, line + odd):
            agree(data)


TEXTS = ['"', "\\", '\\"', "\\\\", '\\\\"', "\n", 'a\\\n"', '"},{"role":"', '"}, {"role": "', '"}]}\n',
         '{"messages":[{"role":"', "/", "\x00", "\x1f\x7f", "\b\f", "é", "\u2028", "日本", "😀",
         "\ufffd\ufeff"]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
@pytest.mark.parametrize("style", STYLES)
def test_all_kinds_of_texts(style: Style, text: str) -> None:
    for size in (0, 1, 6, 7, 8, 9, 16):
        for said in ("a" * size + text, text + "b" * size, f"a{text * size}"):
            row = Chat([Message("system", said), Message("user", said), Message("assistant", said)])
            assert agree((style(row) + b"\n") * 2) == 2 * is_plain(row)


def test_every_character() -> None:
    for start in range(0, 0x110000, 0x1000):
        text = "a" + "".join(chr(code) for code in range(start, start + 0x1000) if not 0xD800 <= code < 0xE000)
        for style in STYLES:
            row = Chat([Message("user", text), Message("assistant", text)])
            assert agree(style(row)) == 1


@pytest.mark.parametrize("text", [
    b"\\ud800", b"\\udc00", b"\\ud800\\u0041", b"\\ud800a", b"\\u12", b"\\u123", b"\\u00g0", b"\\x41", b"\\", b"\\\\\\",
    b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\x80", b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf0\x80\x80\x80",
    b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xff", b"\x80", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\x1f",
    b"\t", b"\0",
])  # fmt: skip
def test_texts_that_are_none(text: bytes) -> None:
    for padding in (b"", b"1234567", b"12345678"):
        line = LINE % (b'"a' + padding + text + b'"')
        assert agree(line) == 0
        for end in range(len(line)):
            agree(line[:end])


@pytest.mark.parametrize("text", [*SPACES, "".join(SPACES), "", "\u200b", "\ufeff", "\u2003a"], ids=ascii)
def test_texts_of_white_space_alone(text: str) -> None:
    for said in (text, text * 9, text + "a", "a" + text, f"        {text}", f"{text}\u00e9"):
        for content in (json.dumps(said), json.dumps(said, ensure_ascii=False)):
            assert agree(LINE % content.encode()) == bool(said.strip())


def test_lines_that_are_not_plain_are_left_to_others_and_no_more_of_them_than_need_be() -> None:
    odd = b'{"messages":[{"role":"user","content":"a"}]}\n'
    block = Block(ROW * 1000 + odd + ROW * 1000, 7, lines=2001)
    found = [*plain_blocks.PlainBlocks().parts(block)]
    assert [(part.first_line, part.lines, rows is not None) for part, rows in found] == [
        (7, 1000, True), (1007, 1, False), (1008, 1000, True),
    ]  # fmt: skip
    many = plain_blocks.PlainBlocks()
    parts = [
        part for start in range(0, 40_000, 10_000) for part, _ in many.parts(Block(odd * 10_000, start, lines=10_000))
    ]
    assert sum(part.lines for part in parts) == 40_000
    assert len(parts) < 50


def test_wrong_arguments_are_refused() -> None:
    for wrong in ((bytearray(ROW), 0, None), (ROW, "0", None), (ROW, 0, (b"",)), (ROW, 0, (1,) * 6), (ROW, 0)):
        with pytest.raises(TypeError):
            go_through(*wrong)  # type: ignore[arg-type]
    for at in (-1, len(ROW) + 1):
        with pytest.raises(ValueError, match="at"):
            go_through(ROW, at, None)
    assert go_through(ROW, len(ROW), None)[:3] == (len(ROW), b"", [])


def test_without_it_the_decoder_does_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_blocks, "compiled", lambda: None)
    ((block, rows),) = plain_blocks.PlainBlocks().parts(Block(ROW * 20, 1, lines=20))
    assert block.lines == 20
    assert rows is not None
    assert len(rows) == 20


@pytest.mark.soak
def test_nothing_is_read_or_written_beyond_its_memory(tmp_path: Path) -> None:
    """The module built with the address sanitiser goes through the tests above."""
    import sysconfig

    source = Path(plain.__file__).with_name("_conversations.c")
    copy = tmp_path / "_conversations.abi3.so"
    include = sysconfig.get_paths()["include"]
    subprocess.run(["cc", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover", "-shared", "-fPIC",
                    f"-I{include}", str(source), "-o", str(copy)], check=True)  # fmt: skip
    library = subprocess.run(["cc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    script = f"""
import sys, importlib.util
spec = importlib.util.spec_from_file_location("cloudtune.data._conversations", {str(copy)!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
sys.modules[spec.name] = module
import pytest
sys.exit(pytest.main([{__file__!r}, "-q", "-p", "no:cacheprovider", "-m", "not soak"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False,
        env={"LD_PRELOAD": library.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0", "PATH": "/usr/bin:/bin",
             "PYTHONMALLOC": "malloc"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
