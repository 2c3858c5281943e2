"""One or more values for every feature of a spec, for clause 14."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune.methods import DEFAULT_METHOD, METHODS, methods_of
from cloudtune.spec import JobSpec, spec_features

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cloudtune.backend import Capabilities
    from cloudtune.testing.world import World

# Unusual values, so that none is a default. Several where a value might be the default, or not be possible everywhere.
VALUES: dict[str, tuple[Any, ...]] = {
    "method.loss_on": ("all", "last_assistant", "assistant"),
    "method.beta": (0.37, 0.05),
    "method.problem": ("regression",),
    "method.class_weights": ("balanced",),
    "method.label_smoothing": (0.07,),
    "method.loss": ("triplet",),
    "method.pooling": ("cls",),
    "method.margin": (0.7,),
    "method.reward": ({"url": "http://127.0.0.1:9/other", "timeout": 77.0},),
    "method.num_generations": (5,),
    "method.temperature": (0.77,),
    "method.max_new_tokens": (33,),
    "adapter.rank": (5, 16),
    "adapter.alpha": (11.0, 128.0),
    "adapter.dropout": (0.07,),
    "adapter.targets": ("all-linear", ("q_proj",)),
    "adapter.virtual_tokens": (7,),
    "adapter.path": (),  # a folder of its own: see `asking`
    "adapter.rslora": (True,),
    "adapter.init": ("pissa",),
    "adapter.modules_to_save": (["lm_head"],),
    "adapter.bias": ("all",),
    "adapter.bottleneck_size": (12,),
    "adapter.placement": ("pfeiffer",),
    "hyperparameters.epochs": (7.0, 3.0),
    "hyperparameters.max_steps": (7,),
    "hyperparameters.batch_size": (6, 32),
    "hyperparameters.gradient_accumulation_steps": (2,),
    "hyperparameters.learning_rate": (3.3e-5,),
    "hyperparameters.scheduler": ("cosine", "linear", "constant"),
    "hyperparameters.warmup_steps": (5,),
    "hyperparameters.warmup_ratio": (0.11,),
    "hyperparameters.weight_decay": (0.013,),
    "hyperparameters.adam_beta1": (0.87,),
    "hyperparameters.adam_beta2": (0.93,),
    "hyperparameters.adam_epsilon": (3e-7,),
    "hyperparameters.dropout": (0.07,),
    "hyperparameters.neftune_alpha": (4.4,),
    "hyperparameters.max_grad_norm": (0.77,),
    "hyperparameters.max_length": (96, 480),
    "hyperparameters.packing": (True, False),
    "hyperparameters.precision": ("fp32", "bf16", "fp16"),
    "hyperparameters.gradient_checkpointing": (True, False),
    "layers.freeze": (["*norm*"],),
    "layers.freeze_depth": (1,),
    "layers.unfreeze": ([{"layers": 1, "epochs": 1.0}],),
    "layers.decay": (0.93,),
    "layers.learning_rates": ({"*proj*": 3e-4},),
    "distributed.strategy": ("fsdp",),
    "distributed.processes": (2,),
    "distributed.nodes": (2,),
    "validation.every": (3, "epoch", "never"),
    "validation.early_stopping": ({"patience": 4},),
    "checkpoints.every": (3, "epoch"),
    "checkpoints.keep": (3,),
    "limits.max_time": (777.0,),
    "data.validation": (),  # a file of its own: see `asking`
    "data.test": (),
    "seed": (4711,),
    "tags": ({"team": "red"},),
}


_OF_LABELS = {"method.problem", "method.class_weights", "method.label_smoothing"}
_OF_EMBEDDING = {"method.loss", "method.pooling", "method.margin"}
_ADAPTERS = {
    "adapter.virtual_tokens": "prefix", "adapter.bottleneck_size": "bottleneck", "adapter.placement": "bottleneck",
}  # fmt: skip
"""Settings of a single adapter -> that adapter."""
REWARD = {"url": "http://127.0.0.1:9/reward"}
_OF_REWARDS = {"method.reward", "method.num_generations", "method.temperature", "method.max_new_tokens"}


def values_of(feature: str) -> tuple[Any, ...]:
    """The values of a feature. An unlisted feature is an error, so that a new field is not forgotten."""
    kind, colon, name = feature.partition(":")
    if colon:
        return ({"name" if kind == "method" else "type": name},)
    return VALUES[feature] or (None,)


def asking(world: World, capabilities: Capabilities, wanted: dict[str, Any]) -> JobSpec:
    """A spec with exactly these features, besides the method and adapter that they need."""
    document = _base(world, capabilities, wanted)
    for feature, value in wanted.items():
        if ":" in feature:
            continue
        *parts, last = feature.split(".")
        holder = document
        for part in parts:
            holder = holder.setdefault(part, {})
        if value is not None:
            holder[last] = value
        elif feature == "adapter.path":
            holder[last] = _adapter(world.root)
        else:
            holder[last] = {"path": world.spec(9).data.train.path}
    return JobSpec.model_validate(document)


def _adapter(root: Path) -> str:
    """A folder with a LoRA adapter without weights, as PEFT writes it."""
    folder = root / "adapter"
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}')
    (folder / "adapter_model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return str(folder)


def _base(world: World, capabilities: Capabilities, wanted: dict[str, Any]) -> dict[str, Any]:
    changes = needed_by(capabilities, wanted)
    for feature, value in wanted.items():
        if ":" in feature:
            changes[feature.partition(":")[0]] = value
    method = changes.get("method", {})
    if METHODS[method.get("name", DEFAULT_METHOD)].reward and capabilities.can("method.reward"):
        changes["method"] = {"reward": REWARD, **method}
    return world.spec(8, **changes).model_dump(mode="json", exclude_none=True)


def needed_by(capabilities: Capabilities, wanted: Iterable[str]) -> dict[str, Any]:
    """The adapter and method that these features need, by the spec's own keys."""
    changes: dict[str, Any] = {}
    settings = {feature for feature in wanted if feature.startswith("adapter.")}
    special = {_ADAPTERS.get(setting) for setting in settings}
    if len(special) == 1 and (name := special.pop()) and capabilities.can(f"adapter:{name}"):
        changes["adapter"] = {"type": name}
    elif settings:
        changes["adapter"] = {"type": first_of("adapter", capabilities, last="full")}
    with_beta = [name for name, method in METHODS.items() if method.beta and capabilities.can(f"method:{name}")]
    if "method.beta" in wanted and with_beta:
        changes["method"] = {"name": with_beta[0]}
    classifiers = [name for name in methods_of("sequence_classification") if capabilities.can(f"method:{name}")]
    if not _OF_LABELS.isdisjoint(wanted) and classifiers:
        changes["method"] = {"name": classifiers[0]}
    embedders = [name for name in methods_of("text_embedding") if capabilities.can(f"method:{name}")]
    if not _OF_EMBEDDING.isdisjoint(wanted) and embedders:
        changes["method"] = {"name": embedders[0], **({"loss": "triplet"} if "method.margin" in wanted else {})}
    rewarded = [name for name, method in METHODS.items() if method.reward and capabilities.can(f"method:{name}")]
    if not _OF_REWARDS.isdisjoint(wanted) and rewarded:
        changes["method"] = {"name": rewarded[0]}
    return changes


def first_of(kind: str, capabilities: Capabilities, *, last: str) -> str:
    """The first supported choice of that kind, ``last`` only if there is no other."""
    names = [name.partition(":")[2] for name in spec_features() if name.startswith(f"{kind}:")]
    names.sort(key=lambda name: name == last)
    return next((name for name in names if capabilities.can(f"{kind}:{name}")), last)
