"""A tiny model with its tokenizer, built from a configuration: for tests and for ``model: {source: config}``.

The weights are random but determined by the seed. It is a real Llama with a real byte-level BPE tokenizer and a chat
template, so that code tested on it also works on a large model. It has no knowledge.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune_trainer.quiet import quietly
from cloudtune_trainer.tiny_media import write_vision_model
from cloudtune_trainer.tiny_speech import TINY, write_speech_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML, without ``{% generation %}`` marks, like most published templates."""

MARKED_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '<|im_start|>assistant\n' }}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The same text, with the assistant's text marked by ``{% generation %}``."""

DESCRIPTION = frozenset({"model", "tokenizer", "processor"})
"""The keys of a JSON file that describes a model to build."""
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")

TINY_LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
"""About 0.1 M parameters: a step takes milliseconds."""


def write_tiny_model(
    folder: Path | str,
    *,
    vocab_texts: Iterable[str] = (),
    seed: int = 0,
    vocab_size: int = 512,
    model: Mapping[str, Any] | None = None,
    chat_template: str | None = CHAT_TEMPLATE,
) -> Path:
    """Write a model folder in transformers' format: config, weights, tokenizer, chat template.

    ``model`` overrides fields of `TINY_LLAMA` (``model_type`` may name any causal LM, encoder or encoder-decoder that
    transformers has). Without ``vocab_texts`` the tokenizer has single bytes only. The same arguments give the same
    files.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    folder = Path(folder)
    tokenizer = build_tokenizer(vocab_texts, vocab_size=vocab_size, chat_template=chat_template)
    fields = {**TINY_LLAMA, **(model or {})}
    config = AutoConfig.for_model(
        fields.pop("model_type"),
        **fields,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    if config.is_encoder_decoder:
        config.decoder_start_token_id = tokenizer.pad_token_id
    with torch.random.fork_rng(devices=[]), quietly():  # transformers advises to make an encoder a decoder
        torch.manual_seed(seed)
        auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        network = auto.from_config(config, dtype=torch.float32)
    folder.mkdir(parents=True, exist_ok=True)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_model_from_config(path: Path | str, folder: Path | str, *, vocab_texts: Iterable[str], seed: int) -> Path:
    """Write the model that a JSON file describes: ``{"model": {...}, "tokenizer": {"vocab_size": 512}}``.

    A model of images or speech has ``processor`` in place of ``tokenizer``.
    """
    document = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(document, dict) or not set(document) <= DESCRIPTION:
        raise ValueError(f'{path}: a model configuration must be an object like {{"model": {{}}, "tokenizer": {{}}}}')
    if "processor" in document:
        model, processor = document.get("model") or {}, document["processor"]
        if model.get("model_type") in TINY:
            return write_speech_model(folder, vocab_texts=vocab_texts, seed=seed, model=model, processor=processor)
        return write_vision_model(folder, seed=seed, model=model, processor=processor)
    settings = document.get("tokenizer", {})
    return write_tiny_model(
        folder,
        vocab_texts=vocab_texts,
        seed=seed,
        vocab_size=int(settings.get("vocab_size", 512)),
        model=document.get("model"),
        chat_template=settings.get("chat_template", CHAT_TEMPLATE),
    )


def build_tokenizer(vocab_texts: Iterable[str], *, vocab_size: int = 512, chat_template: str | None) -> Any:
    """Train a byte-level BPE tokenizer; encoding and decoding preserves any text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=max(vocab_size, 256 + len(SPECIAL_TOKENS)),
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    raw.train_from_iterator(vocab_texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<|endoftext|>",  # noqa: S106 - a token of the vocabulary, not a secret
        eos_token="<|im_end|>",  # noqa: S106
        pad_token="<|pad|>",  # noqa: S106
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = chat_template
    return tokenizer
