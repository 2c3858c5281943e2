"""Log-probabilities of every pair by the initial weights, computed once, for methods with a reference model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cloudtune_trainer.batches import chunks_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudtune_trainer.devices import Devices
    from cloudtune_trainer.tasks.pairs import Pairs
    from cloudtune_trainer.tasks.preference import Preferences


def with_reference(
    model: Any,
    task: Preferences,
    pairs: Pairs,
    devices: Devices,
    *,
    token_budget: int,
    check: Callable[[], None],
) -> Pairs:
    """The pairs with their log-probabilities by the current model.

    The rows have the same order at every start: a resumed run gets the same values. ``check`` may raise
    between two batches, in all processes at once.
    """
    found = np.zeros((len(pairs), 2), dtype=np.float32)
    chunks = chunks_of(pairs.lengths.tolist(), token_budget)
    common = len(chunks) // devices.world  # all processes have at least this many, and must check together
    was_training = model.training
    model.eval()
    try:
        for number, chosen in enumerate(devices.share(chunks)):
            if number < common:
                check()
            with torch.no_grad(), devices.autocast():
                batch = task.collate(pairs, chosen).to(devices.device)
                found[np.asarray(chosen)] = task.likelihoods(model, batch).cpu().numpy().reshape(-1, 2)
    finally:
        model.train(was_training)
    everywhere = devices.totals(*found.reshape(-1).tolist())
    return pairs.with_reference(np.asarray(everywhere, dtype=np.float32).reshape(-1, 2))
