"""Load the weights of a network and check that every tensor is there.

transformers initializes a tensor that is missing from the files with random values and only logs it. Here, all weights
must come from the files, else the load is refused with the names of the tensors.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cloudtune_trainer.layer_names import is_old_buffer
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.quiet import without_load_report

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SHOWN = 5
"""Number of tensor names in a message."""


def load_checked(auto: Any, source: str, *, new_head: set[str] | None = None, **options: Any) -> Any:
    """Load a network by ``auto.from_pretrained(source, **options)`` and check its weights.

    ``new_head`` permits a head without stored weights, and stored weights of another head: a classifier starts from
    the weights of a language model. The names of the head's weights that are not in the files are added to the set.

    Raises:
        TrainingProblem: ``model_not_found``, with the tensors that are missing, unexpected or of another shape.

    """
    with contextlib.nullcontext() if new_head is None else without_load_report():
        network, report = auto.from_pretrained(
            source, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    missing, unexpected = set(report["missing_keys"]), set(report["unexpected_keys"])
    shapes = {name: (tuple(stored), tuple(needed)) for name, stored, needed in report["mismatched_keys"]}
    missing -= shapes.keys()
    if network.base_model is network and hasattr(network, "pooler"):  # vectors of tokens do not need it
        network.pooler = None
        missing = {name for name in missing if not name.startswith("pooler.")}
    unexpected = {name for name in unexpected if not is_old_buffer(name)}
    if new_head is not None:
        new_head |= {name for name in missing | shapes.keys() if _in_head(network, name)}
        missing, unexpected = (
            {name for name in names if not _in_head(network, name)} for names in (missing, unexpected)
        )
        shapes = {name: pair for name, pair in shapes.items() if not _in_head(network, name)}
    if missing or unexpected or shapes:
        other = [f"{name} has shape {list(a)}, config.json requires {list(b)}" for name, (a, b) in shapes.items()]
        raise _mismatch(source, missing, unexpected, other)
    _restore_padding(network, source, options.get("revision"))
    return network


def cast_parameters(network: Any, dtype: torch.dtype) -> None:
    """Convert the parameters to ``dtype``. Buffers, such as rotary frequencies, keep their precision."""
    for parameter in network.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def _restore_padding(network: Any, source: str, revision: str | None) -> None:
    """Restore the padding token's embedding from the safetensors files in a folder or of a model on the hub.

    Loading sets it to zero in some families, such as Youtu, although training changes it.
    """
    from safetensors import safe_open
    from transformers.utils import cached_file

    cleared = [
        module
        for module in network.modules()
        if isinstance(module, torch.nn.Embedding)
        and module.padding_idx is not None
        and not module.weight.is_meta
        and not module.weight[module.padding_idx].any()
    ]
    if not cleared:
        return
    prefix = f"{network.base_model_prefix}."
    parameters = list(network.named_parameters(remove_duplicate=False))
    stored_as = {
        name: module
        for module in cleared
        for own in [own for own, weight in parameters if weight is module.weight]
        for name in (own, own.removeprefix(prefix), prefix + own)  # a base model's files have no prefix
    }
    folder = Path(source)
    if not folder.is_dir():
        folder = Path(cached_file(source, "config.json", revision=revision)).parent
    whole = folder / "model.safetensors"
    for path in [whole] if whole.is_file() else sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in stored_as.keys() & set(file.keys()):
                module, stored = stored_as[name], file.get_slice(name)
                if stored.get_shape() == list(module.weight.shape):
                    module.weight.data[module.padding_idx] = stored[module.padding_idx].to(module.weight.device)


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
    if network.base_model is network:  # the network is a base model
        return parts[0] not in dict(network.named_children()) and not any(part.isdecimal() for part in parts)
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
