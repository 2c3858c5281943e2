"""Memory-efficient losses over large vocabularies.

The logits of 1,024 tokens at a vocabulary of 49,152 take 96 MiB in bf16. Computed at once, their softmax, its copy in
fp32 and both gradients take eight times that. Here the gradient is computed together with the loss in chunks of rows,
so that only the logits and their gradient are in memory as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

CELLS = 8 * 1024**2
"""Logits processed at once: 32 MiB in fp32."""


def summed_cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """The loss of ``logits`` [rows, vocabulary] against ``targets`` [rows], summed in fp32, and the number of hits.

    ``smoothing`` is the share of the target probability that is divided among the whole vocabulary.
    """
    logps, correct = _LogProbabilities.apply(logits, targets, smoothing)  # type: ignore[no-untyped-call]
    return -logps.sum(), correct


def log_probabilities(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each row's target, in fp32, and how many targets are their row's most likely token."""
    logps, correct = _LogProbabilities.apply(logits, targets, 0.0)  # type: ignore[no-untyped-call]
    return logps, correct


def summed_divergence(logits: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """KL(wanted || logits) of both distributions [rows, vocabulary] at a temperature, summed over the rows in fp32.

    ``wanted`` gets no gradient.
    """
    found: Tensor = _Divergence.apply(logits, wanted, temperature)  # type: ignore[no-untyped-call]
    return found


class _LogProbabilities(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        logps = torch.zeros(len(targets), dtype=torch.float32, device=logits.device)
        correct = torch.zeros((), dtype=torch.int64, device=logits.device)
        gradient = _gradient_of(logits) if ctx.needs_input_grad[0] else None
        for cells in _chunks(logits):
            wanted = targets[cells].unsqueeze(-1)
            correct += (logits[cells].argmax(-1, keepdim=True) == wanted).sum()
            scores = torch.log_softmax(logits[cells], -1, dtype=torch.float32)
            logps[cells] = scores.gather(-1, wanted)[:, 0]
            if smoothing:
                logps[cells] = torch.lerp(logps[cells], scores.mean(-1), smoothing)
            if gradient is not None:
                scores.exp_()
                if smoothing:
                    scores -= smoothing / scores.shape[-1]
                scores.scatter_add_(-1, wanted, torch.full_like(wanted, smoothing - 1, dtype=scores.dtype))
                gradient[cells] = scores
        ctx.gradient, ctx.dtype = gradient, logits.dtype
        ctx.mark_non_differentiable(correct)
        return logps, correct

    @staticmethod
    def backward(ctx: Any, scale: Tensor, _: Any) -> tuple[Tensor, None, None]:
        gradient, ctx.gradient = ctx.gradient, None
        return gradient.mul_(-scale.unsqueeze(-1)).to(ctx.dtype), None, None


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, wanted: Tensor, temperature: float) -> Tensor:
        loss = torch.zeros((), dtype=torch.float32, device=logits.device)
        gradient = _gradient_of(logits) if ctx.needs_input_grad[0] else None
        for cells in _chunks(logits):
            found, target = (torch.log_softmax(one[cells].float() / temperature, -1) for one in (logits, wanted))
            shares = target.exp_()
            loss += F.kl_div(found.masked_fill(shares == 0, 0), shares, reduction="sum")  # 0 * -inf would be NaN
            if gradient is not None:
                gradient[cells] = found.exp_().sub_(shares)
        ctx.gradient, ctx.dtype, ctx.temperature = gradient, logits.dtype, temperature
        return loss

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None, None]:
        gradient, ctx.gradient = ctx.gradient, None
        return gradient.mul_(scale / ctx.temperature).to(ctx.dtype), None, None


def _gradient_of(logits: Tensor) -> Tensor:
    """Room for a gradient of the logits. fp16 cannot represent small probabilities; the other types can."""
    return torch.empty_like(logits, dtype=torch.float32 if logits.dtype == torch.float16 else logits.dtype)


def _chunks(logits: Tensor) -> Iterator[slice]:
    rows = max(1, CELLS // logits.shape[-1])
    return (slice(begin, begin + rows) for begin in range(0, len(logits), rows))
