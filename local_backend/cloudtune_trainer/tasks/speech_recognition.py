"""Speech recognition: transcripts of recordings.

Two kinds of models: an encoder with connectionist temporal classification (CTC), such as wav2vec 2.0, and an
encoder-decoder that writes the transcript, such as Whisper. The base model decides.
"""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from cloudtune_trainer.heads import is_ctc
from cloudtune_trainer.loss import summed_cross_entropy
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.recordings import AudioReader
from cloudtune_trainer.samples import Cuts
from cloudtune_trainer.sequences import PADDED, Batch
from cloudtune_trainer.tasks.causal_lm import token_entropy, token_metrics
from cloudtune_trainer.tasks.edits import edits
from cloudtune_trainer.tasks.media import checked_rows, path_of, speech_samples
from cloudtune_trainer.tasks.padded import filled, load_with_head
from cloudtune_trainer.tasks.predictor import Prediction, Predictor
from cloudtune_trainer.tasks.seq2seq import decoder_inputs
from cloudtune_trainer.tasks.task import BestMetric, Sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from cloudtune_trainer.models import BaseModel
    from cloudtune_trainer.records import Record
    from cloudtune_trainer.run_spec import RunSpec
    from cloudtune_trainer.samples import Samples
    from cloudtune_trainer.tasks.media import SpeechSamples

_HEARD = 8
"""Recordings in which the language is detected."""
_BLANK = 0.999
_SHORTEST = 400
"""Samples of the shortest recording: the window of the first layers of wav2vec 2.0, 25 ms."""


