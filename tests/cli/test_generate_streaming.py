"""``cloudtune generate --stream``: what is written when, without a service."""

from __future__ import annotations

from typing import Any

import pytest

from cloudtune.cli.generate import _Written
from cloudtune.state import Generation

PIECES = ("The ", "answer\n", "is 5")


class Terminal:
    """Takes what a session puts, call by call."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def put(self, text: str, *, end: str = "\n") -> None:
        self.calls.append(text + end)

    answer = put

    @property
    def text(self) -> str:
        return "".join(self.calls)


def written(requested: list[Any], base: list[Generation], *, streamed: bool) -> Terminal:
    terminal: Any = Terminal()
    writing = _Written(terminal, requested, base)
    for _ in requested:
        for piece in PIECES if streamed else ():
            writing.add(Generation(text=piece, partial=True))
        writing.add(Generation(text="".join(PIECES)))
    writing.close()
    assert [answer.text for answer in writing.answers] == ["".join(PIECES)] * len(requested)
    return terminal  # type: ignore[no-any-return]


@pytest.mark.parametrize("asked", [["2 + 3?"], ["2 + 3?", "1 + 4?"]])
def test_in_pieces_it_is_the_same_text(asked: list[str]) -> None:
    assert written(asked, [], streamed=True).text == written(asked, [], streamed=False).text


def test_each_piece_is_written_as_it_comes() -> None:
    assert written(["2 + 3?"], [], streamed=True).calls[: len(PIECES)] == list(PIECES)


def test_the_base_models_answer_stands_before_the_pieces() -> None:
    terminal = written(["2 + 3?"], [Generation(text="6")], streamed=True)
    assert terminal.calls[0] == "> 2 + 3?\nbase:  6\ntuned: "
    assert terminal.calls[1 : 1 + len(PIECES)] == list(PIECES)


def test_an_answer_that_breaks_off_ends_its_line() -> None:
    terminal: Any = Terminal()
    writing = _Written(terminal, ["2 + 3?"], [])
    writing.add(Generation(text="The ", partial=True))
    writing.close()
    assert terminal.text == "The \n"
    assert writing.answers == []
