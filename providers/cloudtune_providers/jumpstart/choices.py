"""Chooses a job's values from its spec, the settings and the model's document, and validates them. Pure."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

from cloudtune.errors import Problem
from cloudtune_providers.aws.instances import accelerators
from cloudtune_providers.jumpstart import layouts, requests
from cloudtune_providers.jumpstart.document import Document

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloudtune.plan import Resolved
    from cloudtune.spec import JobSpec
    from cloudtune_providers.jumpstart.document import Hyper
    from cloudtune_providers.jumpstart.options import JumpStartOptions

NAME = layouts.NAME
DEFAULT_SECONDS = 86400
"""The service's own default. AWS's SDK would stop the job after one hour (sagemaker-train 1.27.0, ``defaults.py``)."""
VOLUME_GB = 30


class Choices(NamedTuple):
    """See the module."""

    model: str
    version: str
    document: Document
    instance_type: str
    instances: int
    volume_gb: int
    layout: layouts.Layout
    known: dict[str, Hyper]
    """Hyperparameters of the document."""
    hyperparameters: dict[str, str]
    """The hyperparameters to send: the document's defaults, overridden by the spec."""
    devices: int | None
    """Number of devices over all instances; None if unknown."""
    seconds: int
    limited_by: str
    """The field of the spec that sets ``seconds``; empty for the service's default."""
    spot: bool
    spot_wait: int

    @property
    def image(self) -> str:
        """Environment variables of the training container."""
        return self.document.image(self.instance_type)

    def stopping(self) -> dict[str, int]:
        """StoppingCondition."""
        found = {"MaxRuntimeInSeconds": self.seconds}
        return found | ({"MaxWaitTimeInSeconds": self.seconds + self.spot_wait} if self.spot else {})

    def derived(self) -> dict[str, tuple[Any, str]]:
        """Derived values, with the reason."""
        why = self.limited_by or "the service's default of one day; AWS's SDK defaults to one hour"
        return {
            "model_version": (self.version, "the hub's document"),
            "layout": (self.layout, "the method and the document"),
            "InstanceType": (self.instance_type, "overrides, settings, or else the document"),
            "InstanceCount": (self.instances, "overrides, or else one"),
            "MaxRuntimeInSeconds": (self.seconds, why),
            "TrainingImage": (self.image, "the document"),
        }


def choose(
    spec: JobSpec, resolved: Resolved, options: JumpStartOptions, run_seconds: float | None = None
) -> Choices:  # fmt: skip
    """The values derived from spec, settings and document, without validation.

    ``run_seconds`` is the run time at which the job reaches its maximum cost.
    """
    given = spec.overrides.get(NAME, {})
    facts = resolved.facts
    document = Document(facts["document"], given.get("config"))
    kind = given.get("instance_type") or options.instance_type or document["DefaultTrainingInstanceType"] or ""
    instances = int(given.get("instance_count") or 1)
    known = document.hyperparameters(kind)
    each = accelerators(kind)
    limit = spec.limits.max_time
    seconds = DEFAULT_SECONDS if limit is None else limit
    is_capped = run_seconds is not None and run_seconds < seconds
    bare = Choices(
        model=str(facts["model"]), version=str(facts["version"]), document=document, instance_type=kind,
        instances=instances,
        volume_gb=int(given.get("volume_gb") or options.volume_gb or document["TrainingVolumeSize"] or VOLUME_GB),
        layout=layouts.layout_of(spec, known), known=known, hyperparameters={},
        devices=None if each is None else each * instances,
        seconds=max(1, int(min(seconds, run_seconds or seconds))),
        limited_by="limits.max_cost_usd" if is_capped else "" if limit is None else "limits.max_time",
        spot=options.spot if given.get("spot") is None else bool(given["spot"]), spot_wait=int(options.spot_wait),
    )  # fmt: skip
    sent = document.defaults(kind) | layouts.switches(bare.layout, known) | requests.asked(spec, bare)
    return bare._replace(hyperparameters=sent)


def problems(spec: JobSpec, choices: Choices, options: JumpStartOptions) -> Iterator[Problem]:
    """All problems according to the document."""
    document = choices.document
    if not document.trains:
        message = f"{choices.model} {choices.version} is not trainable in JumpStart, according to its document"
        fix = "choose another model, or check whether the sagemaker back end supports it serverless"
        yield Problem(code="not_trainable", field="model", message=message, fix=fix)
        return
    yield from _terms(spec, choices, options)
    yield from _instance(choices)
    yield from _config(spec, document)
    yield from _values(spec, choices)
    yield from _layout(spec, choices)


