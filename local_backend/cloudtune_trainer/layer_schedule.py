"""Layer schedules: which layers of a model are trained, from which step on, and at which learning rate.

Layers have levels, from the input to the output: 0 for the embeddings, 1 to N for the layers, and N + 1 for everything
after the last layer (norm, head). In a model with an encoder and a decoder, the encoder's layers are below the
decoder's. A schedule is a function of the step, so that a resumed run continues in the right stage.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from cloudtune_trainer.heads import ends_of
from cloudtune_trainer.layer_names import is_embedding, is_match, plain_name
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.weights import head_weights, listed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch.nn import Parameter

    from cloudtune_trainer.batches import Schedule
    from cloudtune_trainer.reporting import Report
    from cloudtune_trainer.spec_trained import Layers, Stage

_AFTER_LAYERS = re.compile(r"final|project_out")


class Levels(NamedTuple):
    """The level of each parameter."""

    layers: int
    """The number of layers, N."""
    of: Mapping[str, int]
    """Parameter's name -> its level."""


class Stack(NamedTuple):
    """Numbered layers of the same kind."""

    parent: str
    """The module that holds the layers, with a dot at the end."""
    names: tuple[str, ...]
    """The module lists: several if each holds one part of every layer."""
    below: int
    """The number of layers below this stack."""
    size: int

    def index_of(self, name: str) -> int | None:
        """The number of the layer that has this module or parameter; None if it is in no layer."""
        for prefix in self.names:
            if name.startswith(f"{prefix}."):
                number = name[len(prefix) + 1 :].partition(".")[0]
                return int(number) if number.isdecimal() else None
        return None


def levels_of(model: Any) -> Levels:
    """The levels of all parameters. Layers are the elements of the outermost module lists."""
    stacks = stacks_of(model)
    total = sum(stack.size for stack in stacks)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = {plain_name(name) for name in head_weights(base)} if hasattr(base, "base_model_prefix") else set()
    names = [name for name, _ in model.named_parameters()]
    embeddings = getattr(ends_of(base)[0], "weight", None) if hasattr(base, "base_model_prefix") else None
    tied = {name for name, parameter in model.named_parameters() if parameter is embeddings}
    last = {stack: max((i for i, name in enumerate(names) if stack.index_of(name) is not None), default=-1)
            for stack in stacks}  # fmt: skip
    found = {}
    for place, name in enumerate(names):
        inside = [stack.below + index + 1 for stack in stacks if (index := stack.index_of(name)) is not None]
        if inside:
            found[name] = inside[0]
        elif name in tied or is_embedding(name):
            found[name] = 0
        elif plain_name(name) in head and not any(name.startswith(stack.parent) for stack in stacks):
            found[name] = total + 1
        else:
            around = [stack for stack in stacks if name.startswith(stack.parent)]
            after = [stack for stack in around or stacks if place > last[stack] or _AFTER_LAYERS.search(name)]
            top = max((stack.below + stack.size for stack in after), default=-1)
            found[name] = total + 1 if top == total else max(top, 0)
    return Levels(total, found)


def stacks_of(model: Any) -> list[Stack]:
    """The stacks of layers, from the bottom to the top."""
    outermost: list[tuple[str, int]] = []
    for name, module in model.named_modules():
        is_inside = any(name.startswith(f"{outer}.") for outer, _ in outermost)
        if isinstance(module, torch.nn.ModuleList) and not is_inside and any(True for _ in module.parameters()):
            outermost.append((name, len(module)))
    by_parent: dict[str, list[tuple[str, int]]] = {}
    for name, size in outermost:
        by_parent.setdefault(name[: name.rfind(".") + 1], []).append((name, size))
    stacks: list[Stack] = []
    for parent, lists in by_parent.items():
        size = max(length for _, length in lists)
        below = sum(stack.size for stack in stacks)
        stacks.append(Stack(parent, tuple(name for name, length in lists if length == size), below, size))
    return stacks


