"""The adapters: ways to make weights trainable. ``ADAPTERS`` has one entry for each.

Imports peft only when an adapter is built, so that planning and reading a run file are fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloudtune_trainer.spec_trained import Adapter

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
_SAVED_BY_IA3: dict[str, tuple[type, ...]] = {
    "target_modules": (str, list), "feedforward_modules": (str, list), "exclude_modules": (str, list),
    "fan_in_fan_out": (bool,), "init_ia3_weights": (bool,),
}  # fmt: skip
_SAVED_BY_PROMPTS: dict[str, tuple[type, ...]] = {
    "num_virtual_tokens": (int,), "token_dim": (int,), "num_transformer_submodules": (int,),
    "num_attention_heads": (int,), "num_layers": (int,), "encoder_hidden_size": (int,), "prefix_projection": (bool,),
}  # fmt: skip
_SAVED_BY_P_TUNING: dict[str, tuple[type, ...]] = {
    "encoder_reparameterization_type": (str,), "encoder_num_layers": (int,), "encoder_dropout": (int, float),
}  # fmt: skip
_SAVED_BY_BOTTLENECK: dict[str, tuple[type, ...]] = {"size": (int,), "target_modules": (list,)}
MOVES_BASE = ("pissa", "olora")
"""Initializations that subtract the initial adapter from the base model's weights."""


class AdapterType(NamedTuple):
    """The definition of an adapter."""

    settings: Mapping[str, Any]
    """The fields of `run_spec.Adapter` that apply, with the defaults that a plan shows."""
    learning_rate: float
    """The default for methods that learn from answers."""
    preference_learning_rate: float
    """The default for preference methods."""
    config: Callable[..., Any] | None
    """Creates peft's configuration from the settings; None without peft."""
    options: tuple[str, ...] = ()
    """Other fields that apply. A plan shows them only if the spec sets them."""
    peft_type: str = ""
    """``peft_type`` of a saved adapter; empty if the base model's own weights are trained."""
    saved: Mapping[str, tuple[type, ...]] = {}
    """The fields of a saved ``adapter_config.json`` that define the adapter, with their types. Other fields can
    name modules to import or models to load, and have to be empty (``megatron_core`` does nothing without
    ``megatron_config``)."""
    values: Mapping[str, tuple[str, ...]] = {}
    """The possible values of some of these fields."""
    mergeable: bool = False
    """Its weights can be added to those of the base model."""
    can_pack: bool = True
    """It works with several samples in one row."""
    can_checkpoint: bool = True
    """It works with gradient checkpointing."""
    stacked_experts: bool = False
    """It can change stacks of experts, which are parameters outside linear layers."""
    quantized: bool = False
    """The base model has 4 bits for each weight."""
    computed: bool = False
    """Its saved weights are computed from the trained ones."""
    in_layers: bool = True
    """Its weights are in the layers of the base model, so that a layer schedule applies."""


def _lora(adapter: Adapter, *, target_modules: list[str] | None = None, **more: Any) -> Any:
    from peft import LoraConfig

    given = adapter.targets if isinstance(adapter.targets, str) else list(adapter.targets)
    targets = given if target_modules is None else target_modules
    # peft annotates alpha as int, but only divides by it
    return LoraConfig(
        r=adapter.rank, lora_alpha=adapter.alpha, lora_dropout=adapter.dropout, target_modules=targets,
        use_rslora=adapter.rslora, use_dora=adapter.type == "dora", bias=adapter.bias,
        init_lora_weights=True if adapter.init == "default" else adapter.init,
        modules_to_save=list(adapter.modules_to_save) or None, **more,
    )  # fmt: skip


def _ia3(
    adapter: Adapter, *, target_modules: list[str] | None = None, target_parameters: None = None, **more: Any
) -> Any:
    from peft import IA3Config

    given = adapter.targets if isinstance(adapter.targets, str) else list(adapter.targets)
    targets = given if target_modules is None else target_modules
    # a factor for each output, everywhere: a factor for each hidden unit is the same as one for the layer before it
    return IA3Config(
        target_modules=targets, feedforward_modules=[], modules_to_save=list(adapter.modules_to_save) or None, **more
    )


