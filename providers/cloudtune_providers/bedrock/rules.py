"""Checks what Bedrock would reject, before anything is sent: models, dates, values, rows. Pure.

Limits come from the catalog, whose entries cite their sources.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cloudtune.errors import Problem
from cloudtune.methods import METHODS
from cloudtune_providers.aws.names import tag_problems
from cloudtune_providers.bedrock import open_weight
from cloudtune_providers.bedrock.parameters import rft_parameters
from cloudtune_providers.bedrock.responses import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

    from cloudtune.catalog import Catalog, Model
    from cloudtune.plan import DataReport
    from cloudtune.spec import JobSpec
    from cloudtune_providers.bedrock.options import BedrockOptions

TYPES = {"sft": "FINE_TUNING", "distill": "DISTILLATION", "rft": "REINFORCEMENT_FINE_TUNING"}
_CONTEXT = re.compile(r":\d+k$")
_RFT_ONLY = ("grader", "max_prompt_length", "samples_per_prompt", "inference_max_tokens", "reasoning_effort",
             "eval_interval")  # fmt: skip
_DISTILL_ONLY = ("teacher", "teacher_max_tokens")


def family_of(model: str) -> str:
    """The id within a foundation model's ARN; other names unchanged."""
    return model.partition("foundation-model/")[2] or model


def find_model(catalog: Catalog, name: str) -> Model | None:
    """The catalog's entry for an id with or without its context length."""
    wanted = family_of(name)
    found = catalog.model(wanted)
    if found is None and not _CONTEXT.search(wanted):
        found = next((model for model in catalog.models if _CONTEXT.sub("", model.id) == wanted), None)
    return found


NEAR = timedelta(days=90)
"""How long before an end date a plan warns."""


