"""Selects the trained tokens of a text: the tokens of the answers and of their ends, and no others.

A token can cross the border between a prompt and its answer, such as two line ends in one token. At inference the
prompt is encoded alone, so that the model can never generate such a token. The text is then encoded in parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune_trainer.rendering import Rendered

_ANCHORS = ("\n", "a", " ", "0", "。")
"""Texts to put before a part: a tokenizer encodes the start of a text differently from its middle."""

Encoded = tuple[list[int], list[tuple[int, int]]]
"""Token ids, and the half-open ranges of the trained ones."""


class SpanEncoder:
    """Encodes rendered samples with one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = {str(token): number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._special = added | dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        self._special_ids = frozenset(self._special.values())

    def encode(self, samples: list[Rendered]) -> Iterator[Encoded]:
        """Token ids of each text, with the trained ranges."""
        if not samples:
            return
        if not self._tokenizer.is_fast:
            yield from map(self._by_parts, samples)
            return
        encodings = self._tokenizer(
            [sample.text for sample in samples], add_special_tokens=False, return_attention_mask=False, verbose=False
        ).encodings
        for sample, encoding in zip(samples, encodings, strict=True):
            yield self._whole(sample, encoding)

    def _whole(self, sample: Rendered, encoding: Any) -> Encoded:
        ids = encoding.ids
        if sample.spans is None:
            return ids, [(0, len(ids))]
        found = [_tokens_of(encoding, begin, end) for begin, end in sample.spans]
        for span, (first, last) in zip(sample.spans, found, strict=True):
            if first < last and self._is_joined(sample.text, span, encoding, first, last):
                try:
                    return self._by_parts(sample)
                except ValueError:
                    break
        return ids, found

    def _is_joined(self, text: str, span: tuple[int, int], encoding: Any, first: int, last: int) -> bool:
        """Whether a token crosses the span's border, or a special token absorbs white space of the answer."""
        begin, end = encoding.token_to_chars(last - 1)
        if encoding.token_to_chars(first)[0] < span[0] or end > span[1]:
            return True
        return text[begin].isspace() and encoding.ids[last - 1] in self._special_ids

    def _by_parts(self, sample: Rendered) -> Encoded:
        """Encode the spans, and the text between them, separately. Raises ValueError if that is not possible."""
        ids: list[int] = []
        learned = []
        place = 0
        for begin, end in sample.spans if sample.spans is not None else ((0, len(sample.text)),):
            ids += self._part(sample.text, place, begin)
            words = self._part(sample.text, begin, end)
            learned.append((len(ids), len(ids) + len(words)))
            ids += words
            place = end
        return ids + self._part(sample.text, place, len(sample.text)), learned

    def _part(self, text: str, begin: int, end: int) -> list[int]:
        part = text[begin:end]
        closing = next((token for token in self._special if part.endswith(token)), "")
        if closing:  # separately: some special tokens absorb the white space before them
            part = part[: -len(closing)]
        ids = self._continuation(part) if begin and self._tokenizer.is_fast else self._ids(part)
        return [*ids, self._special[closing]] if closing else ids

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False) if text else []

    def _continuation(self, text: str) -> list[int]:
        """Token ids of a text that follows another one. Raises ValueError if the tokenizer always joins the two."""
        if not text:
            return []
        for anchor in _ANCHORS:
            encoding = self._tokenizer([anchor + text], add_special_tokens=False).encodings[0]
            first, _ = _tokens_of(encoding, len(anchor), len(anchor) + len(text))
            if first and encoding.token_to_chars(first)[0] >= len(anchor):
                return encoding.ids[first:]  # type: ignore[no-any-return]
        raise ValueError("the tokenizer joins this text to any text before it")


def _tokens_of(encoding: Any, begin: int, end: int) -> tuple[int, int]:
    """The tokens of those characters. A character can have several tokens, or none, as spaces often do."""
    first = next((t for c in range(begin, end) if (t := encoding.char_to_token(c)) is not None), None)
    last = next((t for c in range(end - 1, begin - 1, -1) if (t := encoding.char_to_token(c)) is not None), None)
    if first is None or last is None:
        return 0, 0
    start = encoding.token_to_chars(last)[0]
    while last + 1 < len(encoding) and (place := encoding.token_to_chars(last + 1)) and start <= place[0] < end:
        last += 1
    return first, last + 1
