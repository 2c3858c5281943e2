"""Questions with their contexts as token ids: long contexts in windows that overlap, each after the whole question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudtune_trainer.tasks.padded import check_fast

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_BATCH = 500
OVERLAP = 3
"""Windows overlap by this part of ``max_length``, and a question may take the other parts."""


@dataclass(frozen=True)
class Window:
    """A question and a part of its context."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    """Characters of the context of each token; (0, 0) for tokens outside it."""
    types: list[int]
    """The tokenizer's ``token_type_ids``: whether a token is of the question or of the context; 0 if it has none."""

    def span_of(self, answer: str, start: int) -> tuple[int, int]:
        """The first and the last token of that answer; token 0 for both if it is not as a whole in the window."""
        start += len(answer) - len(answer.lstrip())
        end = start + len(answer.strip())
        cells = [place for place, (begin, stop) in enumerate(self.offsets) if stop > start and begin < end]
        if not cells or self.offsets[cells[0]][0] > start or self.offsets[cells[-1]][1] < end:
            return 0, 0
        return cells[0], cells[-1]


class Windows:
    """Splits questions and contexts into windows."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        check_fast(tokenizer, "characters")
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._overlap = max_length // OVERLAP
        self._longest = max_length - tokenizer.num_special_tokens_to_add(pair=True) - self._overlap - 1

    def of(self, rows: Sequence[tuple[str, str]]) -> Iterator[list[Window]]:
        """The windows of each question and context; none for a question that is too long."""
        for first in range(0, len(rows), _BATCH):
            chunk = rows[first : first + _BATCH]
            sizes = map(len, self._tokenizer([row[0] for row in chunk], add_special_tokens=False)["input_ids"])
            fitting = [place for place, size in enumerate(sizes) if size <= self._longest]
            found: list[list[Window]] = [[] for _ in chunk]
            if fitting:
                self._fill(found, chunk, fitting)
            yield from found

    def _fill(self, found: list[list[Window]], chunk: Sequence[tuple[str, str]], places: Sequence[int]) -> None:
        encoded = self._tokenizer(
            [chunk[place][0] for place in places], [chunk[place][1] for place in places],
            truncation="only_second", max_length=self._max_length, stride=self._overlap,
            return_overflowing_tokens=True, return_offsets_mapping=True,
        )  # fmt: skip
        for number, row in enumerate(encoded["overflow_to_sample_mapping"]):
            sides = encoded.sequence_ids(number)
            offsets = [
                (begin, end) if side == 1 else (0, 0)
                for side, (begin, end) in zip(sides, encoded["offset_mapping"][number], strict=True)
            ]
            ids = list(encoded["input_ids"][number])
            types = list(encoded["token_type_ids"][number]) if "token_type_ids" in encoded else [0] * len(ids)
            found[places[row]].append(Window(ids, offsets, types))
