"""NEFTune: uniform noise on the embeddings of training rows (arxiv.org/abs/2310.05914)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor


def add_embedding_noise(model: Any, alpha: float) -> None:
    """Add noise while the model is in training mode: uniform in -1 to 1, times alpha / sqrt(tokens x width).

    The number of tokens is that of each row, without padding, also of rows that are packed.
    """
    lengths: list[Tensor | None] = [None]

    def remember(_module: Any, _positional: Any, inputs: dict[str, Any]) -> None:
        lengths[0] = _lengths(inputs)

    def disturb(module: Any, _inputs: Any, output: Tensor) -> Tensor:
        if not module.training:
            return output
        tokens = lengths[0]
        if tokens is None or tokens.shape[0] != output.shape[0] or tokens.shape[1] not in (1, output.shape[1]):
            tokens = torch.full((1, 1), output.shape[1], device=output.device)  # a decoder's input, for example
        scale = alpha / torch.sqrt(tokens * output.shape[-1])
        return output + (torch.rand_like(output) * 2 - 1) * scale[..., None].to(output.dtype)

    model.register_forward_pre_hook(remember, with_kwargs=True)
    model.get_input_embeddings().register_forward_hook(disturb)


def _lengths(inputs: dict[str, Any]) -> Tensor | None:
    """The number of tokens of the row to which each token belongs: [rows, 1], or [1, tokens] for packed rows."""
    if (mask := inputs.get("attention_mask")) is not None and mask.dim() == 2:
        return mask.sum(1, keepdim=True)  # type: ignore[no-any-return]
    if (positions := inputs.get("position_ids")) is None:
        return None
    starts = (positions[0] == 0).nonzero()[:, 0]
    ends = torch.cat([starts[1:], starts.new_tensor([positions.shape[1]])])
    return torch.repeat_interleave(ends - starts, ends - starts)[None]
