"""Convert a LoRA adapter whose initialization changed the base model's weights to a plain one.

PiSSA and OLoRA start from factors A0 and B0 of the base weight W, and train A and B on W - s B0 A0, with the scale s.
The trained layer is W + s (B A - B0 A0), which is a LoRA adapter of twice the rank on the unchanged base model.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import torch

from cloudtune_trainer.tuned import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_object

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor


def initial_factors(tuned: Any) -> dict[str, Tensor]:
    """A copy of the adapter of ``tuned``, a peft model that is not yet trained."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(tuned, save_embedding_layers=False)
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items() if "lora_" in name}


def make_plain(folder: Path, initial: Mapping[str, Tensor]) -> None:
    """Convert the adapter that peft saved in ``folder``."""
    from safetensors.torch import load_file, save_file

    path = folder / ADAPTER_WEIGHTS
    tensors = load_file(path)
    for name, start in initial.items():
        if ".lora_A." in name:
            tensors[name] = torch.cat([tensors[name], start.to(tensors[name].dtype)], dim=0)
        elif ".lora_B." in name:
            tensors[name] = torch.cat([tensors[name], -start.to(tensors[name].dtype)], dim=1)
    save_file(tensors, path, metadata={"format": "pt"})
    config = read_object(folder / ADAPTER_CONFIG)
    config["lora_alpha"] *= math.sqrt(2) if config["use_rslora"] else 2  # the scale stays the same
    config |= {"r": 2 * config["r"], "init_lora_weights": True}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
