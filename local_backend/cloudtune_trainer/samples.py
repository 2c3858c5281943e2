"""Records as token ids with a mask of the trained tokens, in flat arrays: 5 bytes per token, for any number of records.

Nothing is dropped silently: `Samples.cuts` lists truncated and dropped samples with their lines.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cloudtune_trainer.content_loss import losses
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.rendering import Rendered, Renderer
from cloudtune_trainer.token_spans import SpanEncoder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence, Sized

    from numpy.typing import NDArray

    from cloudtune_trainer.records import Record

_BATCH = 1000
"""Texts per call of the tokenizer, which uses all cores."""


@dataclass
class Cuts:
    """Rows that exceed ``max_length``: row numbers, counted from 1."""

    truncated: list[int] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    unlearnt: list[int] = field(default_factory=list)
    """Rows without trained tokens, e.g. no assistant turn or weight 0 on all of them."""
    unshown: dict[str, list[int]] = field(default_factory=dict)
    """Rows whose content the chat template partly drops: see ``content_loss``."""
    unshown_texts: dict[str, str] = field(default_factory=dict)
    """The first text of each kind."""
    split: int = 0
    """Texts that were split into several sequences; no token is lost."""
    lost_tokens: int = 0
    """Trained tokens that were cut off."""


@dataclass(frozen=True)
class Samples:
    """Token ids of all samples and the mask of trained tokens. Sample i is ``ids[starts[i]:starts[i + 1]]``."""

    ids: NDArray[np.int32]
    learn: NDArray[np.bool_]
    starts: NDArray[np.int64]
    cuts: Cuts

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sample."""
        return np.diff(self.starts)

    def rows(self, chosen: Sequence[int]) -> list[NDArray[np.int32]]:
        """The token ids of these samples."""
        return [self.ids[self.starts[i] : self.starts[i + 1]] for i in chosen]

    @property
    def groups(self) -> list[list[int]]:
        """Samples that are evaluated in one batch, as the windows of a document are. By default each is alone."""
        return [[number] for number in range(len(self))]

    def token_budget(self, max_length: int, rows: int) -> int:
        """Tokens of an evaluation batch that needs as much memory as that many rows in training."""
        return max_length * rows

    @property
    def learnt_tokens(self) -> int:
        """The number of tokens in the loss; a sample's first token has no earlier token to be predicted from."""
        return int(self.learn.sum() - self.learn[self.starts[:-1]].sum())


def starts_of(rows: Iterable[Sized]) -> NDArray[np.int64]:
    """Where each row starts in an array of all of them, and at last the length of that array."""
    return np.cumsum([0, *map(len, rows)], dtype=np.int64)


class _Collector:
    """Adds samples one by one, within ``max_length``."""

    def __init__(self, max_length: int) -> None:
        self._max = max_length
        self._ids: list[NDArray[np.int32]] = []
        self._learn: list[NDArray[np.bool_]] = []
        self.cuts = Cuts()

    def whole(self, ids: list[int]) -> None:
        """Train on every token; a text that is too long continues in the next sequence."""
        array = np.asarray(ids, dtype=np.int32)
        pieces = [array[i : i + self._max] for i in range(0, len(array), self._max)]
        self.cuts.split += len(pieces) > 1
        for piece in pieces:
            if len(piece) > 1:  # a single token has no token to predict
                self._ids.append(piece)
                self._learn.append(np.ones(len(piece), dtype=np.bool_))

    def part(self, row: int, ids: list[int], learnt: list[tuple[int, int]]) -> None:
        """Train only on ranges of tokens. A long sample is cut, or dropped if no trained token remains."""
        learn = np.zeros(len(ids), dtype=np.bool_)
        for begin, end in learnt:
            learn[begin:end] = True
        learn[:1] = False
        kept = learn[: self._max]
        if not kept.any():
            (self.cuts.dropped if learn.any() else self.cuts.unlearnt).append(row)
        else:
            if len(ids) > self._max:
                self.cuts.truncated.append(row)
            self._ids.append(np.asarray(ids[: self._max], dtype=np.int32))
            self._learn.append(kept)
        self.cuts.lost_tokens += int(learn.sum() - kept.sum())

    def finish(self) -> Samples:
        if not self._ids:
            raise nothing_left(self.cuts, self._max)
        return Samples(np.concatenate(self._ids), np.concatenate(self._learn), starts_of(self._ids), self.cuts)


