"""NEFTune: noise on the embeddings, as in the paper, in training only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cloudtune_trainer import models
from cloudtune_trainer.embedding_noise import add_embedding_noise

from .conftest import Runs, same_bits, weights


@pytest.mark.parametrize("packed", [True, False])
def test_embedding_noise_is_that_of_the_paper(tiny_model: Path, packed: bool) -> None:
    model = models.load_model(models.BaseModel(str(tiny_model)), dtype=torch.float32)
    lengths = (3, 7)
    ids = torch.arange(20, 30)[None] if packed else torch.tensor([[20, 21, 22, 0, 0, 0, 0], [*range(23, 30)]])
    inputs = {"position_ids": torch.tensor([[*range(3), *range(7)]])}
    if not packed:
        inputs = {"attention_mask": torch.tensor([[1] * 3 + [0] * 4, [1] * 7])}
    seen: list[torch.Tensor] = []
    with torch.no_grad():
        clean = model.get_input_embeddings()(ids)
        add_embedding_noise(model, 5.0)
        model.get_input_embeddings().register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        torch.manual_seed(3)
        model.train()(input_ids=ids, **inputs)
        torch.manual_seed(3)
        noise = torch.rand_like(clean) * 2 - 1
        model.eval()(input_ids=ids, **inputs)
    width = clean.shape[-1]
    rows = [(0, slice(0, 3)), (0, slice(3, 10))] if packed else [(0, slice(None)), (1, slice(None))]
    for (row, cells), length in zip(rows, lengths, strict=True):
        expected = clean[row, cells] + noise[row, cells] * 5.0 / (length * width) ** 0.5
        torch.testing.assert_close(seen[0][row, cells], expected)
    assert torch.equal(seen[1], clean), "no noise outside of training"


def test_a_run_with_embedding_noise_resumes_to_the_bit(runs: Runs) -> None:
    spec = {"adapter": {"type": "lora"}, "hyperparameters": {"neftune_alpha": 5.0, "max_steps": 4}}
    unbroken, broken = runs.make("unbroken", **spec), runs.make("broken", **spec)
    plain = runs.make("plain", adapter={"type": "lora"}, hyperparameters={"max_steps": 4})
    assert runs.train(unbroken) == runs.train(plain) == "succeeded"
    assert runs.train(broken, stop_after=2) == "interrupted"
    assert runs.train(broken) == "succeeded"
    assert same_bits(weights(unbroken.model), weights(broken.model))
    assert not same_bits(weights(unbroken.model), weights(plain.model))
