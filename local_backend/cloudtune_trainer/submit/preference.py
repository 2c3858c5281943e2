"""Settings of preference methods for cloudtune's own trainer: terms, defaults, and validation. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError

from cloudtune.errors import Problem
from cloudtune.methods import METHODS, methods_of
from cloudtune.spec_types import Fraction, NaturalFloat, Part
from cloudtune_trainer.adapters import is_whole_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloudtune.spec import JobSpec
    from cloudtune_trainer.submit.plan import Choices

PAIRED = methods_of("preference")
"""Methods that learn from pairs of answers."""
PREFERRING = (*PAIRED, *methods_of("unpaired_preference"))
"""The same, and those that learn from rated answers."""
KEY = "preference"
_BETA = {"dpo": 0.1, "ipo": 0.1, "orpo": 0.1, "simpo": 2.0, "kto": 0.1}
_MARGIN = {"simpo": 1.0}
_NEUTRAL = {
    "loss": "sigmoid", "label_smoothing": 0.0, "margin": 0.0, "desirable_weight": 1.0, "undesirable_weight": 1.0,
}  # fmt: skip


class PreferenceOverrides(Part):
    """``overrides.<back end>.preference``: settings without a portable field, since no vendor's service has them."""

    loss: Literal["sigmoid", "hinge"] | None = None
    """The loss of dpo; default sigmoid. The other methods have one loss each."""
    label_smoothing: Annotated[Fraction, Field(lt=0.5)] | None = None
    """The assumed share of pairs with swapped labels, for dpo with sigmoid and for simpo; default 0."""
    margin: NaturalFloat | None = None
    """SimPO's gamma: the target margin of the chosen answer's reward; default 1."""
    desirable_weight: NaturalFloat | None = None
    """KTO's factor of the losses of answers rated good; default 1."""
    undesirable_weight: NaturalFloat | None = None
    """KTO's factor of the losses of answers rated bad; default 1. With one bad answer for every four good ones, 4."""


def terms(spec: JobSpec, choices: Choices, adapter: str) -> dict[str, Any]:
    """The part ``preference`` of the trainer's spec; nothing for other methods."""
    name = spec.method.name
    if name not in PREFERRING:
        return {}
    given = PreferenceOverrides.model_validate(_given(spec, choices.backend))
    why = f"default of {choices.backend} for {name}"
    found: dict[str, Any] = {**_NEUTRAL, "beta": choices.pick("method.beta", spec.method.beta, _BETA[name], why)}
    usual = _NEUTRAL | {"margin": _MARGIN.get(name, 0.0)}
    for field in _applied(name, given.loss):
        value = getattr(given, field)
        found[field] = usual[field] if value is None else value
        choices.note(f"overrides.{choices.backend}.{KEY}.{field}", found[field], why if value is None else "override")
    if METHODS[name].reference:
        how = (
            "computed before the first step: one pass over the rows at every start, 8 bytes per row"
            if is_whole_model(adapter)
            else "the same weights with the adapter disabled: one more forward pass per step, no second copy"
        )
        choices.note("reference", "the base model", f"derived: {how}")
    return {KEY: found}


def _applied(method: str, loss: str | None) -> tuple[str, ...]:
    """The overrides that the method uses."""
    if method == "dpo":
        return ("loss",) if loss == "hinge" else ("loss", "label_smoothing")
    if method == "kto":
        return ("desirable_weight", "undesirable_weight")
    return ("label_smoothing", "margin") if method == "simpo" else ()


def _given(spec: JobSpec, backend: str) -> Mapping[str, Any]:
    return spec.overrides.get(backend, {}).get(KEY) or {}


def misused(spec: JobSpec, backend: str) -> Iterator[Problem]:
    """Problems of the settings of preference methods: without effect, or not possible."""
    name = spec.method.name
    if name in PREFERRING:
        yield from _of_rows(spec)
    elif spec.method.beta is not None and not METHODS[name].beta:
        message = f"{name} uses no reference model"
        yield Problem(code="no_effect", field="method.beta", message=message, fix=f"remove it, or use {PAIRED[0]}")
    try:
        given = PreferenceOverrides.model_validate(_given(spec, backend))
    except ValidationError:  # cloudtune reports this
        return
    useful = _applied(name, given.loss) if name in PREFERRING else ()
    for field in PreferenceOverrides.model_fields:
        if getattr(given, field) is not None and field not in useful:
            message = f"{name}{f' with the loss {given.loss}' if given.loss else ''} does not use {field}"
            place = f"overrides.{backend}.{KEY}.{field}"
            yield Problem(code="no_effect", field=place, message=message, fix="remove it")


def _of_rows(spec: JobSpec) -> Iterator[Problem]:
    if spec.method.loss_on == "all":
        message = "preference methods train on the answers only"
        yield Problem(code="no_effect", field="method.loss_on", message=message, fix="remove it, or use assistant")
    if spec.hyperparameters.packing:
        message = "preference rows cannot be packed: a step is `batch_size` rows"
        yield Problem(code="no_effect", field="hyperparameters.packing", message=message, fix="remove it")