class SpeechRecognition:
    """See the module.

    The metric sums: for CTC the edits and the length of the transcripts, in words and in characters, and in training
    the frames of the blank and all frames; else the tokens that are the most likely ones.
    """

    best_metric = BestMetric("loss", higher_is_better=False)
    metric_sums = 6
    peft_task_type = None
    labels: tuple[str, ...] = ()
    can_pack = False
    packed = False
    needs_reference = False

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.random_weights: tuple[str, ...] = ()
        self.padding = 0
        self.notes: tuple[str, ...] = ()
        self._network: Any = None
        self._processor: Any = None
        self._reader = AudioReader(16_000)

    def load_model(
        self, base: BaseModel, tokenizer: Any, records: Callable[[], Iterable[Record]], *, dtype: torch.dtype,
        weights: Path | None, dropout: float | None,
    ) -> Any:  # fmt: skip
        """See `Task.load_model`. ``tokenizer`` is the processor of recordings and transcripts."""
        self._processor = tokenizer
        self.padding = tokenizer.tokenizer.pad_token_id or 0
        self._reader = AudioReader(tokenizer.feature_extractor.sampling_rate)
        self._network = load_with_head(self, base, tokenizer, dtype=dtype, weights=weights, dropout=dropout)
        _check_family(self._network, tokenizer)
        if not is_ctc(self._network.config):
            self.notes = tuple(_choose_language(self._network, tokenizer, self._reader, records()))
        return self._network

    def encode(self, records: Iterable[Record], tokenizer: Any) -> SpeechSamples:
        """See `Task.encode`. Recordings and transcripts that do not fit are left out, and their rows reported."""
        cuts, paths, targets = Cuts(), [], []
        for row, record in enumerate(checked_rows(records, "audio", "transcript"), 1):
            wave = self._reader.waves([record["audio"]])[0]
            ids = _targets(self._network, tokenizer, record["transcript"])
            reason = self._reason_against(len(wave), ids, tokenizer)
            if reason is not None:
                cuts.unshown.setdefault(f"left out: {reason}", []).append(row)
                cuts.unshown_texts.setdefault(f"left out: {reason}", repr(record["transcript"][:60]))
                continue
            paths.append(record["audio"])
            targets.append(ids)
        return speech_samples(paths, targets, cuts)

    def _reason_against(self, samples: int, ids: list[int], processor: Any) -> str | None:
        """Why the model cannot learn from a recording of so many samples and the tokens of its transcript."""
        config = self._network.config
        if samples < _SHORTEST:
            return "the recording is shorter than 25 ms"
        if is_ctc(config):
            if processor.tokenizer.unk_token_id in ids:
                return "the transcript has characters that the model does not know"
            frames = int(self._network._get_feat_extract_output_lengths(torch.tensor(samples)))
            needed = len(ids) + sum(one == other for one, other in itertools.pairwise(ids))
            return None if needed <= frames else "the transcript is longer than the frames of the recording"
        if samples > processor.feature_extractor.n_samples:
            return "the recording is longer than the window of the model"
        longest = config.max_target_positions
        return None if len(ids) <= longest else f"the transcript has more than {longest} tokens"

    def collate(self, samples: SpeechSamples, chosen: Sequence[int]) -> Batch:
        """See `Task.collate`."""
        targets = samples.rows(chosen)
        count = sum(map(len, targets))
        inputs = features(self._processor, self._reader.waves([samples.paths[i] for i in chosen]))
        return Batch(inputs=inputs, labels=filled(targets, PADDED), tokens=count, count=count)

    def forward(self, model: Any, batch: Batch) -> Sums:
        """See `Task.forward`."""
        if is_ctc(model.config):
            return self._aligned(model, batch)
        kept = batch.labels != PADDED
        given = decoder_inputs(model, batch.labels)
        logits = model(**_model_inputs(batch.inputs), decoder_input_ids=given, use_cache=False).logits[kept]
        loss, correct = summed_cross_entropy(logits, batch.labels[kept], 0.0)
        return Sums(loss, F.pad(correct[None], (0, 5)), batch.count)

    def _aligned(self, model: Any, batch: Batch) -> Sums:
        """The loss of CTC, and in an evaluation the errors of the most likely transcripts."""
        logits = model(**_model_inputs(batch.inputs)).logits.float()
        frames = _frames(model, batch.inputs)
        kept = batch.labels != PADDED
        with torch.backends.cudnn.flags(enabled=False):  # its loss is not deterministic
            loss = F.ctc_loss(
                logits.log_softmax(-1).transpose(0, 1), batch.labels[kept], frames, kept.sum(1),
                blank=model.config.pad_token_id, reduction="sum",
            )  # fmt: skip
        sums = loss.new_zeros(6)
        if model.training:
            with torch.no_grad():
                inside = torch.arange(logits.shape[1], device=logits.device)[None] < frames[:, None]
                sums[4] = (logits.argmax(-1) == model.config.pad_token_id)[inside].sum()
                sums[5] = inside.sum()
        else:
            found = _transcripts(self._processor, logits, frames)
            labels = [row[row != PADDED].tolist() for row in batch.labels]
            right = [self._processor.tokenizer.decode(row, group_tokens=False) for row in labels]
            counts = [edits(answer, expected) for answer, expected in zip(found, right, strict=True)]
            sums[:4] = torch.tensor(counts, dtype=torch.float32, device=loss.device).sum(0)
        return Sums(loss, sums, batch.count)

    def metrics(self, loss: float, metric_sums: Sequence[float], count: int) -> dict[str, float]:
        """See `Task.metrics`. Word and character error rates are for evaluations of CTC models."""
        if not is_ctc(self._network.config):
            return token_metrics(loss, metric_sums[0], count)
        word_edits, words, character_edits, characters, *_ = metric_sums
        rates = {"wer": word_edits / max(1, words), "cer": character_edits / max(1, characters)} if characters else {}
        return {"loss": loss / max(1, count), **rates}

    def constant_loss(self, samples: Samples) -> float | None:
        """See `Monitored.constant_loss`. That of CTC is unknown."""
        return None if is_ctc(self._network.config) else token_entropy(samples)

    def collapsed(self, metric_sums: Sequence[float]) -> str | None:
        """See `Monitored.collapsed`: the blank in every frame."""
        *_, blanks, frames = metric_sums
        return "no character (the blank of CTC)" if frames and blanks >= _BLANK * frames else None


