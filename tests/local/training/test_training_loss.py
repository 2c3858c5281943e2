"""The loss in pieces is the loss at once: its value, its gradient, and the count of right tokens."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cloudtune_trainer import loss as loss_room
from cloudtune_trainer.loss import summed_cross_entropy

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
