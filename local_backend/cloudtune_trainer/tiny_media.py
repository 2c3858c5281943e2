"""Tiny models of images, built from a configuration: for tests and for ``model: {source: config}``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune_trainer.folder import write_json
from cloudtune_trainer.quiet import quietly

if TYPE_CHECKING:
    from collections.abc import Mapping

TINY_VIT: dict[str, Any] = {
    "model_type": "vit",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
    "num_channels": 3,
}
"""About 0.1 M parameters."""
PREPROCESSOR = "preprocessor_config.json"


def write_vision_model(
    folder: Path | str, *, seed: int = 0, model: Mapping[str, Any] | None = None,
    processor: Mapping[str, Any] | None = None,
) -> Path:  # fmt: skip
    """Write a model folder without a head: config, weights, and the configuration of the image processor.

    ``model`` overrides fields of `TINY_VIT`, and ``processor`` those of a processor that resizes to the model's size.
    The same arguments give the same files.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    folder = Path(folder)
    given = dict(model or {})
    fields = given if given.get("model_type", "vit") != "vit" else {**TINY_VIT, **given}
    size = fields.get("image_size", 224)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    with torch.random.fork_rng(devices=[]), quietly():
        torch.manual_seed(seed)
        network = AutoModel.from_config(config, dtype=torch.float32)
    folder.mkdir(parents=True, exist_ok=True)
    network.save_pretrained(folder)
    height, width = (size, size) if isinstance(size, int) else size
    usual = {"image_processor_type": "ViTImageProcessor", "size": {"height": height, "width": width}}
    write_json(folder / PREPROCESSOR, {**usual, **(processor or {})})
    return folder