class Transcriber(Predictor):
    """A trained model of speech."""

    reads = "audio"
    has_base = True

    def __init__(self, network: Any, tokenizer: Any, tuned: Mapping[str, Any]) -> None:
        super().__init__(network, tokenizer, tuned)
        self._reader = AudioReader(tokenizer.feature_extractor.sampling_rate)

    def read_all(self, inputs: Sequence[Any]) -> list[Any]:
        """See `Predictor.read_all`. Recordings are read again for each call: their files may have changed."""
        self._reader = AudioReader(self._reader.rate)
        return super().read_all(inputs)

    def read(self, given: Any) -> Any:
        """See `Predictor.read`."""
        path = path_of(given, "audio")
        samples, window = (
            len(self._reader.waves([path])[0]),
            getattr(self.tokenizer.feature_extractor, "n_samples", None),
        )
        if window is not None and samples > window:
            what = f"{path} is longer than the {window / self._reader.rate:g} s that the model hears"
            raise TrainingProblem("bad_data", what, "Split it.")
        if samples < _SHORTEST:
            raise TrainingProblem("bad_data", f"{path} is shorter than 25 ms", "Use a longer recording.")
        return path

    def predict_batch(self, rows: Sequence[Any]) -> list[Prediction]:
        """The most likely transcripts."""
        inputs = self.moved(features(self.tokenizer, self._reader.waves(rows)))
        if is_ctc(self.network.config):
            logits = self.network(**_model_inputs(inputs)).logits.float()
            found = _transcripts(self.tokenizer, logits, _frames(self.network, inputs))
            return [Prediction(text) for text in found]
        ids = self.network.generate(**_model_inputs(inputs), **_writing(self.network, self.tokenizer))
        return [Prediction(text.strip()) for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]


def _check_family(network: Any, processor: Any) -> None:
    """Raises ``bad_spec`` for a CTC model that does not read samples, and for an encoder-decoder unlike Whisper."""
    samples = network.main_input_name == "input_values"
    if samples if is_ctc(network.config) else hasattr(processor.feature_extractor, "n_samples"):
        return
    what = f"a {network.config.model_type} model cannot be used for speech recognition"
    raise TrainingProblem("bad_spec", what, "Use Whisper, or a CTC model such as wav2vec 2.0, HuBERT or WavLM.")


def features(processor: Any, waves: Sequence[Any]) -> dict[str, Tensor]:
    """The arguments of the model for these recordings, and ``sizes``: the samples of each."""
    extractor = processor.feature_extractor
    padding = {} if hasattr(extractor, "n_samples") else {"padding": True}
    found = extractor(list(waves), sampling_rate=extractor.sampling_rate, return_tensors="pt", **padding)
    return {**found, "sizes": torch.tensor([len(wave) for wave in waves])}


def _model_inputs(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in inputs.items() if name != "sizes"}


def _frames(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """The number of outputs of each recording, without those of its padding."""
    return model._get_feat_extract_output_lengths(inputs["sizes"]).long()  # type: ignore[no-any-return]


def _transcripts(processor: Any, logits: Tensor, frames: Tensor) -> list[str]:
    best = logits.argmax(-1).tolist()
    return [processor.tokenizer.decode(row[:size]) for row, size in zip(best, frames.tolist(), strict=True)]


def _targets(network: Any, processor: Any, transcript: str) -> list[int]:
    """The tokens to learn. Whisper's own begin after the token that starts its decoder."""
    ids = list(processor.tokenizer(transcript)["input_ids"])
    if not is_ctc(network.config) and ids[:1] == [network.config.decoder_start_token_id]:
        ids = ids[1:]
    return ids


def _choose_language(network: Any, processor: Any, reader: AudioReader, records: Iterable[Record]) -> Iterable[str]:
    """Set the language of a multilingual Whisper to the one that it hears most. Yields a note about it."""
    known = getattr(network.generation_config, "lang_to_id", None)
    if not known:
        return
    heard = [
        record["audio"] for record, _ in zip(checked_rows(records, "audio", "transcript"), range(_HEARD), strict=False)
    ]
    with torch.no_grad():
        found = network.detect_language(**_model_inputs(features(processor, reader.waves(heard)))).tolist()
    token = max(set(found), key=found.count)
    language = next(name for name, number in known.items() if number == token).strip("<|>")
    processor.tokenizer.set_prefix_tokens(language=language, task="transcribe", predict_timestamps=False)
    processor.tokenizer.init_kwargs |= {"language": language, "task": "transcribe"}
    network.generation_config.language, network.generation_config.task = language, "transcribe"
    yield f"the language is {language}, which the base model hears in {found.count(token)} of {len(found)} recordings"


def _writing(network: Any, processor: Any) -> dict[str, Any]:
    """The arguments of generation, with the language that the tokenizer was saved with."""
    longest = network.config.max_target_positions - len(processor.tokenizer.prefix_tokens) - 1
    settings = copy.deepcopy(network.generation_config)
    settings.update(do_sample=False, max_new_tokens=longest, max_length=None)
    language = getattr(processor.tokenizer, "language", None)
    if not (language and getattr(settings, "lang_to_id", None)):
        return {"generation_config": settings}
    return {"generation_config": settings, "language": language, "task": "transcribe"}
