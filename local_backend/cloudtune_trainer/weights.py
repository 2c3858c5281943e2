"""Load the weights of a network and check that every tensor is there.

transformers initializes a tensor that is missing from the files with random values and only logs it. Here, all weights
must come from the files, else the load is refused with the names of the tensors.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cloudtune_trainer.problems import TrainingProblem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_SHOWN = 5
"""Number of tensor names in a message."""
_OLD_BUFFERS = re.compile(r"\b(attn|attention|self_attn)\.(masked_)?bias$|\brotary_emb\.inv_freq$|\bposition_ids$")
"""Constants that older versions of transformers stored as weights."""


def load_checked(auto: Any, source: str, *, new_head: bool = False, **options: Any) -> Any:
    """Load a network by ``auto.from_pretrained(source, **options)`` and check its weights.

    ``new_head`` permits a head without stored weights, and stored weights of another head: a classifier starts from
    the weights of a language model.

    Raises:
        TrainingProblem: ``model_not_found``, with the tensors that are missing, unexpected or of another shape.

    """
    network, report = auto.from_pretrained(source, output_loading_info=True, ignore_mismatched_sizes=True, **options)
    missing, unexpected = set(report["missing_keys"]), set(report["unexpected_keys"])
    shapes = {name: (tuple(stored), tuple(needed)) for name, stored, needed in report["mismatched_keys"]}
    missing -= shapes.keys()
    unexpected = {name for name in unexpected if not _OLD_BUFFERS.search(name)}
    if new_head:
        missing, unexpected = (
            {name for name in names if not _in_head(network, name)} for names in (missing, unexpected)
        )
        shapes = {name: pair for name, pair in shapes.items() if not _in_head(network, name)}
    if missing or unexpected or shapes:
        other = [f"{name} has shape {list(a)}, config.json requires {list(b)}" for name, (a, b) in shapes.items()]
        raise _mismatch(source, missing, unexpected, other)
    return network


def load_stored_values(network: Any, folder: Path) -> None:
    """Give the network the values in the safetensors files of ``folder``, from which it was loaded.

    Loading clears the embedding of the padding token in some families, such as Youtu, although training changes it.
    """
    from safetensors.torch import load_file

    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    for path in sorted(folder.glob("*.safetensors")):
        stored = {name: tensor for name, tensor in load_file(path).items() if shapes.get(name) == tensor.shape}
        network.load_state_dict(stored, strict=False)


def head_weights(network: Any) -> list[str]:
    """The names of the weights outside the network's base model."""
    return [name for name, _ in network.named_parameters() if _in_head(network, name)]


def check_adapter_weights(network: Any, folder: Path, adapter: str = "default") -> None:
    """Check that the adapter's file holds exactly the tensors of the adapter on ``network``, a peft model.

    Raises:
        TrainingProblem: ``model_not_found``, with the tensors that are missing, unexpected or of another shape.

    """
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    state = get_peft_model_state_dict(network, adapter_name=adapter, save_embedding_layers=False)
    needed = {name: list(tensor.shape) for name, tensor in state.items()}
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        stored = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - not a dict
    check_tensors(str(folder), needed, stored)


def check_tensors(source: str, needed: Mapping[str, list[int]], stored: Mapping[str, list[int]]) -> None:
    """Check that the stored tensors are the needed ones, by name and shape. Raises ``model_not_found``."""
    other = [
        f"{name} has shape {stored[name]}, the model requires {needed[name]}"
        for name in sorted(needed.keys() & stored.keys())
        if stored[name] != needed[name]
    ]
    missing, unexpected = needed.keys() - stored.keys(), stored.keys() - needed.keys()
    if missing or unexpected or other:
        raise _mismatch(source, missing, unexpected, other)


def _in_head(network: Any, name: str) -> bool:
    """Whether that weight belongs to a head: outside the base model and in no numbered layer, or a pooler."""
    parts = name.split(".")
    if "pooler" in parts:
        return True
    return parts[0] != network.base_model_prefix and not any(part.isdecimal() for part in parts)


def _mismatch(source: str, missing: Iterable[str], unexpected: Iterable[str], shapes: list[str]) -> TrainingProblem:
    faults = [
        f"{what} {listed(names)}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("wrong shape:", shapes))
        if names
    ]
    hint = "Use a complete checkpoint of this model, with the config.json that belongs to it."
    if "lm_head.weight" in missing:
        hint += " If the model uses its embeddings as output layer, set tie_word_embeddings to true in config.json."
    return TrainingProblem(
        "model_not_found", f"the weights in {source} do not match the model: {'; '.join(faults)}", hint
    )


def listed(names: Iterable[str]) -> str:
    """Format the first few names, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    return ", ".join(ordered[:_SHOWN]) + more
