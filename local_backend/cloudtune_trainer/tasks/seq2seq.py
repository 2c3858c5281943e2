"""Encoder-decoder models, which write a target for a source: translations, summaries, answers.

A conversation is a source with the assistant's last turn as its target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cloudtune_trainer.generate import Answer
from cloudtune_trainer.generation_settings import answer_ends, keep_special_tokens
from cloudtune_trainer.loss import summed_cross_entropy
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.samples import Samples
from cloudtune_trainer.sampling import check_settings
from cloudtune_trainer.sequences import PADDED, Batch
from cloudtune_trainer.tasks.causal_lm import token_entropy, token_metrics
from cloudtune_trainer.tasks.padded import encoded, fields_of, filled, joined, load_with_head, padded
from cloudtune_trainer.tasks.predictor import Prediction, Predictor, text_of, turns_of
from cloudtune_trainer.tasks.task import BestMetric, Sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from cloudtune_trainer.models import BaseModel
    from cloudtune_trainer.records import Record
    from cloudtune_trainer.run_spec import RunSpec


@dataclass(frozen=True)
class SourceTargets(Samples):
    """A sample is a source and then its target, which begins at ``middles``."""

    middles: NDArray[np.int64]


class Seq2Seq:
    """See the module. The metric sum: tokens that are the most likely ones."""

    best_metric = BestMetric("loss", higher_is_better=False)
    metric_sums = 1
    peft_task_type = "SEQ_2_SEQ_LM"
    labels: tuple[str, ...] = ()
    can_pack = False
    packed = False
    needs_reference = False

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.random_weights: tuple[str, ...] = ()
        self.padding = 0

    def load_model(
        self, base: BaseModel, tokenizer: Any, records: Callable[[], Iterable[Record]], *, dtype: torch.dtype,
        weights: Path | None, dropout: float | None,
    ) -> Any:  # fmt: skip
        """See `Task.load_model`."""
        return load_with_head(self, base, tokenizer, dtype=dtype, weights=weights, dropout=dropout)

    def encode(self, records: Iterable[Record], tokenizer: Any) -> SourceTargets:
        """See `Task.encode`. Sources and targets that are too long lose their ends, targets also their end token."""
        max_length, end = self.spec.hyperparameters.max_length, tokenizer.eos_token_id
        pairs = [_pair(record, row) for row, record in enumerate(records, 1)]
        sources, cuts = encoded([source for source, _ in pairs], tokenizer, max_length)
        targets = tokenizer(text_target=[target for _, target in pairs], verbose=False)["input_ids"]
        ids, middles = [], []
        for row, (source, target) in enumerate(zip(sources, targets, strict=True), 1):
            if not source or not target:
                cuts.unlearnt.append(row)
                continue
            whole = [*target, end] if end is not None and target[-1] != end else list(target)
            if len(whole) > max_length:
                cuts.lost_tokens += len(whole) - max_length
                cuts.truncated.append(row)
            ids.append([*source, *whole[:max_length]])
            middles.append(len(source))
        cuts.truncated = sorted(set(cuts.truncated))  # a row may lose both ends
        tokens, learn, starts, cuts = joined(ids, cuts, max_length)
        begins = starts[:-1] + np.asarray(middles)
        for begin, stop in zip(begins, starts[1:], strict=True):
            learn[begin:stop] = True
        return SourceTargets(tokens, learn, starts, cuts, begins)

    def collate(self, samples: SourceTargets, chosen: Sequence[int]) -> Batch:
        """See `Task.collate`."""
        sources = [samples.ids[samples.starts[i] : samples.middles[i]] for i in chosen]
        targets = [samples.ids[samples.middles[i] : samples.starts[i + 1]] for i in chosen]
        count = sum(map(len, targets))
        return Batch(
            inputs=padded(sources, self.padding), labels=filled(targets, PADDED),
            tokens=sum(map(len, sources)) + count, count=count,
        )  # fmt: skip

    def forward(self, model: Any, batch: Batch) -> Sums:
        """See `Task.forward`."""
        kept = batch.labels != PADDED
        given = decoder_inputs(model, batch.labels)
        logits = model(**batch.inputs, decoder_input_ids=given, use_cache=False).logits[kept]
        smoothing = self.spec.label_smoothing if model.training else 0.0
        loss, correct = summed_cross_entropy(logits, batch.labels[kept], smoothing)
        return Sums(loss, correct[None], batch.count)

    def metrics(self, loss: float, metric_sums: Sequence[float], count: int) -> dict[str, float]:
        """See `Task.metrics`."""
        return token_metrics(loss, metric_sums[0], count)

    def constant_loss(self, samples: Samples) -> float | None:
        """See `Monitored.constant_loss`."""
        return None if self.spec.label_smoothing else token_entropy(samples)

    def collapsed(self, _: Sequence[float]) -> str | None:
        """See `Monitored.collapsed`."""
        return None


def decoder_inputs(model: Any, labels: Tensor) -> Tensor:
    """The tokens before each label: the decoder's start token, and the labels shifted by one place."""
    own = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if own is not None:
        return own(labels=labels)  # type: ignore[no-any-return]
    config = model.config
    shifted = torch.cat([torch.full_like(labels[:, :1], config.decoder_start_token_id), labels[:, :-1]], 1)
    return shifted.masked_fill(shifted == PADDED, config.pad_token_id)


