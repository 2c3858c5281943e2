"""Small tokenizers of the kinds that models have. Each encodes any text; special tokens are the same in all."""

from __future__ import annotations

from functools import cache
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>")
_WORDS = ["What is one plus two? The answer is three.\n", "User: yes\n\nAssistant: no", "你好 नमस्ते مرحبا สวัสดี"] * 20
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def _byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    _train(tokenizer, trainers.BpeTrainer(
        vocab_size=500, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    ))  # fmt: skip
    return tokenizer


def _sentencepiece_bpe(scheme: str | None) -> Tokenizer:
    """As Llama 2, Mistral and Gemma have. ``scheme``: where a space is put; with None the normalizer puts it."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if scheme is None:
        spaces = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        tokenizer.normalizer = normalizers.Sequence(spaces)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    _train(tokenizer, trainers.BpeTrainer(
        vocab_size=500, special_tokens=[*SPECIAL, *_BYTES], limit_alphabet=20, show_progress=False
    ))  # fmt: skip
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(parts)
    return tokenizer


def _unigram() -> Tokenizer:
    """As T5 and XLNet have, with bytes for what it does not know."""
    pieces = {"▁": -2.0, "\n": -3.0, "\n\n": -2.5, "▁a": -3.0, "▁answer": -3.0, "yes": -3.0, "▁yes": -2.5, ":": -3.0}
    pieces |= dict.fromkeys("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,?!<>/|_", -6.0)
    vocabulary = [(token, 0.0) for token in (*SPECIAL, *_BYTES)] + list(pieces.items())
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(parts)
    return tokenizer


def _wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    _train(tokenizer, trainers.WordPieceTrainer(vocab_size=200, special_tokens=list(SPECIAL), show_progress=False))
    return tokenizer


def _train(tokenizer: Tokenizer, trainer: Any) -> None:
    tokenizer.train_from_iterator(_WORDS, trainer)


EXACT = {
    "byte-level BPE": _byte_level,
    "sentencepiece BPE, space before each text": lambda: _sentencepiece_bpe("first"),
    "sentencepiece BPE, space after each special token": lambda: _sentencepiece_bpe("always"),
    "sentencepiece BPE, no space before": lambda: _sentencepiece_bpe("never"),
    "sentencepiece BPE of Llama 2": lambda: _sentencepiece_bpe(None),
    "unigram": _unigram,
}
"""Those that any text survives unchanged."""
KINDS = {**EXACT, "WordPiece": _wordpiece}


@cache
def _backend(kind: str) -> str:
    return KINDS[kind]().to_str()


def tokenizer_of(kind: str, *, chat_template: str | None, starts: bool = False, special: tuple[str, ...] = ()) -> Any:
    """A tokenizer of that kind. ``starts``: it puts ``<s>`` before every text. ``special`` are further tokens."""
    from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

    if kind == "bytes":
        tokenizer: Any = ByT5Tokenizer(extra_ids=0, additional_special_tokens=["<|im_start|>", "<|im_end|>", "<s>"])
    else:
        raw = Tokenizer.from_str(_backend(kind))
        if starts:
            raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
            additional_special_tokens=["<|im_start|>", "<|im_end|>", *special], clean_up_tokenization_spaces=False,
        )  # fmt: skip
    tokenizer.chat_template = chat_template
    return tokenizer