def _terms(spec: JobSpec, choices: Choices, options: JumpStartOptions) -> Iterator[Problem]:
    said = spec.overrides.get(NAME, {}).get("accept_eula")
    if choices.document.is_gated and not (said or (said is None and choices.model in options.accept_eula)):
        message = f"{choices.model} is gated: its terms must be accepted first ({choices.document.terms})"
        fix = f"read them, and set overrides.{NAME}.accept_eula: true"
        yield Problem(code="eula", field=f"overrides.{NAME}.accept_eula", message=message, fix=fix)


def _instance(choices: Choices) -> Iterator[Problem]:
    offered = choices.document["SupportedTrainingInstanceTypes"] or []
    field = f"overrides.{NAME}.instance_type"
    if not choices.instance_type:
        yield Problem(code="no_instance", field=field, message="the document has no instance type", fix="set one")
    elif offered and choices.instance_type not in offered:
        message = f"{choices.model} does not support training on {choices.instance_type}"
        yield Problem(code="instance", field=field, message=message, fix=f"choose one of {', '.join(offered)}")
    elif not choices.image:
        message = f"the document has no training image for {choices.instance_type}"
        yield Problem(code="no_image", field=field, message=message, fix=f"choose one of {', '.join(offered)}")


def _config(spec: JobSpec, document: Document) -> Iterator[Problem]:
    given = spec.overrides.get(NAME, {}).get("config")
    if given and given not in document.configs:
        offered = ", ".join(document.configs) or "none"
        message = f"the document has no training configuration {given!r}"
        yield Problem(code="config", field=f"overrides.{NAME}.config", message=message, fix=f"available: {offered}")


def _values(spec: JobSpec, choices: Choices) -> Iterator[Problem]:
    """Names and values from the document: they are read, not hard-coded."""
    fields = {name: field for field, name in requests.NAMES.items()}
    for name, value in requests.asked(spec, choices).items():
        field = fields.get(name, "")
        if not field or name in (spec.overrides.get(NAME, {}).get("hyperparameters") or {}):
            field = f"overrides.{NAME}.hyperparameters.{name}"
        entry = choices.known.get(name)
        if entry is None:
            near = get_close_matches(name, choices.known, n=1)
            fix = (f"did you mean {near[0]!r}? " if near else "") + f"available: {', '.join(sorted(choices.known))}"
            message = f"the document of {choices.model} {choices.version} has no hyperparameter {name}"
            yield Problem(code="unknown_hyperparameter", field=field, message=message, fix=fix)
        elif fault := entry.fault(value):
            message = f"{name} {fault} in the document of {choices.model} {choices.version}, not {value}"
            yield Problem(code="range", field=field, message=message, fix="choose another value")
    yield from _batch(spec, choices)


def _batch(spec: JobSpec, choices: Choices) -> Iterator[Problem]:
    batch, field = spec.hyperparameters.batch_size, "hyperparameters.batch_size"
    if batch is None:
        return
    if choices.devices is None:
        message = f"JumpStart sets the batch size per GPU, and the number of GPUs of {choices.instance_type} is unknown"
        fix = f"set overrides.{NAME}.hyperparameters.per_device_train_batch_size"
        yield Problem(code="batch", field=field, message=message, fix=fix)
    elif batch % choices.devices:
        message = f"a batch of {batch} rows cannot be divided among {choices.devices} GPUs"
        yield Problem(code="batch", field=field, message=message, fix=f"choose a multiple of {choices.devices}")


def _layout(spec: JobSpec, choices: Choices) -> Iterator[Problem]:
    switch = {"chat": "chat_dataset", "instruction": "instruction_tuned", "text": ""}[choices.layout]
    if switch and switch not in choices.known:
        message = f"the document of {choices.model} {choices.version} does not support the {choices.layout} layout"
        yield Problem(code="layout", field=f"overrides.{NAME}.layout", message=message, fix="choose the other layout")
    template: Mapping[str, str] = spec.overrides.get(NAME, {}).get("template") or {}
    if template and (choices.layout != "instruction" or set(template) != {"prompt", "completion"}):
        message = "a template requires a prompt and a completion, and the instruction layout"
        yield Problem(
            code="template", field=f"overrides.{NAME}.template", message=message, fix="set layout: instruction"
        )