def source_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """The source that a conversation is: the text of a single turn, else a line for each turn with its role."""
    texts = [str(message.get("content") or "") for message in messages]
    if len(messages) == 1:
        return texts[0]
    return "\n".join(f"{message['role']}: {text}" for message, text in zip(messages, texts, strict=True))


def _pair(record: Record, row: int) -> tuple[str, str]:
    if "messages" not in record:
        source, target = fields_of(record, row, "source", "target")
        return source, target
    *before, last = record["messages"]
    if not before or last["role"] != "assistant" or not last.get("content"):
        what = f"row {row}: a conversation for seq2seq ends with a text of the assistant, after at least one other turn"
        raise TrainingProblem("bad_data", what)
    return source_of(before), last["content"]


class Seq2SeqGenerator(Predictor):
    """A trained encoder-decoder."""

    has_base = True

    def __init__(self, network: Any, tokenizer: Any, tuned: Mapping[str, Any]) -> None:
        super().__init__(network, tokenizer, tuned)
        keep_special_tokens(network)
        self._ends = answer_ends(network, tokenizer)

    def read(self, given: Any) -> list[int]:
        """See `Predictor.read`. The answer of a row is left out. A source that is too long is refused, not cut."""
        if isinstance(given, dict) and "messages" in given:
            given = turns_of(given["messages"])
        if isinstance(given, list | tuple):
            *before, last = turns_of(given)
            turns = before if last["role"] == "assistant" else [*before, last]
            if not turns:
                raise TrainingProblem("bad_data", "it has no turn before the assistant's", "Add the user's message.")
            given = source_of(turns)
        ids = list(self.tokenizer(text_of(given, "source", '"source" or "messages"'))["input_ids"])
        limit = getattr(self.network.config, "max_position_embeddings", None)
        if not ids:
            raise TrainingProblem("bad_data", "the text is empty", "Enter at least one word.")
        if isinstance(limit, int) and len(ids) > limit:
            what = f"the text has {len(ids)} tokens, and the model's context has {limit}"
            raise TrainingProblem("bad_data", what, "Shorten it.")
        return ids

    def predict_batch(self, rows: Sequence[list[int]]) -> list[Prediction]:
        """The most likely target of each source, by greedy search."""
        return [Prediction(answer.text) for answer in self._write(rows, self.max_length, 0.0, 1.0)]

    def generate(
        self, prompts: Sequence[str | Sequence[Mapping[str, Any]]], *, max_tokens: int = 128, temperature: float = 0.0,
        top_p: float = 1.0, seed: int | None = None, batch_size: int = 8,
    ) -> Iterator[Answer]:  # fmt: skip
        """Targets in the order of the prompts. ``temperature`` 0 always picks the most likely token."""
        check_settings(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
        rows = self.read_all(prompts)
        for first in range(0, len(rows), batch_size):
            with self.lock, torch.inference_mode(), torch.random.fork_rng(enabled=seed is not None):
                if seed is not None:
                    torch.manual_seed(seed + first)
                answers = self._write(rows[first : first + batch_size], max_tokens, temperature, top_p)
            yield from answers

    def _write(self, rows: Sequence[list[int]], max_tokens: int, temperature: float, top_p: float) -> list[Answer]:
        from transformers import GenerationConfig

        config = self.network.config
        limit = getattr(config, "max_position_embeddings", None)
        sampling = {"temperature": temperature, "top_p": top_p, "top_k": 0} if temperature > 0 else {}
        settings = GenerationConfig(
            do_sample=temperature > 0,
            max_new_tokens=min(max_tokens, limit - 1) if isinstance(limit, int) else max_tokens,
            decoder_start_token_id=config.decoder_start_token_id,
            pad_token_id=self.padding,
            eos_token_id=self._ends or None,
            suppress_tokens=[self.padding] if self.padding not in self._ends else None,
            **sampling,
        )
        out = self.network.generate(**self.moved(padded(rows, self.padding)), generation_config=settings)
        answers = []
        for source, row in zip(rows, out[:, 1:].tolist(), strict=True):  # without the start token
            end = next((place for place, token in enumerate(row) if token in self._ends), None)
            words = row if end is None else row[:end]
            text = self.tokenizer.decode(words, skip_special_tokens=True)
            answers.append(Answer(text, "length" if end is None else "stop", len(source), len(words)))
        return answers
