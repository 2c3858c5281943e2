"""Which input tokens can change which outputs of a network, by the gradient of the outputs.

A gradient is exactly zero if there is no path from the token to the output, in every precision and for all weights.
Comparing outputs instead would miss a path that is weak with the current weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor


def influence(model: Any, inputs: dict[str, Any], outputs: Tensor) -> Tensor:
    """The largest gradient of the selected logits by the embedding of each input token.

    ``inputs`` are arguments of the forward pass with ``input_ids`` [rows, width]; ``outputs`` [rows, width] selects
    the places whose logits count. The model must be in evaluation mode. Returns [rows, width].
    """
    embedded: list[Tensor] = []

    def start_here(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1].clone()  # some models modify it in place

    hook = model.get_input_embeddings().register_forward_hook(start_here)
    try:
        with torch.enable_grad():
            logits = model(**inputs, use_cache=False).logits
            weights = torch.rand(logits.shape[-1], generator=torch.Generator().manual_seed(0)) - 0.5
            total = (logits.float() * weights.to(logits.device))[outputs].sum()
            gradients: tuple[Tensor | None, ...] = torch.autograd.grad(total, embedded, allow_unused=True)
    finally:
        hook.remove()
    rows, width = inputs["input_ids"].shape
    found = torch.zeros(rows, width, device=logits.device)
    for gradient in gradients:
        if gradient is None:
            continue
        largest = gradient.float().abs().amax(-1)
        found = torch.maximum(found, largest if largest.shape == found.shape else largest.T)
    return found
