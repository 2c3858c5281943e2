"""The probability of texts under a causal language model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CELLS = 1 << 27
"""Logits that are in memory at a time."""
_MOST_ROWS = 32

Row = tuple[list[int], int, int]
"""Token ids, and the half-open range of those whose probability counts."""


def log_probabilities(
    network: Any, rows: Sequence[Row], *, context: int | None, batches: bool
) -> list[tuple[float, int]]:
    """For each row, the natural logarithm of the probability of the counted tokens, and their number.

    Args:
        network: The model.
        rows: The first token of a row is never counted: nothing precedes it.
        context: Tokens that the model takes. Longer rows are read in windows that overlap by half, so that each token
            follows at least half a window.
        batches: Rows can be padded and read together.
    """
    windows = [(number, window) for number, row in enumerate(rows) for window in _windows(row, context)]
    sums, counts = [0.0] * len(rows), [0] * len(rows)
    for batch in _batches(network, windows, batches=batches):
        for (number, _), (total, count) in zip(batch, _scores(network, [row for _, row in batch]), strict=True):
            sums[number] += total
            counts[number] += count
    return list(zip(sums, counts, strict=True))


def _windows(row: Row, context: int | None) -> Iterator[Row]:
    ids, first, last = row
    first = max(1, first)
    size = context or len(ids)
    start = 0
    while first < last:
        start = max(0, min(first - 1, max(start, first - size // 2)))
        if last <= size:
            start = 0
        end = min(last, start + size)
        yield ids[start:end], first - start, end - start
        first = end


def _batches(network: Any, windows: Sequence[tuple[int, Row]], *, batches: bool) -> Iterator[Sequence[tuple[int, Row]]]:
    vocabulary = network.get_input_embeddings().weight.shape[0]
    start = 0
    while start < len(windows):
        end, longest = start, 0
        while end < len(windows) and end - start < (_MOST_ROWS if batches else 1):
            longest = max(longest, len(windows[end][1][0]))
            if end > start and longest * (end - start + 1) * vocabulary > _CELLS:
                break
            end += 1
        yield windows[start:end]
        start = end


@torch.inference_mode()
def _scores(network: Any, rows: Sequence[Row]) -> list[tuple[float, int]]:
    width = max(len(ids) for ids, _, _ in rows)
    device = network.get_input_embeddings().weight.device
    ids = torch.tensor([row + [0] * (width - len(row)) for row, _, _ in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row, _, _ in rows], device=device)
    logits = network(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, -width:]
    found = []
    for number, (_, first, last) in enumerate(rows):
        chosen = logits[number, first - 1 : last - 1].float()
        right = chosen.gather(1, ids[number, first:last, None])[:, 0]
        found.append((float((right - chosen.logsumexp(1)).double().sum()), last - first))
    return found