def nothing_left(cuts: Cuts, max_length: int) -> TrainingProblem:
    """The error for data without any sample."""
    return TrainingProblem(
        "bad_data",
        f"no training tokens are left: {len(cuts.dropped)} rows exceed max_length "
        f"({max_length} tokens) before their first trained token, {len(cuts.unlearnt)} rows have none",
        "Raise max_length, or check loss_on and the weights of the assistant messages.",
    )


def encode_records(
    records: Iterable[Record], tokenizer: Any, *, loss_on: str, max_length: int, whole: bool = False
) -> Samples:
    """Tokens of all records, in a single pass over them.

    ``whole``: train on every token of a dialogue, and split long ones like texts.
    """
    collector = _Collector(max_length)
    renderer, spans = Renderer(tokenizer, loss_on="all" if whole else loss_on), SpanEncoder(tokenizer)
    left, first = iter(records), 0
    while chunk := list(itertools.islice(left, _BATCH)):
        texts = [(i, record["text"]) for i, record in enumerate(chunk) if "text" in record]
        chats = []
        for i, record in enumerate(chunk):
            if "text" in record:
                continue
            if "chosen" in record or "completion" in record:
                what = "preference pairs and rated answers require a preference method"
                raise TrainingProblem("bad_data", f"row {first + i + 1}: {what}")
            found = rendered(renderer, record, collector.cuts, row=first + i + 1)
            if not found:
                collector.cuts.unlearnt.append(first + i + 1)
            chats += [(i, sample) for sample in found]
        text_ids = dict(zip((i for i, _ in texts), _encode_texts([t for _, t in texts], tokenizer), strict=True))
        chat_ids = spans.encode([sample for _, sample in chats])
        by_row: dict[int, list[tuple[Rendered, list[int], list[tuple[int, int]]]]] = {}
        for (i, sample), (ids, learnt) in zip(chats, chat_ids, strict=True):
            by_row.setdefault(i, []).append((sample, ids, learnt))
        for i in range(len(chunk)):  # in the order of the file, for all kinds of records
            if i in text_ids:
                collector.whole(text_ids[i])
            for sample, ids, learnt in by_row.get(i, ()):
                if sample.spans is None and whole:
                    collector.whole(ids)
                else:
                    collector.part(first + i + 1, ids, learnt)
        first += len(chunk)
    return collector.finish()


def rendered(renderer: Renderer, record: Record, cuts: Cuts, *, row: int) -> list[Rendered]:
    """The record's samples as text. Adds lost content to the cuts. Raises `TrainingProblem` that names the row."""
    try:
        samples = renderer.render(record["messages"], record.get("tools"))
    except TrainingProblem as problem:
        raise TrainingProblem(problem.code, f"row {row}: {problem.message}", problem.hint) from problem
    for loss in losses(record["messages"], record.get("tools"), samples):
        rows = cuts.unshown.setdefault(loss.kind, [])
        if rows[-1:] != [row]:
            rows.append(row)
        cuts.unshown_texts.setdefault(loss.kind, loss.quoted)
    return samples


def _encode_texts(texts: list[str], tokenizer: Any) -> Iterator[list[int]]:
    if not texts:
        return
    end = tokenizer.eos_token_id
    for ids in tokenizer(texts, return_attention_mask=False, verbose=False)["input_ids"]:
        yield [*ids, end] if end is not None and (not ids or ids[-1] != end) else ids
