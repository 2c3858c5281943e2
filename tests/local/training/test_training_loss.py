"""The loss in pieces is the loss at once: its value, its gradient, and the count of right tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.trainer_pt_utils import LabelSmoother

from cloudtune_trainer import loss as loss_room
from cloudtune_trainer.loss import summed_cross_entropy, summed_divergence

TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_it_equals_the_plain_one(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, rows: int) -> None:
    monkeypatch.setattr(loss_room, "CELLS", 10 * 101)  # ten rows at once: some pieces are whole, the last is not
    torch.manual_seed(rows)
    values, targets = torch.randn(rows, 101).mul(4).to(dtype), torch.randint(0, 101, (rows,))
    values[0, targets[0]] = 30.0  # one is right for certain
    plain, pieces = values.clone().requires_grad_(), values.clone().requires_grad_()
    expected = F.cross_entropy(plain.float(), targets, reduction="sum")
    (expected / 3).backward()
    loss, correct = summed_cross_entropy(pieces, targets)
    (loss / 3).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert int(correct) == int((values.argmax(-1) == targets).sum()) >= 1
    assert pieces.grad is not None
    assert pieces.grad.dtype == dtype
    torch.testing.assert_close(pieces.grad, plain.grad, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] / 100)


@pytest.mark.parametrize("smoothing", [0.1, 0.7])
def test_smoothed_labels_are_those_of_transformers(monkeypatch: pytest.MonkeyPatch, smoothing: float) -> None:
    monkeypatch.setattr(loss_room, "CELLS", 10 * 101)
    torch.manual_seed(5)
    values, targets = torch.randn(23, 101).mul(4), torch.randint(0, 101, (23,))
    plain, pieces = values.clone().requires_grad_(), values.clone().requires_grad_()
    expected = LabelSmoother(epsilon=smoothing)({"logits": plain[None]}, targets[None])
    expected.backward()
    loss, _ = summed_cross_entropy(pieces, targets, smoothing)
    (loss / 23).backward()
    torch.testing.assert_close(loss / 23, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(pieces.grad, plain.grad, rtol=1e-5, atol=1e-8)


def test_nothing_to_learn_is_no_loss() -> None:
    logits = torch.randn(0, 11, requires_grad=True)
    loss, correct = summed_cross_entropy(logits, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert (loss.item(), int(correct)) == (0.0, 0)


def test_without_a_gradient_none_is_kept() -> None:
    with torch.no_grad():
        loss, _ = summed_cross_entropy(torch.zeros(4, 8), torch.tensor([0, 1, 2, 3]))
    assert loss.item() == pytest.approx(4 * torch.log(torch.tensor(8.0)).item())
    assert loss.grad_fn is None


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_divergence_equals_the_plain_one(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, temperature: float
) -> None:
    monkeypatch.setattr(loss_room, "CELLS", 10 * 101)
    torch.manual_seed(3)
    values, wanted = (torch.randn(23, 101).mul(2).to(dtype) for _ in range(2))
    plain, pieces = values.clone().requires_grad_(), values.clone().requires_grad_()
    p, q = (torch.softmax(one.double() / temperature, -1) for one in (wanted, plain))
    expected = (p * (p / q).log()).sum()
    (expected / 3).backward()
    loss = summed_divergence(pieces, wanted, temperature)
    (loss / 3).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert pieces.grad is not None
    assert pieces.grad.dtype == dtype
    torch.testing.assert_close(pieces.grad, plain.grad, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] / 100)


def test_a_token_that_the_teacher_masks_adds_nothing() -> None:
    torch.manual_seed(3)
    values, wanted = torch.randn(5, 11), torch.randn(5, 11)
    wanted[:, 7:] = -torch.inf
    plain, pieces = values.clone().requires_grad_(), values.clone().requires_grad_()
    expected = F.kl_div(torch.log_softmax(plain, -1), torch.softmax(wanted, -1), reduction="sum")
    expected.backward()
    loss = summed_divergence(pieces, wanted, 1.0)
    loss.backward()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(pieces.grad, plain.grad)

    masked = values.clone().masked_fill_(wanted == -torch.inf, -torch.inf).requires_grad_()  # by the student, too
    loss = summed_divergence(masked, wanted, 1.0)
    loss.backward()
    torch.testing.assert_close(loss, F.kl_div(
        torch.log_softmax(values[:, :7], -1), torch.softmax(wanted[:, :7], -1), reduction="sum"
    ))  # fmt: skip
    assert masked.grad is not None
    assert masked.grad.isfinite().all()


class _LargestInFull(TorchDispatchMode):
    """Counts the cells of the largest tensor in fp32."""

    cells = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **kwargs or {})
        if isinstance(out, torch.Tensor) and out.dtype == torch.float32:
            self.cells = max(self.cells, out.numel())
        return out


def test_only_chunks_are_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_room, "CELLS", 10 * 101)
    logits, wanted = (torch.randn(64, 101).bfloat16().requires_grad_() for _ in range(2))
    for loss in (
        lambda: summed_cross_entropy(logits, torch.arange(64))[0],
        lambda: summed_divergence(logits, wanted.detach(), 2.0),
    ):
        with _LargestInFull() as seen:
            loss().backward()
        assert seen.cells == 10 * 101