def _prefix(adapter: Adapter, **more: Any) -> Any:
    from peft import PrefixTuningConfig

    return PrefixTuningConfig(num_virtual_tokens=adapter.virtual_tokens, **more)


def _prompt(adapter: Adapter, **more: Any) -> Any:
    from peft import PromptTuningConfig

    # random vectors are far longer than the embeddings of tokens
    return PromptTuningConfig(num_virtual_tokens=adapter.virtual_tokens, prompt_tuning_init="SAMPLE_VOCAB", **more)


def _p_tuning(adapter: Adapter, **more: Any) -> Any:
    from peft import PromptEncoderConfig

    return PromptEncoderConfig(num_virtual_tokens=adapter.virtual_tokens, **more)


_LORA: dict[str, Any] = {"rank": 8, "alpha": 16.0, "dropout": 0.0, "targets": "all-linear"}
_LORA_OPTIONS = ("rslora", "modules_to_save", "bias")
ADAPTERS: dict[str, AdapterType] = {
    "full": AdapterType({}, 2e-5, 1e-6, None),
    "head_only": AdapterType({}, 1e-3, 1e-4, None, in_layers=False),
    "lora": AdapterType(
        _LORA, 2e-4, 1e-5, _lora, options=(*_LORA_OPTIONS, "init"), peft_type="LORA",
        saved=_SAVED | _SAVED_BY_LORA, mergeable=True, stacked_experts=True,
    ),
    "dora": AdapterType(
        _LORA, 2e-4, 1e-5, _lora, options=_LORA_OPTIONS, peft_type="LORA", saved=_SAVED | _SAVED_BY_LORA,
        mergeable=True,
    ),
    "qlora": AdapterType(
        _LORA, 2e-4, 1e-5, _lora, options=("rslora", "bias"), peft_type="LORA", saved=_SAVED | _SAVED_BY_LORA,
        mergeable=True, quantized=True,
    ),
    "ia3": AdapterType(
        {"targets": "all-linear"}, 3e-3, 1e-4, _ia3, options=("modules_to_save",), peft_type="IA3",
        saved=_SAVED | _SAVED_BY_IA3, mergeable=True,
    ),
    "prefix": AdapterType(
        {"virtual_tokens": 20}, 1e-2, 1e-3, _prefix,
        peft_type="PREFIX_TUNING", saved=_SAVED | _SAVED_BY_PROMPTS, can_pack=False, can_checkpoint=False,
        in_layers=False,
    ),
    "bottleneck": AdapterType(
        {"bottleneck_size": 64, "placement": "houlsby"}, 1e-3, 1e-4, None,
        peft_type="CLOUDTUNE_BOTTLENECK", saved=_SAVED | _SAVED_BY_BOTTLENECK,
    ),
    "prompt": AdapterType(
        {"virtual_tokens": 20}, 3e-2, 3e-3, _prompt, peft_type="PROMPT_TUNING",
        saved=_SAVED | _SAVED_BY_PROMPTS | {"prompt_tuning_init": (str,)},
        values={"prompt_tuning_init": ("RANDOM", "SAMPLE_VOCAB")}, can_pack=False, in_layers=False,
    ),
    "p_tuning": AdapterType(
        {"virtual_tokens": 20}, 1e-3, 1e-4, _p_tuning, peft_type="P_TUNING",
        saved=_SAVED | _SAVED_BY_PROMPTS | _SAVED_BY_P_TUNING, can_pack=False, in_layers=False, computed=True,
    ),
}  # fmt: skip


def is_whole_model(adapter: str) -> bool:
    """Whether training saves the whole model, not an adapter."""
    return adapter in ADAPTERS and not ADAPTERS[adapter].peft_type