class LayerSchedule:
    """The trained parameters of a model at each step, with a factor of the learning rate for each."""

    def __init__(self, model: Any, layers: Layers, learning_rate: float, steps: Schedule, *, head: Any = None) -> None:
        """Freeze the parameters that are never trained. ``head`` is a module above the model that is trained too.

        Raises:
            TrainingProblem: ``bad_spec``, for a pattern or a number of layers that does not fit the model.

        """
        self._parameters: dict[str, Parameter] = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._levels = levels_of(model) if layers.needs_levels else Levels(0, dict.fromkeys(self._parameters, 0))
        for name, parameter in head.named_parameters() if head is not None else ():
            self._parameters[f"head.{name}"] = parameter
            self._levels = Levels(self._levels.layers, {**self._levels.of, f"head.{name}": self._levels.layers + 1})
        self._frozen = self._frozen_by(layers)
        for name in self._frozen:
            self._parameters[name].requires_grad_(False)
        self.trained = {name: p for name, p in self._parameters.items() if name not in self._frozen}
        """All parameters that are trained in the last stage, by name."""
        if not self.trained:
            raise _refused("freeze", "no weight is left to train", "Freeze less.")
        self._factors = self._rates(layers, learning_rate)
        self._stages = self._stages_of(layers, steps)
        self._stage = -1
        self._total = sum(p.numel() for p in model.parameters())
        self._in_stage = list(self.trained.values())

    @property
    def last_start(self) -> int:
        """The first step of the last stage."""
        return self._stages[-1][0]

    def factor(self, name: str) -> float:
        """The learning rate of that parameter, as a factor of the run's learning rate."""
        return self._factors[name]

    def stage_at(self, step: int) -> int:
        """The stage of that step, counted from 0."""
        return sum(start <= step for start, _ in self._stages) - 1

    def trained_at(self, step: int, report: Report | None = None) -> list[Parameter]:
        """The parameters to train in that step; all others are frozen. Reports the start of a stage."""
        stage = self.stage_at(step)
        if stage != self._stage:
            self._stage = stage
            lowest = self._stages[stage][1]
            for name, parameter in self.trained.items():
                parameter.requires_grad_(self._levels.of[name] >= lowest)
            self._in_stage = [p for p in self.trained.values() if p.requires_grad]
            if report is not None and (len(self._stages) > 1 or self._frozen):
                self._describe(report, step)
        return self._in_stage

    def discard_other_gradients(self) -> None:
        """Remove the gradients of frozen parameters: peft makes an adapter trainable when it enables it again."""
        kept = {id(parameter) for parameter in self._in_stage}
        for parameter in self._parameters.values():
            if id(parameter) not in kept:
                parameter.grad = None

    def _describe(self, report: Report, step: int) -> None:
        count, lowest = len(self._stages), self._stages[self._stage][1]
        size, layers = sum(p.numel() for p in self._in_stage), self._levels.layers
        where = "all layers"
        if lowest > layers:
            where = "everything after the last layer"
        elif lowest > 0:
            span = f"layer {layers}" if lowest == layers else f"layers {lowest} to {layers}"
            where = f"{span} of {layers}, and everything after the last layer"
        named = f"stage {self._stage + 1} of {count}: " if count > 1 else ""
        where = f": {where}" if count > 1 else ""
        report.event(
            "message", f"{named}training {size} of {self._total} weights ({size / self._total:.1%}){where}",
            step=step, stage=self._stage, stages=count, trained=size, total=self._total,
        )  # fmt: skip

    def _frozen_by(self, layers: Layers) -> set[str]:
        found = set()
        for number, pattern in enumerate(layers.freeze):
            names = self._matching(pattern, self._parameters)
            if not names:
                raise self._no_match(f"freeze[{number}]", pattern)
            found |= names
        if layers.freeze_depth is None:
            return found
        self._check_depth("freeze_depth", layers.freeze_depth)
        return found | {name for name in self._parameters if self._levels.of[name] <= layers.freeze_depth}

    def _rates(self, layers: Layers, learning_rate: float) -> dict[str, float]:
        top = self._levels.layers + 1
        if layers.decay != 1.0:
            self._check_depth("decay", 1)
        rates = {name: layers.decay ** (top - self._levels.of[name]) if layers.needs_levels else 1.0
                 for name in self.trained}  # fmt: skip
        for pattern, rate in reversed(layers.learning_rates.items()):  # so that the first match applies
            names = self._matching(pattern, self.trained)
            if not names:
                raise self._no_match("learning_rates", pattern)
            rates |= dict.fromkeys(names, rate / learning_rate)
        return rates

    def _stages_of(self, layers: Layers, steps: Schedule) -> list[tuple[int, int]]:
        """The first step and the lowest trained level of each stage."""
        if not layers.unfreeze:
            return [(0, 0)]
        self._check_depth("unfreeze", 1)
        top = self._levels.layers + 1
        stages, start = [], 0
        for stage in self._expanded(layers.unfreeze):
            assert stage.layers is not None
            self._check_depth("unfreeze", stage.layers)
            stages.append((start, top - stage.layers))
            length = stage.share * steps.total_steps if stage.share else (stage.epochs or 0.0) * steps.steps_per_epoch
            start += max(1, math.ceil(length - 1e-9))
        if not any(self._levels.of[name] >= stages[0][1] for name in self.trained):
            what = f"stage 1 trains {layers.unfreeze[0].layers or 0} layers, where no weight is trained"
            raise _refused("unfreeze", what, "Start with more layers.")
        return [*stages, (start, 0)]

    def _expanded(self, stages: Sequence[Stage]) -> list[Stage]:
        if stages[0].layers is not None:
            return list(stages)
        top = self._levels.layers + 1
        first = min(top - max(self._levels.of[name] for name in self.trained), top - 1)
        return [type(stages[0])(layers=n, epochs=stages[0].epochs, share=stages[0].share) for n in range(first, top)]

    @staticmethod
    def _matching(pattern: str, names: Iterable[str]) -> set[str]:
        return {name for name in names if is_match(plain_name(name), pattern)}

    def _check_depth(self, field: str, depth: int) -> None:
        levels = self._levels
        if not levels.layers or not any(0 < levels.of[name] <= levels.layers for name in self._parameters):
            raise _refused(field, "no trained weight is in a numbered layer", "Remove it.")
        if depth > levels.layers:
            raise _refused(field, f"the model has {levels.layers} layers, not {depth}", "Use fewer layers.")

    def _no_match(self, field: str, pattern: str) -> TrainingProblem:
        grouped = {re.sub(r"\.\d+(?=\.)", ".*", plain_name(name)) for name in self._parameters}
        return _refused(field, f"no trained weight matches {pattern!r}", f"The trained weights are {listed(grouped)}.")


def _refused(field: str, what: str, hint: str) -> TrainingProblem:
    return TrainingProblem("bad_spec", f"layers.{field}: {what}", hint)
