"""Tiny models of speech, built from a configuration: for tests and for ``model: {source: config}``."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune_trainer.quiet import quietly

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TINY: dict[str, dict[str, Any]] = {
    "wav2vec2": {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
        "conv_dim": [64, 64, 64, 64], "conv_stride": [5, 4, 4, 4], "conv_kernel": [10, 8, 8, 4],
        "feat_extract_norm": "layer", "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
        "do_stable_layer_norm": True, "layerdrop": 0.0,
    },
    "whisper": {
        "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "num_mel_bins": 40,
        "max_source_positions": 100, "max_target_positions": 64,
    },
}  # fmt: skip
"""Sizes by family. A step takes some ten milliseconds."""
_START, _SPECIAL = "<|startoftranscript|>", ("<|startoftranscript|>", "<|notimestamps|>", "<|padding|>")
_RATE = 16_000


def write_speech_model(
    folder: Path | str, *, vocab_texts: Iterable[str], seed: int = 0, model: Mapping[str, Any] | None = None,
    processor: Mapping[str, Any] | None = None,
) -> Path:  # fmt: skip
    """Write a folder with a model, a feature extractor and a tokenizer whose vocabulary comes from the transcripts.

    ``model`` names the family in ``model_type`` and overrides fields of `TINY`, and ``processor`` those of the feature
    extractor. wav2vec 2.0 gets a token for each character, and Whisper byte pairs. The same arguments give the same
    files.
    """
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForSpeechSeq2Seq

    given = dict(model or {})
    family = str(given.pop("model_type", "wav2vec2"))
    fields = {**TINY[family], **given}
    made, tokens = (_whisper if family == "whisper" else _characters)(vocab_texts, fields, dict(processor or {}))
    with torch.random.fork_rng(devices=[]), quietly():
        torch.manual_seed(seed)
        config = AutoConfig.for_model(family, **fields, **tokens)
        auto = AutoModelForSpeechSeq2Seq if family == "whisper" else AutoModel
        network = auto.from_config(config, dtype=torch.float32)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    network.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def _characters(texts: Iterable[str], _: Mapping[str, Any], settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Processor

    letters = sorted({letter for text in texts for letter in text} - {" "})
    vocabulary = {token: number for number, token in enumerate(("<pad>", "<unk>", "|", *letters))}
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "vocab.json")
        file.write_text(json.dumps(vocabulary), encoding="utf-8")
        tokenizer = Wav2Vec2CTCTokenizer(
            str(file), pad_token="<pad>", unk_token="<unk>", word_delimiter_token="|",  # noqa: S106 - tokens of a vocabulary
            bos_token=None, eos_token=None,
        )  # fmt: skip
    extractor = Wav2Vec2FeatureExtractor(**{"return_attention_mask": True, "sampling_rate": _RATE, **settings})
    made = Wav2Vec2Processor(feature_extractor=extractor, tokenizer=tokenizer)
    return made, {"vocab_size": len(vocabulary), "pad_token_id": 0}


def _whisper(texts: Iterable[str], fields: Mapping[str, Any], settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import WhisperFeatureExtractor, WhisperProcessor, WhisperTokenizer

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False))
    learned = json.loads(raw.to_str())["model"]
    tokenizer = WhisperTokenizer(vocab=learned["vocab"], merges=[tuple(pair) for pair in learned["merges"]])
    tokenizer.add_special_tokens({"additional_special_tokens": list(_SPECIAL), "pad_token": _SPECIAL[2]})
    seconds = fields["max_source_positions"] * 2 * 160 // _RATE
    extractor = WhisperFeatureExtractor(
        **{"feature_size": fields["num_mel_bins"], "chunk_length": seconds, "sampling_rate": _RATE, **settings}
    )
    start = tokenizer.convert_tokens_to_ids(_START)
    return WhisperProcessor(feature_extractor=extractor, tokenizer=tokenizer), {
        "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "decoder_start_token_id": start, "suppress_tokens": None,
        "begin_suppress_tokens": None,
    }  # fmt: skip
