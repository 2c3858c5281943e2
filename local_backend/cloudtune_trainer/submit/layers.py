"""Layer schedules of a JobSpec for cloudtune's own trainer: validation, and the share of weights they train. Pure."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from cloudtune.errors import Problem
from cloudtune.methods import METHODS
from cloudtune.spec_trained import Layers
from cloudtune_trainer.adapters import ADAPTERS
from cloudtune_trainer.layer_names import is_embedding, is_match

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cloudtune.spec import JobSpec
    from cloudtune_trainer.submit.plan import Choices

_OWN_HEAD = ("causal_lm", "preference", "unpaired_preference", "distillation", "policy_optimization")
"""Tasks that train the base model with the head that it has. PPO adds a value head to it."""


def layer_settings(spec: JobSpec, choices: Choices, adapter: str, model: Mapping[str, Any]) -> dict[str, Any]:
    """The part ``layers`` of the trainer's spec; nothing without a schedule."""
    layers = spec.layers
    if layers is None:
        return {}
    given = layers.model_dump(mode="json", exclude_none=True)
    for name, value in given.items():
        choices.pick(f"layers.{name}", value, None)
    groups = model.get("weight_groups") or {}
    sizes = _parameters(groups)
    # in an encoder-decoder, the numbers of layers do not tell their depth
    has_depth = layers.freeze_depth is None or len(_layer_counts(groups)) < 2
    if sizes and has_depth and _trains_stored_weights(spec, adapter) and not any(_without_match(layers, sizes)):
        frozen = sum(size for name, size in sizes.items() if _is_frozen(name, layers))
        total = sum(sizes.values())
        share = f"{total - frozen:.0f} of {total:.0f} weights ({1 - frozen / total:.1%})"
        choices.note(
            "trained",
            share,
            "derived from layers, after the last stage" if layers.unfreeze else "derived from layers",
        )
    return {"layers": given}


def schedule_problems(spec: JobSpec, adapter: str) -> Iterator[Problem]:
    """Settings that need weights in the layers, with an adapter that has none there."""
    if adapter not in ADAPTERS or ADAPTERS[adapter].in_layers or spec.layers is None:
        return
    for name in Layers.model_fields:
        if getattr(spec.layers, name) is not None:
            message = f"{adapter} training changes no layers"
            yield Problem(
                code="no_effect", field=f"layers.{name}", message=message, fix="remove it, or use lora or full"
            )


def layer_problems(spec: JobSpec, adapter: str, model: Mapping[str, Any]) -> Iterator[Problem]:
    """Patterns and numbers of layers that do not fit the model, if the names of its weights are known."""
    groups: Mapping[str, Any] = model.get("weight_groups") or {}
    layers, sizes = spec.layers, _parameters(groups)
    if layers is None or not sizes:
        return
    depth = sum(_layer_counts(groups).values())
    counts = {"freeze_depth": layers.freeze_depth or 0}
    counts |= {"unfreeze": max((stage.layers or 0 for stage in layers.unfreeze or ()), default=0)}
    for field, count in counts.items():
        if count > depth > 0:
            message = f"the model has {depth} layers, not {count}"
            yield Problem(code="range", field=f"layers.{field}", message=message, fix=f"use at most {depth}")
    if not _trains_stored_weights(spec, adapter) or any("#" in name for name in groups):
        return  # other weights are trained than those in the files, or under other names
    # the trainer checks the patterns again, with the names in the loaded model
    severity: Literal["error", "warning"] = "warning" if _lacks_prefix(groups) else "error"
    for field, pattern in _without_match(layers, sizes):
        parts = sorted({part for name in groups for part in name.split(".") if part != "*"})
        fix = f"parts of their names are {', '.join(get_close_matches(pattern, parts, n=3) or parts)}"
        message = f"the model's files have no weight that matches {pattern!r}"
        yield Problem(code="unknown_layer", severity=severity, field=f"layers.{field}", message=message, fix=fix)
    if all(_is_frozen(name, layers) for name in sizes):
        yield Problem(code="range", field="layers", message="no weight is left to train", fix="freeze less")


def _trains_stored_weights(spec: JobSpec, adapter: str) -> bool:
    """Whether exactly the weights in the model's files are trained."""
    method = spec.method.name
    return adapter == "full" and METHODS[method].task in _OWN_HEAD and method != "ppo"


def _lacks_prefix(groups: Mapping[str, Any]) -> bool:
    """Whether the names may lack the start that they have in the loaded model: ``transformer.`` of GPT-2's ``h.0``."""
    return any(name.split(".")[1:2] == ["*"] or name.startswith(("encoder.", "decoder.")) for name in groups)


def _without_match(layers: Layers, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The patterns that match none of the names, each with its field."""
    patterns = [("freeze", one) for one in layers.freeze or ()]
    patterns += [("learning_rates", one) for one in layers.learning_rates or ()]
    return (pair for pair in patterns if not any(is_match(name, pair[1]) for name in names))


def _layer_counts(groups: Mapping[str, Any]) -> dict[str, int]:
    """The start of the names of each stack of layers -> the number of its layers."""
    stacks: dict[str, int] = {}
    for name, (count, _) in groups.items():
        prefix, star, _ = name.partition("*")
        if star:
            stacks[prefix] = max(stacks.get(prefix, 0), count)
    return stacks


def _parameters(groups: Mapping[str, Any]) -> dict[str, float]:
    """Name of each weight -> the number of its parameters, on average over the layers."""
    return {
        name.replace("*", str(number), 1): size / count
        for name, (count, size) in groups.items()
        for number in range(count if "*" in name else 1)
    }


def _is_frozen(name: str, layers: Layers) -> bool:
    if any(is_match(name, pattern) for pattern in layers.freeze or ()):
        return True
    if layers.freeze_depth is None:
        return False
    number = next((int(part) for part in name.split(".") if part.isdecimal()), None)
    return is_embedding(name) if number is None else number < layers.freeze_depth
