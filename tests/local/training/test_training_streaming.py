"""Answers in pieces: what the model writes, as it writes it, and the same answer in the end."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch

from cloudtune_trainer.generate import Answer, Model
from cloudtune_trainer.streaming import TokenStreamer
from cloudtune_trainer.tiny import write_tiny_model

if TYPE_CHECKING:
    from pathlib import Path

ENDS = (0,)


@dataclass
class Written:
    text: str


def decode(tokens: Any) -> str:
    return bytes(tokens).decode("utf-8", "replace")


def heard(text: str, *more: int) -> list[Any]:
    ear = TokenStreamer(decode, ENDS)

    def write() -> Written:
        ear.put(torch.tensor([[7, 7]]))
        for token in (*text.encode(), *more):
            ear.put(torch.tensor([token]))
        ear.end()
        return Written(text)

    return list(ear.listen(write))


@pytest.mark.parametrize("text", ["plain words", "naïve café", "日本語 und 🙂🙂", "", "ends in half \ufffd"])
def test_the_pieces_are_the_answer(text: str) -> None:
    *pieces, whole = heard(text)
    assert "".join(pieces) == whole.text == text
    assert all("\ufffd" not in piece for piece in pieces[:-1])


def test_what_ends_an_answer_is_no_part_of_it() -> None:
    *pieces, _ = heard("yes", 0)
    assert pieces == ["y", "e", "s"]


def test_what_breaks_is_raised_where_one_listens() -> None:
    ear = TokenStreamer(decode, ENDS)

    def write() -> Written:
        ear.put(torch.tensor([[7]]))
        ear.put(torch.tensor([65]))
        raise MemoryError("no room")

    reported = ear.listen(write)
    assert next(reported) == "A"
    with pytest.raises(MemoryError, match="no room"):
        next(reported)


def test_a_model_stops_when_nobody_listens_any_more(tmp_path: Path) -> None:
    write_tiny_model(tmp_path)
    from cloudtune_trainer import models

    network = models.load_model(models.BaseModel(str(tmp_path)), dtype=torch.float32)
    network.generation_config.eos_token_id = None
    model = Model(network, models.load_tokenizer(models.BaseModel(str(tmp_path))))
    given: dict[str, Any] = {"max_tokens": 400, "temperature": 1.0, "seed": 5}
    whole = next(model.generate(["Well?"], **given))
    *pieces, same = model.stream("Well?", **given)
    assert isinstance(same, Answer)
    assert same == whole
    assert "".join(str(piece) for piece in pieces) == whole.text
    reported = model.stream("Well?", **given)
    next(reported)
    reported.close()  # type: ignore[attr-defined]
    assert not [one for one in threading.enumerate() if one.name == "cloudtune answer"]
    assert next(model.generate(["Well?"], **given)) == whole
