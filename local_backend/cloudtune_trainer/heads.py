"""The outputs of models that are not causal language models, and transformers' classes for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cloudtune_trainer.problems import TrainingProblem

if TYPE_CHECKING:
    from torch import Tensor


class HeadType(NamedTuple):
    """A kind of outputs."""

    auto: str
    """The name of transformers' class."""
    models: str
    """The models that have it."""
    starts_random: bool = True
    """Its weights are not in a pretrained model."""
    bare: bool = False
    """The base model alone: its outputs are token vectors."""
    reads: Literal["text", "image", "audio"] = "text"
    """Its input."""


HEADS: dict[str, HeadType] = {
    "sequence_classification": HeadType("AutoModelForSequenceClassification", "an encoder or a decoder"),
    "reward_model": HeadType("AutoModelForSequenceClassification", "a decoder"),
    "token_classification": HeadType("AutoModelForTokenClassification", "an encoder, such as BERT"),
    "question_answering": HeadType("AutoModelForQuestionAnswering", "an encoder, such as BERT"),
    "seq2seq": HeadType("AutoModelForSeq2SeqLM", "an encoder-decoder, such as T5, BART or Marian", starts_random=False),
    "text_embedding": HeadType("AutoModel", "an encoder or a decoder", starts_random=False, bare=True),
    "speech_recognition": HeadType(
        "AutoModelForSpeechSeq2Seq", "a model of speech, such as Whisper or wav2vec 2.0", reads="audio"
    ),
    "image_classification": HeadType(
        "AutoModelForImageClassification", "a vision model, such as ViT or ResNet", reads="image"
    ),
}
"""By task. All other tasks train a causal language model."""


_AUDIO_SAMPLES = 8000
_IMAGE_SIZE = 224
"""Of a model that reads images of any size."""
_PROBLEMS = {"single_label": "single_label_classification", "multi_label": "multi_label_classification"}
"""transformers' names of the problems with several outputs, which select its own losses."""


@dataclass(frozen=True)
class Head:
    """The outputs of one model."""

    task: str
    padding: int
    """The padding token."""
    labels: tuple[str, ...] = ()
    problem: str = "single_label"
    """Whether a sequence has one label or several. A single output is a number."""

    @property
    def starts_random(self) -> bool:
        """Whether its weights are not in a pretrained model."""
        return HEADS[self.task].starts_random

    @property
    def bare(self) -> bool:
        """See `HeadType.bare`."""
        return HEADS[self.task].bare

    def write_to(self, config: Any) -> None:
        """Set it in a model's configuration."""
        if not self.starts_random:
            config.pad_token_id = self.padding if config.pad_token_id is None else config.pad_token_id
            return
        if self.task != "speech_recognition":
            config.num_labels = len(self.labels) or 2  # an answer has a start and an end
        if self.labels:
            config.id2label = dict(enumerate(self.labels))
            config.label2id = {label: number for number, label in enumerate(self.labels)}
        if self.labels and self.task != "token_classification":
            config.problem_type = "regression" if len(self.labels) == 1 else _PROBLEMS[self.problem]
        if HEADS[self.task].reads != "text":
            if hasattr(config, "apply_spec_augment"):
                config.apply_spec_augment = False  # its random numbers are not part of a checkpoint
            return
        config.get_text_config().pad_token_id = config.pad_token_id = self.padding
        config.get_text_config().use_cache = config.use_cache = False


def auto_model(config: Any, head: Head | None, *, own_code: bool = False) -> Any:
    """transformers' class that loads a model of that configuration with that head, or as a causal language model.

    ``own_code`` also allows a class of the model's own code. Raises ``bad_spec`` if the model has no such outputs.
    """
    import transformers

    auto = getattr(transformers, HEADS[head.task].auto if head is not None else "AutoModelForCausalLM")
    if head is not None and head.task == "speech_recognition" and is_ctc(config):
        auto = transformers.AutoModelForCTC
    own = (getattr(config, "auto_map", None) or {}) if own_code else {}
    fits = type(config) in auto._model_mapping or auto.__name__ in own
    if head is not None and head.task == "seq2seq":
        fits = fits and config.is_encoder_decoder
    if head is not None and head.bare:
        fits = fits and not config.is_encoder_decoder
    if fits:
        return auto
    what = "causal language model" if head is None else head.task.replace("_", " ")
    use = "a decoder" if head is None else HEADS[head.task].models
    if head is None and config.is_encoder_decoder:
        use += ", or method: seq2seq for this model"
    raise TrainingProblem("bad_spec", f"a {config.model_type} model cannot be used for {what}", f"Use {use}.")


def is_ctc(config: Any) -> bool:
    """Whether a model of speech has an output for each frame. Others write the transcript."""
    from transformers import AutoModelForCTC, AutoModelForSpeechSeq2Seq

    return (
        type(config) in AutoModelForCTC._model_mapping and type(config) not in AutoModelForSpeechSeq2Seq._model_mapping
    )


def renamed_weights(config: Any, head: Head | None) -> dict[str, str]:
    """Patterns of weights whose names in a language model differ from those in the model with that head."""
    from transformers import AutoModelForQuestionAnswering
    from transformers.modeling_layers import GenericForQuestionAnswering

    if head is None or head.task != "question_answering":
        return {}
    found = AutoModelForQuestionAnswering._model_mapping.get(type(config), object)
    differs = issubclass(found, GenericForQuestionAnswering) and found.base_model_prefix == "transformer"
    return {r"^model\.": "transformer."} if differs else {}


def head_outputs(out: Any) -> Tensor:
    """The logits in a model's output; of question answering, the starts and the ends, [rows, width, 2].

    Of a base model, the vectors of the tokens.
    """
    import torch

    if "start_logits" in out:
        return torch.stack((out.start_logits, out.end_logits), -1)
    if "logits" not in out:
        return out.last_hidden_state  # type: ignore[no-any-return]
    return out.logits  # type: ignore[no-any-return]


def ends_of(network: Any) -> tuple[Any, Any]:
    """The embeddings and the output layer; None for those that the model does not have."""
    try:
        return network.get_input_embeddings(), network.get_output_embeddings()
    except NotImplementedError:  # a model of speech or images
        return None, None


def probe_inputs(network: Any, length: int) -> dict[str, Tensor]:
    """The arguments of a short forward pass: that many tokens, or a random image or recording.

    An encoder-decoder reads the tokens on both sides.
    """
    import torch

    random, config = torch.Generator().manual_seed(0), network.config
    weight = next(network.parameters())
    if network.main_input_name == "pixel_values":
        size = getattr(config, "image_size", _IMAGE_SIZE)
        height, width = (size, size) if isinstance(size, int) else size
        pixels = torch.rand(1, config.num_channels, height, width, generator=random)
        return {"pixel_values": pixels.to(weight.device, network.dtype)}
    if network.main_input_name == "input_values":
        return {"input_values": torch.rand(1, _AUDIO_SAMPLES, generator=random).to(weight.device, network.dtype)}
    if network.main_input_name == "input_features":
        frames = 2 * config.max_source_positions
        sound = torch.rand(1, config.num_mel_bins, frames, generator=random).to(weight.device, network.dtype)
        start = torch.full((1, 1), config.decoder_start_token_id, device=weight.device)
        return {"input_features": sound, "decoder_input_ids": start}
    ids = torch.randint(0, network.get_input_embeddings().weight.shape[0], (1, length), generator=random)
    ids = ids.to(network.get_input_embeddings().weight.device)
    if network.config.is_encoder_decoder and network.can_generate():
        return {"input_ids": ids, "decoder_input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