class Rules:
    """The catalog on one day."""

    def __init__(self, catalog: Catalog, options: BedrockOptions, today: date) -> None:
        self._catalog = catalog
        self._options = options
        self._today = today

    def check(self, spec: JobSpec) -> Iterator[Problem]:
        """Yield all problems of the spec alone."""
        if self.is_open_weight(spec.model_for(NAME)):
            yield from self._notices(spec)
            yield from self._model(spec)
            yield from open_weight.problems(spec, self._options)
            yield from _of_method(spec)
            return
        yield from self._settings()
        yield from self._notices(spec)
        yield from self._model(spec)
        yield from self._values(spec)
        yield from _of_method(spec)
        if spec.overrides.get(NAME, {}).get("learning_rate_multiplier") is not None:
            message = "only the API that tunes open-weight models supports a multiplier"
            yield Problem(code="not_of_model", field=f"overrides.{NAME}.learning_rate_multiplier", message=message,
                          fix="use hyperparameters.learning_rate")  # fmt: skip
        yield from tag_problems(spec.tags, "tags", others=len(self._options.tags))

    def _settings(self) -> Iterator[Problem]:
        for name, example in (("bucket", "my-bucket"), ("role_arn", "arn:aws:iam::123456789012:role/cloudtune")):
            if getattr(self._options, name) is None:
                yield Problem(
                    code="setting", field=f"backends.{NAME}.{name}", message="required by Bedrock, but not set",
                    fix=f"set it, e.g. {example}; `cloudtune init bedrock` writes the role's documents",
                )  # fmt: skip
        if bool(self._options.subnets) != bool(self._options.security_groups):
            message = "a VPC requires both subnets and security groups"
            yield Problem(
                code="setting", field=f"backends.{NAME}.subnets", message=message, fix="set the other one too"
            )

    def _notices(self, spec: JobSpec) -> Iterator[Problem]:
        for notice in self._catalog.notices:
            if spec.method.name not in TYPES or spec.method.name not in notice.methods:
                continue
            message = f"{notice.text} (from {notice.on} on; {self._catalog.cite(notice.source)})"
            if self._today >= notice.on:
                yield Problem(code="closed", field="method.name", message=message, fix="choose another method")
            elif self._today >= notice.on - NEAR:
                yield Problem(code="closed_soon", severity="warning", field="method.name", message=message,
                              fix="choose another method")  # fmt: skip

    # -- models ----------------------------------------------------------------------------------------------------

    def _model(self, spec: JobSpec) -> Iterator[Problem]:
        name, method = spec.model_for(NAME), spec.method.name
        if name is None or ":custom-model/" in name:
            return
        model = self.model(name)
        known = ", ".join(self._catalog.tunable(method, self._today)) or "none"
        fix = f"models that support {method}: {known}"
        if model is None:
            message = f"{name!r} is not in the catalog of {self._catalog.as_of}; it is sent unchanged"
            yield Problem(code="unknown_model", severity="warning", field="model", message=message, fix=fix)
            return
        yield from self._ended(model, name, method, fix)

    def _ended(self, model: Model, name: str, method: str, fix: str) -> Iterator[Problem]:
        cited = self._catalog.cite(model.source)
        over = [on for on in (model.no_new_jobs_from, model.ends) if on is not None and self._today >= on]
        if over:
            message = f"{name} accepts no new jobs since {min(over)} ({cited})"
            yield Problem(code="model_ends", field="model", message=message, fix=fix)
            return
        if soon := [on for on in (model.no_new_jobs_from, model.ends) if on is not None and self._today >= on - NEAR]:
            message = f"{name} accepts no new jobs from {min(soon)} on ({cited})"
            yield Problem(code="model_ends_soon", severity="warning", field="model", message=message, fix=fix)
        if family_of(name) != model.id:
            message = f"{name} is the inference id; fine-tuning requires the id with the context length ({cited})"
            yield Problem(code="context_suffix", field="model", message=message, fix=f"use {model.id}")
        if method not in model.methods:
            offered = ", ".join(model.methods) or "nothing"
            message = f"{model.id} does not support {method}, only: {offered} ({cited})"
            yield Problem(code="method_not_offered", field="model", message=message, fix=fix)

    def is_open_weight(self, name: str | None) -> bool:
        """Whether that model is tuned only with the OpenAI-compatible API."""
        model = self.model(name or "")
        return model is not None and model.api == open_weight.API

    def model(self, name: str) -> Model | None:
        """The catalog's entry for an id with or without its context length."""
        return find_model(self._catalog, name)

    def region(self, spec: JobSpec, region: str) -> Iterator[Problem]:
        """Whether the model is tuned in that region."""
        name = spec.model_for(NAME) or ""
        model = self.model(name)
        if model is not None and model.regions and region not in model.regions:
            message = f"{name} can be tuned in {', '.join(model.regions)}, not in {region}"
            cited = f"{message} ({self._catalog.cite(model.source)})"
            yield Problem(code="region", field=f"backends.{NAME}.region", message=cited,
                          fix=f"set region to {model.regions[0]}, with a bucket there")  # fmt: skip

    # -- values ----------------------------------------------------------------------------------------------------

    def _values(self, spec: JobSpec) -> Iterator[Problem]:
        given = spec.overrides.get(NAME, {})
        written = dict(given.get("hyperparameters") or {})
        fields = {"epochCount": "hyperparameters.epochs", "learningRate": "hyperparameters.learning_rate",
                  "learningRateWarmupSteps": "hyperparameters.warmup_steps"}  # fmt: skip
        for name, value in rft_parameters(spec).items():
            field = f"overrides.{NAME}.hyperparameters.{name}" if name in written else fields.get(name)
            yield from self._value(spec, field or f"overrides.{NAME}.{_snake(name)}", name, value)

    def _value(self, spec: JobSpec, field: str, name: str, value: Any) -> Iterator[Problem]:
        model, method = family_of(spec.model_for(NAME) or ""), spec.method.name
        entry = self._catalog.range(name, model, method)
        if entry is None:
            names = [one.name for one in self._catalog.ranges if self._catalog.range(one.name, model, method) is one]
            if self.model(model) is not None and names and name not in _UNRANGED.get(method, ()):
                message = f"{model} does not support {name} with {method}"
                fix = f"supported: {', '.join(dict.fromkeys(names))}"
                yield Problem(code="not_of_model", field=field, message=message, fix=fix)
            elif self.model(model) is not None and not names:
                message = f"{name} is not documented for {method} of {model}"
                yield Problem(code="not_of_method", field=field, message=message, fix="remove it")
            return
        number = _number(value) if entry.kind != "choice" else value
        if fault := entry.fault(number):
            message = f"{name} {fault}, not {value} ({self._catalog.cite(entry.source)})"
            yield Problem(code="out_of_range", field=field, message=message, fix=f"{name} is {entry.words()}")

    # -- rows ------------------------------------------------------------------------------------------------------

    def counts(self, spec: JobSpec, data: DataReport) -> Iterator[Problem]:
        """Problems of rows: another kind, too few, too many."""
        model, method = family_of(spec.model_for(NAME) or ""), spec.method.name
        train = data.splits["train"]
        if train.kind != (wanted := METHODS[method].kinds[0]):
            message = f"{method} requires {wanted} rows; these are {train.kind}"
            yield Problem(code="kind", field="data.train", message=message, fix="use another kind of rows")
        least = self._catalog.limit("rows.min", model, method)
        most = self._catalog.limit("rows.max", model, method)
        together = least is not None and least.together
        rows = sum(data.splits[split].rows for split in ("train", "validation")
                   if split in data.splits and (together or split == "train"))  # fmt: skip
        for limit, wrong, word in ((least, least and rows < least.value, "at least"),
                                   (most, most and rows > most.value, "at most")):  # fmt: skip
            if limit is not None and wrong:
                message = f"{rows:,} rows, but {model or method} requires {word} {limit.value:,.0f}"
                cited = f"{message} ({self._catalog.cite(limit.source)})"
                fix = "add rows" if word == "at least" else "use fewer rows"
                yield Problem(code="rows", field="data.train", message=cited, fix=fix)

    def contents(self, spec: JobSpec, data: DataReport) -> Iterator[Problem]:
        """The plan's warnings about images, videos and rows without an answer. Row rules refuse the rest."""
        features = {str(problem.field) for problem in data.problems if problem.code == "feature"}
        media = features & {"images", "videos"}
        if media:
            bucket, prefix = self._options.bucket, self._options.prefix
            message = f"images and videos must be in the bucket of the rows, {bucket}, where the role can read them"
            fix = f"put them under s3://{bucket}/{prefix}/media/, which `cloudtune init bedrock` lets the role read"
            yield Problem(code="media_place", severity="warning", field="data", message=message, fix=fix)
        if spec.method.name == "distill" and "unanswered" in features:
            teacher = spec.overrides.get(NAME, {}).get("teacher")
            message = f"{teacher} answers the rows without an answer; existing answers are its examples"
            yield Problem(code="teacher_answers", severity="info", field="data.train", message=message)


_UNRANGED = {"rft": ("maxPromptLength", "inferenceMaxTokens")}


def _of_method(spec: JobSpec) -> Iterator[Problem]:
    given = {key for key, value in spec.overrides.get(NAME, {}).items() if value is not None}
    method = spec.method.name
    wanted = {"rft": ("grader", "set the ARN of a Lambda function that scores the answers"),
              "distill": ("teacher", "set the teacher model")}  # fmt: skip
    if method in wanted and wanted[method][0] not in given:
        name, fix = wanted[method]
        yield Problem(code=f"no_{name}", field=f"overrides.{NAME}.{name}", message=f"required by {method}", fix=fix)
    for only, names in (("rft", _RFT_ONLY), ("distill", _DISTILL_ONLY)):
        for name in (name for name in names if method != only and name in given):
            message = f"{method} does not use {name}"
            yield Problem(code="not_of_method", field=f"overrides.{NAME}.{name}", message=message, fix="remove it")


def _number(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def _snake(name: str) -> str:
    known = {"trainingSamplePerPrompt": "samples_per_prompt"}
    return known.get(name) or re.sub(r"(?<=[a-z])([A-Z])", lambda found: f"_{found.group(1).lower()}", name)
