"""Extractive question answering: the part of a context that answers a question.

A long context is split into windows, each a sample. In a window without the answer, start and end are its first token.
Evaluation takes the best answer of all windows of a context, as prediction does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.samples import Cuts, Samples
from cloudtune_trainer.sequences import Batch
from cloudtune_trainer.tasks.padded import (
    PART,
    fields_of,
    filled,
    groups_of,
    joined,
    load_with_head,
    logits_in_parts,
    padded,
    rows_at_once,
)
from cloudtune_trainer.tasks.predictor import Prediction, Predictor
from cloudtune_trainer.tasks.squad import exact_and_f1
from cloudtune_trainer.tasks.task import BestMetric, Sums
from cloudtune_trainer.tasks.windows import Window, Windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from cloudtune_trainer.models import BaseModel
    from cloudtune_trainer.records import Record
    from cloudtune_trainer.run_spec import RunSpec
    from cloudtune_trainer.tasks.predictor import Input


class Question(NamedTuple):
    """A row, without its question."""

    context: str
    answers: tuple[str, ...]
    windows: int


@dataclass(frozen=True)
class WindowSamples(Samples):
    """Windows, each with the first and the last token of its answer."""

    spans: NDArray[np.int64]
    offsets: NDArray[np.int32]
    """[tokens, 2]: see `Window.offsets`."""
    types: NDArray[np.int8]
    """See `Window.types`."""
    row_of: NDArray[np.int64]
    questions: tuple[Question, ...]

    @property
    def groups(self) -> list[list[int]]:
        """See `Samples.groups`: the windows of a context."""
        return groups_of(self.row_of)


@dataclass(frozen=True, kw_only=True)
class WindowBatch(Batch):
    """Windows of one forward pass. ``labels`` [windows, 2] are the first and the last token of the answers."""

    rows: tuple[int, ...]
    """The row of each window."""
    questions: dict[int, Question]
    offsets: tuple[list[tuple[int, int]], ...]


class QuestionAnswering:
    """See the module. The metric sums: answers that are right, their F1, and questions."""

    best_metric = BestMetric("f1", higher_is_better=True)
    metric_sums = 3
    peft_task_type = "QUESTION_ANS"
    labels: tuple[str, ...] = ()
    can_pack = False
    packed = False
    needs_reference = False

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.random_weights: tuple[str, ...] = ()
        self.padding = 0
        self._uses_types = False

    def load_model(
        self, base: BaseModel, tokenizer: Any, records: Callable[[], Iterable[Record]], *, dtype: torch.dtype,
        weights: Path | None, dropout: float | None,
    ) -> Any:  # fmt: skip
        """See `Task.load_model`."""
        network = load_with_head(self, base, tokenizer, dtype=dtype, weights=weights, dropout=dropout)
        self._uses_types = uses_types(network)
        return network

    def encode(self, records: Iterable[Record], tokenizer: Any) -> WindowSamples:
        """See `Task.encode`. The first answer of a row is trained on; all of them count in the metrics."""
        max_length = self.spec.hyperparameters.max_length
        rows = [fields_of(record, row, "question", "context", "answers") for row, record in enumerate(records, 1)]
        found = Windows(tokenizer, max_length).of([(question, context) for question, context, _ in rows])
        cuts, kept, questions = Cuts(), list[Window](), list[Question]()
        spans, row_of = list[tuple[int, int]](), list[int]()
        for row, ((_, context, answers), windows) in enumerate(zip(rows, found, strict=True), 1):
            if not windows:
                cuts.dropped.append(row)
                continue
            cuts.split += len(windows) > 1
            texts, starts = answers["text"], answers["answer_start"]
            answer_spans = [window.span_of(texts[0], starts[0]) if texts else (0, 0) for window in windows]
            if texts and not any(map(any, answer_spans)):  # the answer is longer than a window, or has no tokens
                cuts.unlearnt.append(row)
                continue
            kept += windows
            spans += answer_spans
            row_of += [len(questions)] * len(windows)
            questions.append(Question(context, tuple(texts), len(windows)))
        flat = joined([window.ids for window in kept], cuts, max_length)
        offsets = np.concatenate([np.asarray(window.offsets, dtype=np.int32) for window in kept])
        types = np.concatenate([np.asarray(window.types, dtype=np.int8) for window in kept])
        return WindowSamples(*flat, np.asarray(spans), offsets, types, np.asarray(row_of), tuple(questions))

    def collate(self, samples: WindowSamples, chosen: Sequence[int]) -> WindowBatch:
        """See `Task.collate`."""
        rows = samples.rows(chosen)
        numbers = tuple(samples.row_of[np.asarray(chosen)].tolist())
        inputs = padded(rows, self.padding)
        if self._uses_types:
            types = [samples.types[samples.starts[i] : samples.starts[i + 1]] for i in chosen]
            inputs["token_type_ids"] = filled(types, 0)
        return WindowBatch(
            inputs=inputs, labels=torch.from_numpy(samples.spans[np.asarray(chosen)]),
            tokens=sum(map(len, rows)), count=len(rows), rows=numbers,
            questions={number: samples.questions[number] for number in numbers},
            offsets=tuple(samples.offsets[samples.starts[i] : samples.starts[i + 1]].tolist() for i in chosen),
        )  # fmt: skip

    def forward(self, model: Any, batch: WindowBatch) -> Sums:
        """See `Task.forward`. In training, a question counts with those of its windows that are in the batch."""
        padding = batch.inputs["attention_mask"][..., None] == 0
        rows = rows_at_once(self.spec, padding.shape[1])
        logits = logits_in_parts(model, batch.inputs, rows).float().masked_fill(padding, -torch.inf)
        loss = F.cross_entropy(logits, batch.labels, reduction="sum") / 2  # the mean of start and end
        cells, labels, sums = logits.detach().cpu(), batch.labels.cpu(), np.zeros(3)
        for number, question in batch.questions.items():
            places = [place for place, row in enumerate(batch.rows) if row == number]
            has_answer = len(places) == question.windows or labels[places].any()
            best = best_span([(cells[place], batch.offsets[place]) for place in places])
            answers = question.answers if has_answer else ()
            sums += [*exact_and_f1(question.context[best.start : best.end], answers), 1]
        return Sums(loss, torch.from_numpy(sums), batch.count)

    def metrics(self, loss: float, metric_sums: Sequence[float], count: int) -> dict[str, float]:
        """See `Task.metrics`."""
        exact, f1, questions = metric_sums
        return {"loss": loss / max(1, count), "exact_match": exact / max(1, questions), "f1": f1 / max(1, questions)}


class Span(NamedTuple):
    """An answer: characters of the context, the same place twice if there is none, and its probability."""

    start: int
    end: int
    score: float


def best_span(windows: Sequence[tuple[Tensor, Sequence[tuple[int, int]]]]) -> Span:
    """The best span of all windows: logits [width, 2] and the offsets of each.

    A span competes with the absence of an answer in the window where that is least likely.
    """
    best, highest = Span(0, 0, 0.0), -float("inf")
    absent, lowest = Span(0, 0, 0.0), float("inf")
    for logits, offsets in windows:
        cells = [place for place, (begin, end) in enumerate(offsets) if end > begin]
        shares = torch.log_softmax(logits[: len(offsets)], 0)
        if (nothing := float(logits[0].sum())) < lowest:
            lowest, absent = nothing, Span(0, 0, float(shares[0].sum().exp()))
        if not cells:
            continue
        inside = logits[cells]
        pairs = (inside[:, 0, None] + inside[None, :, 1]).triu() + torch.full((len(cells),) * 2, -torch.inf).tril(-1)
        if (value := float(pairs.max())) > highest:
            first, last = divmod(int(pairs.argmax()), len(cells))
            score = float((shares[cells[first], 0] + shares[cells[last], 1]).exp())
            highest, best = value, Span(offsets[cells[first]][0], offsets[cells[last]][1], score)
    return best if highest > lowest else absent


class Answerer(Predictor):
    """A trained model that finds answers."""

    def read(self, given: Input) -> tuple[str, list[Window]]:
        """See `Predictor.read`: the context, and its windows."""
        row = given if isinstance(given, dict) else {}
        question, context = row.get("question"), row.get("context")
        if not (isinstance(question, str) and question.strip() and isinstance(context, str) and context.strip()):
            what = 'it is not a row with "question" and "context", texts that are not empty'
            raise TrainingProblem("bad_data", what, "For a context as text, give --question too.")
        (windows,) = Windows(self.tokenizer, self.max_length).of([(question, context)])
        if not windows:
            what = f"the question {question[:50]!r} leaves no room for its context in {self.max_length} tokens"
            raise TrainingProblem("bad_data", what, "Shorten it.")
        return context, windows

    def predict_batch(self, rows: Sequence[tuple[str, list[Window]]]) -> list[Prediction]:
        """The answer of each question, with its characters in the context; empty if the context has none."""
        found = []
        for context, windows in rows:
            logits = self._logits(windows, max(PART, len(rows)))
            best = best_span([(cells, window.offsets) for cells, window in zip(logits, windows, strict=True)])
            start, end = best.start, best.end
            text = context[start:end]
            start, text = start + len(text) - len(text.lstrip()), text.strip()  # some tokens begin with a space
            place = (start, start + len(text)) if text else (None, None)
            found.append(Prediction(text, best.score, start=place[0], end=place[1]))
        return found

    def _logits(self, windows: Sequence[Window], size: int) -> Tensor:
        inputs = padded([window.ids for window in windows], self.padding)
        if uses_types(self.network):
            inputs["token_type_ids"] = filled([window.types for window in windows], 0)
        return logits_in_parts(self.network, self.moved(inputs), size).float().cpu()


def uses_types(network: Any) -> bool:
    """Whether the network tells questions from contexts by their ``token_type_ids``, as BERT does."""
    return (getattr(network.config, "type_vocab_size", None) or 0) > 1
