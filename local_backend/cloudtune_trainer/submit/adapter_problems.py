"""Settings of a spec that its kind of adapter does not have, or that contradict its method. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.errors import Problem
from cloudtune.methods import METHODS
from cloudtune_trainer.adapters import ADAPTERS, MOVES_BASE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.spec import JobSpec
    from cloudtune.spec_trained import Adapter

DEFAULT_ADAPTER = "lora"


def adapter_problems(spec: JobSpec) -> Iterator[Problem]:
    """Settings that the adapter of the spec does not have, or that contradict the method."""
    kind = spec.adapter.type if spec.adapter is not None else DEFAULT_ADAPTER
    if kind not in ADAPTERS:
        return  # refused already
    settings, hyper = {"path", *ADAPTERS[kind].settings, *ADAPTERS[kind].options}, spec.hyperparameters
    if spec.adapter is not None and spec.adapter.path is not None:
        yield from _of_given_adapter(spec.adapter)
    for name in type(spec.adapter).model_fields if spec.adapter is not None else ():
        if name != "type" and name not in settings and getattr(spec.adapter, name) is not None:
            others = [other for other, entry in ADAPTERS.items() if name in (*entry.settings, *entry.options)]
            fix = f"take it out, or use {' or '.join(others)}"
            yield Problem(code="no_effect", field=f"adapter.{name}", message=f"{kind} training has no {name}", fix=fix)
    given = spec.adapter
    if given is not None and METHODS[spec.method.name].reference:
        changing = {"bias": given.bias not in (None, "none"), "init": given.init in MOVES_BASE}
        for field in (name for name, changes in changing.items() if changes):
            message = f"{spec.method.name} compares with the base model, whose weights this changes"
            yield Problem(code="contradiction", field=f"adapter.{field}", message=message, fix="remove it")
        if given.path is not None and spec.method.beta != 0:
            message = f"{spec.method.name} compares with the model before this training, not with the bare base model"
            fix = "merge the adapter into the base model (export --merged) and train a new one on the result"
            yield Problem(code="contradiction", field="adapter.path", message=message, fix=fix)
    if hyper.packing and not ADAPTERS[kind].can_pack:
        message = f"rows with a {kind} adapter are not packed: a step is `batch_size` rows"
        yield Problem(code="no_effect", field="hyperparameters.packing", message=message, fix="remove it")
    if hyper.gradient_checkpointing and not ADAPTERS[kind].can_checkpoint:
        field, message = "hyperparameters.gradient_checkpointing", f"it is not possible with a {kind} adapter"
        yield Problem(code="contradiction", field=field, message=message, fix="take it out, or use lora")


def _of_given_adapter(adapter: Adapter) -> Iterator[Problem]:
    kind = ADAPTERS[adapter.type]
    if not kind.peft_type or not kind.in_layers:
        message = f"training with adapter {adapter.type} cannot continue from a saved adapter"
        yield Problem(code="contradiction", field="adapter.path", message=message, fix="remove it")
    for name in type(adapter).model_fields:
        if name not in ("type", "path") and getattr(adapter, name) is not None:
            message = "the adapter in adapter.path decides it"
            yield Problem(code="no_effect", field=f"adapter.{name}", message=message, fix="remove it")
