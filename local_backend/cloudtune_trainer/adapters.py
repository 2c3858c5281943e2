"""The adapters: ways to make weights trainable. ``ADAPTERS`` has one entry for each.

Imports peft only when an adapter is built, so that planning and reading a run file are fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloudtune_trainer.run_spec import Adapter

_SAVED: dict[str, tuple[type, ...]] = {
    "task_type": (str,), "peft_type": (str,), "inference_mode": (bool,), "peft_version": (str,), "revision": (str,),
    "base_model_name_or_path": (str,), "modules_to_save": (list,),
}  # fmt: skip
_SAVED_BY_LORA: dict[str, tuple[type, ...]] = {
    "r": (int,), "lora_alpha": (int, float), "lora_dropout": (int, float), "target_modules": (str, list),
    "bias": (str,), "fan_in_fan_out": (bool,), "use_rslora": (bool,), "use_dora": (bool,), "init_lora_weights": (bool,),
    "rank_pattern": (dict,), "alpha_pattern": (dict,), "exclude_modules": (str, list),
    "layers_to_transform": (int, list), "layers_pattern": (str, list), "use_qalora": (bool,),
    "qalora_group_size": (int,), "lora_bias": (bool,), "ensure_weight_tying": (bool,), "megatron_core": (str,),
    "target_parameters": (list,),
}  # fmt: skip
_SAVED_BY_PREFIX: dict[str, tuple[type, ...]] = {
    "num_virtual_tokens": (int,), "token_dim": (int,), "num_transformer_submodules": (int,),
    "num_attention_heads": (int,), "num_layers": (int,), "encoder_hidden_size": (int,), "prefix_projection": (bool,),
}  # fmt: skip


class AdapterType(NamedTuple):
    """The definition of an adapter."""

    settings: Mapping[str, Any]
    """The fields of `run_spec.Adapter` that apply, with their defaults."""
    learning_rate: float
    """The default for methods that learn from answers."""
    preference_learning_rate: float
    """The default for preference methods."""
    config: Callable[..., Any] | None
    """Creates peft's configuration from the settings; None if the base model's own weights are trained."""
    peft_type: str = ""
    saved: Mapping[str, tuple[type, ...]] = {}
    """The fields of a saved ``adapter_config.json`` that define the adapter, with their types. Other fields can
    name modules to import or models to load, and have to be empty (``megatron_core`` does nothing without
    ``megatron_config``)."""
    mergeable: bool = False
    """Its weights can be added to those of the base model."""
    can_pack: bool = True
    """It works with several samples in one row."""
    can_checkpoint: bool = True
    """It works with gradient checkpointing."""
    in_layers: bool = True
    """Its weights are in the layers of the base model, so that a layer schedule applies."""


def _lora(adapter: Adapter, *, target_modules: list[str] | None = None, **more: Any) -> Any:
    from peft import LoraConfig

    given = adapter.targets if isinstance(adapter.targets, str) else list(adapter.targets)
    targets = given if target_modules is None else target_modules
    # peft annotates alpha as int, but only divides by it
    return LoraConfig(
        r=adapter.rank, lora_alpha=adapter.alpha, lora_dropout=adapter.dropout, target_modules=targets, **more
    )


def _prefix(adapter: Adapter, **more: Any) -> Any:
    from peft import PrefixTuningConfig

    return PrefixTuningConfig(num_virtual_tokens=adapter.virtual_tokens, **more)


ADAPTERS: dict[str, AdapterType] = {
    "full": AdapterType({}, 2e-5, 1e-6, None),
    "lora": AdapterType(
        {"rank": 8, "alpha": 16.0, "dropout": 0.0, "targets": "all-linear"}, 2e-4, 1e-5, _lora,
        peft_type="LORA", saved=_SAVED | _SAVED_BY_LORA, mergeable=True,
    ),
    "prefix": AdapterType(
        {"virtual_tokens": 20}, 1e-2, 1e-3, _prefix,
        peft_type="PREFIX_TUNING", saved=_SAVED | _SAVED_BY_PREFIX, can_pack=False, can_checkpoint=False,
        in_layers=False,
    ),
}  # fmt: skip
