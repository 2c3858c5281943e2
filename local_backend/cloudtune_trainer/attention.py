"""Attention over packed documents, without attention across documents.

A batch is one row of tokens without padding: linear layers, which are most of the work, run on real tokens only. Only
attention needs the documents' boundaries. Documents of similar length are gathered into a rectangle with causal
attention: padding comes after all tokens of its document, so no mask is needed and the fastest kernel of every device
applies. Measurements: ``local_backend/LOG.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ATTENTION = "cloudtune_documents"
_UNSUPPORTED = ("softcap", "s_aux", "position_bias", "cache")
_WASTE = 1.5
"""A rectangle with more than this many times the tokens of its documents is split in two."""


@dataclass(frozen=True)
class Rectangle:
    """Documents whose attention is computed together, as ``count`` rows of ``length`` tokens."""

    count: int
    length: int
    gather: Tensor
    """Batch index of each cell, row by row. A cell after its document's end repeats the document's last token."""


@dataclass(frozen=True)
class Layout:
    """The positions of the documents in a batch. Tokens T = sum of the documents' lengths."""

    rectangles: tuple[Rectangle, ...]
    scatter: Tensor
    """The cell of each token, counted over all rectangles: the inverse of the gathers."""
    plain: bool
    """The documents have the same length and are in order, so that a reshape is enough."""

    def to(self, device: torch.device) -> Layout:
        """The same layout on another device."""
        moved = tuple(Rectangle(r.count, r.length, r.gather.to(device)) for r in self.rectangles)
        return Layout(moved, self.scatter.to(device), self.plain)


def layout_of(lengths: list[int]) -> Layout:
    """Group documents of similar length into rectangles."""
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    if len(set(lengths)) == 1:
        everything = torch.arange(starts[-1])
        return Layout((Rectangle(len(lengths), lengths[0], everything),), everything, plain=True)
    rectangles = []
    scatter = torch.empty(starts[-1], dtype=torch.long)
    cells = 0
    for group in _groups(lengths):
        width = lengths[group[0]]
        begin = torch.tensor([starts[i] for i in group])[:, None]
        size = torch.tensor([lengths[i] for i in group])[:, None]
        column = torch.arange(width)[None, :]
        gather = begin + torch.minimum(column, size - 1)
        real = column < size
        cell = torch.arange(cells, cells + gather.numel()).view_as(gather)
        scatter[gather[real]] = cell[real]
        rectangles.append(Rectangle(len(group), width, gather.flatten()))
        cells += gather.numel()
    return Layout(tuple(rectangles), scatter, plain=False)


def _groups(lengths: list[int]) -> list[list[int]]:
    """Indices of documents, longest first, split where a rectangle would be mostly padding."""
    groups: list[list[int]] = []
    area = real = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        width = lengths[groups[-1][0]] if groups else 0
        if not groups or (area + width) > _WASTE * (real + lengths[index]):
            groups.append([])
            area = real = 0
            width = lengths[index]
        groups[-1].append(index)
        area += width
        real += lengths[index]
    return groups


class _Rearrange(torch.autograd.Function):
    """Rows gathered by index. The gradient is gathered by the inverse index: without scatter-add, fast and exact.

    This is correct because every real row is gathered exactly once: the gradient of a padding cell is zero, since no
    real token attends to it and its own output is dropped.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(index, inverse)
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        _, inverse = ctx.saved_tensors
        return grads[0].index_select(0, inverse), None, None


def documents_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    *,
    documents: Layout | None = None,
    sliding_window: int | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """The attention function of transformers' interface: tensors are [1, heads, T, head size]."""
    if documents is None:
        raise ValueError("this attention requires document boundaries; load the model with sdpa for generation")
    strange = [name for name in _UNSUPPORTED if rest.get(name) is not None]
    if strange or rest.get("is_causal") is False:
        raise ValueError(f"this attention does not support {', '.join(strange) or 'non-causal masks'}")
    if attention_mask is not None and attention_mask.requires_grad:
        raise ValueError("this attention does not support masks that the model computes from its input")
    groups = query.shape[1] // key.shape[1]
    settings = {"dropout_p": dropout, "scale": scaling, "enable_gqa": groups > 1}
    if documents.plain:
        (box,) = documents.rectangles
        q, k, v = (x.view(x.shape[1], box.count, box.length, -1).transpose(0, 1) for x in (query, key, value))
        out = _attend(q, k, v, box.length, sliding_window, settings)
        return out.transpose(1, 2).reshape(1, -1, out.shape[1], out.shape[3]), None
    # one gather for all three: heads side by side, tokens as rows
    joined = torch.cat((query[0], key[0], value[0])).transpose(0, 1)
    index = torch.cat([box.gather for box in documents.rectangles])
    cells = _Rearrange.apply(joined, index, documents.scatter)  # type: ignore[no-untyped-call]
    outs, begin = [], 0
    for box in documents.rectangles:
        end = begin + box.count * box.length
        rows = cells[begin:end].view(box.count, box.length, joined.shape[1], -1).transpose(1, 2)
        q, k, v = rows.split((query.shape[1], key.shape[1], value.shape[1]), dim=1)
        out = _attend(q, k, v, box.length, sliding_window, settings)
        outs.append(out.transpose(1, 2).reshape(-1, out.shape[1], out.shape[3]))
        begin = end
    return torch.cat(outs).index_select(0, documents.scatter)[None], None


def _attend(q: Tensor, k: Tensor, v: Tensor, length: int, window: int | None, settings: dict[str, Any]) -> Tensor:
    if window is None or length <= window:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, **settings)
    place = torch.arange(length, device=q.device)
    distance = place[:, None] - place[None, :]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=(distance >= 0) & (distance < window), **settings)
