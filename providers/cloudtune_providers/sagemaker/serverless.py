"""Converts a spec to a plan for SageMaker's serverless customization: AWS's own trainers, billed by the token. Pure.

One CreateTrainingJob without instance and image; the result is a version in a model package group. Almost all
parameters of a recipe are required, so the request has the recipe's defaults, overridden by the spec's values
(docs.aws.amazon.com/sagemaker/latest/dg/customizing-models-sft.html, seen 2026-11-21).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune.backend import VERBS, Capabilities
from cloudtune.catalog import load
from cloudtune.cost import CostEstimate
from cloudtune.data.checks.targets import Target
from cloudtune.errors import Problem, SpecError
from cloudtune.methods import METHODS
from cloudtune.plan import Plan, Setting, Step, output_ref
from cloudtune.spec import spec_features
from cloudtune_providers.aws.names import short, tag_list, tag_problems, tags_of
from cloudtune_providers.aws.nova_rules import is_nova_2
from cloudtune_providers.sagemaker.capabilities import NAME, places
from cloudtune_providers.sagemaker.mlflow import EXPERIMENT
from cloudtune_providers.sagemaker.recipes import fault_of
from cloudtune_trainer.submit.preference import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloudtune.plan import PlanRequest
    from cloudtune.spec import JobSpec
    from cloudtune_providers.sagemaker.options import SageMakerOptions, SageMakerOverrides

CREATE, GROUP = "create", "group"
TECHNIQUES = {"sft": "SFT", "dpo": "DPO", "rft": "RLVR"}
_FORMATS = {"sft": "sagemaker-messages", "dpo": "sagemaker-preference", "rft": "sagemaker-rlvr"}
_NOVA_FORMATS = {"sft": "bedrock-converse", "dpo": "nova-preference"}
PARAMETERS = {
    "hyperparameters.epochs": "max_epochs",
    "hyperparameters.batch_size": "global_batch_size",
    "hyperparameters.learning_rate": "learning_rate",
    "hyperparameters.scheduler": "lr_scheduler",
    "hyperparameters.warmup_ratio": "lr_warmup_steps_ratio",
    "hyperparameters.weight_decay": "weight_decay",
    "hyperparameters.max_grad_norm": "gradient_clipping_threshold",
    "hyperparameters.max_length": "dataset_max_len",
    "adapter.rank": "lora_rank",
    "adapter.alpha": "lora_alpha",
    "adapter.dropout": "lora_dropout",
    "method.beta": "adam_beta",
    "seed": "seed",
}
"""The spec's field -> the recipe's."""
_RECIPES = "AWS's recipe sets this and accepts no value for it"
_REFUSED = {
    "method:cpt": "serverless customization does not support continued pretraining; set compute: instances",
    "method:distill": "serverless customization does not support it; collect the teacher's answers and use sft",
    "validation.every": _RECIPES,
    "validation.early_stopping": "serverless jobs run all their epochs",
    **dict.fromkeys(
        ("distributed.strategy", "distributed.processes", "distributed.nodes"),
        "AWS chooses the machines of serverless jobs",
    ),
    "checkpoints.every": "serverless jobs expose no checkpoints",
    "checkpoints.keep": "serverless jobs expose no checkpoints",
    "limits.max_time": "AWS documents no time limit for serverless jobs; use `cloudtune watch --cancel-after`",
    "verb:checkpoints": "serverless jobs expose no checkpoints; its result is a model package",
    "verb:continue": "to continue from a finished job's package, set overrides.sagemaker.continue_from in a new spec",
    "verb:pause": "training jobs cannot be paused",
    "verb:resume": "training jobs cannot be paused",
}  # fmt: skip


NO_CURVES = "serverless jobs write metrics to MLflow only; set backends.sagemaker.mlflow (the status shows the steps)"

_NO_CURVES = Problem(
    code="curves", severity="info", field="backends.sagemaker.mlflow", message="metrics will not be recorded",
    fix="set an MLflow app or tracking server of your account",
)  # fmt: skip


def is_nova(model: str) -> bool:
    """Nova is trained on Converse rows, and its weights cannot be downloaded."""
    return "nova" in model.lower()


def _formats(model: str) -> dict[str, str]:
    """Method -> the format of its rows."""
    if is_nova(model):
        return _NOVA_FORMATS | ({"sft": "bedrock-nova-2"} if is_nova_2(model) else {})
    return _FORMATS


def target_of(model: str | None, method: str | None) -> Target:
    """The rows that a serverless job accepts."""
    rules = Target(NAME, _FORMATS | {"grpo": "sagemaker-rlvr"}, max_bytes=1 << 30)
    if model and is_nova(model):
        rules = rules._replace(name="sagemaker-nova", formats=_formats(model), rules_of=(NAME, model, method))
    return rules.with_limits(load(NAME), model, method)


def capabilities(options: SageMakerOptions) -> Capabilities:
    """The capabilities; metrics are available if the settings name an MLflow resource."""
    reasons = _REFUSED | ({} if options.mlflow else {"verb:metrics": NO_CURVES})
    for feature in spec_features():
        kind, colon, name = feature.partition(":")
        if colon and kind == "method" and name not in TECHNIQUES:
            reasons.setdefault(feature, "serverless customization supports sft, dpo and rft")
        elif colon and kind == "adapter" and name not in ("lora", "full"):
            reasons.setdefault(feature, "serverless customization supports lora and full")
        elif not colon and feature not in PARAMETERS and feature not in ("tags", "data.validation", "data.test"):
            reasons.setdefault(feature, _RECIPES)
    return Capabilities(
        supports=frozenset({*spec_features(), *VERBS} - set(reasons)),
        reasons=reasons,
        translated={
            **{feature: name for feature, name in PARAMETERS.items() if feature not in reasons},
            "method:rft": "RLVR, or RLAIF with overrides.sagemaker.technique",
            "adapter:full": "no Peft in the request",
            "data.test": "not uploaded; the rows stay on this machine for evaluation",
            "data.validation": "a separate channel",
            "tags": "the job's tags",
            **({"verb:metrics": "from the MLflow server in the settings"} if options.mlflow else {}),
        },
        inherent=frozenset({"data.test"}),
    )


def technique_of(spec: JobSpec, own: SageMakerOverrides) -> tuple[str, str | None]:
    """CustomizationTechnique and Peft."""
    technique = own.technique or TECHNIQUES.get(spec.method.name, "SFT")
    return technique, None if spec.adapter is not None and spec.adapter.type == "full" else "LORA"


def check(spec: JobSpec, options: SageMakerOptions) -> list[Problem]:
    """Problems by the documented ranges; the plan also checks the model's own recipe."""
    found = [*places(options), *tag_problems(spec.tags, "tags", others=len(options.tags))]
    catalog, requested = load(NAME), spec.requested_fields()
    model, method = spec.model_for(NAME) or "", spec.method.name
    for field, name in PARAMETERS.items():
        entry = catalog.range(name, model, method)
        if field not in requested:
            continue
        if entry is None and name == "adam_beta":
            fix = "remove it"
            found.append(Problem(code="not_of_method", field=field, message=f"{method} does not use {name}", fix=fix))
        elif entry is not None and (fault := entry.fault(requested[field])):
            message = f"{name} {fault}, not {requested[field]} ({catalog.cite(entry.source)})"
            found.append(Problem(code="out_of_range", field=field, message=message, fix=f"{name} is {entry.words()}"))
    if spec.overrides.get(NAME, {}).get(KEY):
        message = "AWS's recipe uses its own loss; set compute: instances to choose one"
        field = f"overrides.{NAME}.{KEY}"
        found.append(Problem(code="no_effect", field=field, message=message, fix="remove it"))
    if method not in _NOVA_FORMATS and is_nova(model):
        fix = "use sft or dpo"
        found.append(Problem(code="method", field="method", message=f"Nova does not support {method} here", fix=fix))
    return found


def plan(request: PlanRequest, options: SageMakerOptions, own: SageMakerOverrides) -> Plan:
    """The steps. Raises SpecError with all errors according to the model's recipe."""
    facts = request.resolved.facts
    problems = [*_rows(request), *_terms(facts, own)]
    settings, parameters = _parameters(request, facts["recipe"], own, problems)
    if problems:
        raise SpecError(problems)
    return Plan(
        name=request.spec.name,
        backend=NAME,
        scope=request.resolved.scope,
        key=request.key,
        attempt=request.attempt,
        token=request.token,
        spec=request.spec.model_dump(mode="json", exclude_none=True),
        steps=tuple(_steps(request, options, own, parameters)),
        data=request.data,
        resolved=request.resolved,
        settings=tuple(settings),
        warnings=() if options.mlflow else (_NO_CURVES,),
    )


def estimate() -> CostEstimate:
    """Unknown: no source of the catalog has a price."""
    basis = "billed per training token; the price is unknown"
    return CostEstimate(usd=None, basis=basis, unknown=("the price of training",))


def _rows(request: PlanRequest) -> Iterator[Problem]:
    method = request.spec.method.name
    kind = request.data.splits["train"].kind
    if kind != (wanted := METHODS[method].kinds[0]):
        message = f"{method} requires {wanted} rows; these are {kind}"
        yield Problem(code="kind", field="data.train", message=message, fix="use another kind of rows")
    limit = load(NAME).limit("file.bytes.max")
    for split, info in request.data.splits.items():
        if limit is not None and info.bytes > limit.value:
            message = f"{info.bytes:,} bytes, but a file can have at most {limit.value:,.0f}"
            yield Problem(code="file_too_large", field=f"data.{split}", message=message, fix="use fewer rows")


def _terms(facts: Mapping[str, Any], own: SageMakerOverrides) -> Iterator[Problem]:
    if facts["recipe"]["gated"] and not own.accept_eula:
        message = f"{facts['recipe']['model']} has an end user license agreement that must be accepted"
        fix = "read it, and set accept_eula: true to accept it"
        yield Problem(code="eula", field=f"overrides.{NAME}.accept_eula", message=message, fix=fix)


def _parameters(
    request: PlanRequest, recipe: Mapping[str, Any], own: SageMakerOverrides, problems: list[Problem]
) -> tuple[list[Setting], dict[str, str]]:
    """HyperParameters: the recipe's defaults, overridden by the spec."""
    rules: Mapping[str, Mapping[str, Any]] = recipe["parameters"]
    requested = request.spec.requested_fields()
    given = {name: (field, requested[field], "spec") for field, name in PARAMETERS.items() if field in requested}
    given |= {
        name: (f"overrides.{NAME}.recipe.{name}", value, "override") for name, value in (own.recipe or {}).items()
    }
    values = {name: rule["default"] for name, rule in rules.items() if rule.get("default") is not None}
    settings = []
    for name, (field, value, source) in given.items():
        if name not in rules:
            message = f"the recipe {recipe['recipe']} of {recipe['model']} has no {name}"
            problems.append(Problem(code="no_parameter", field=field, message=message, fix="remove it"))
        elif fault := fault_of(rules[name], value):
            problems.append(Problem(code="out_of_range", field=field, message=f"{name} {fault}", fix="change it"))
        else:
            values[name] = value
            settings.append(Setting(field=field, value=value, source=source))
    default = f"default of the recipe {recipe['recipe']}"
    settings += [Setting(field=name, value=values[name], source=default) for name in values if name not in given]
    return settings, {name: _text(rules[name], value) for name, value in sorted(values.items())}


def _text(rule: Mapping[str, Any], value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if rule.get("type") == "integer" else str(value)


def _steps(
    request: PlanRequest, options: SageMakerOptions, own: SageMakerOverrides, parameters: dict[str, str]
) -> Iterator[Step]:
    spec, splits = request.spec, [name for name in request.data.splits if name != "test"]

    form = _formats(spec.model_for(NAME) or "")[spec.method.name]
    for split in splits:
        info = request.data.splits[split]
        title = f"write the {info.rows} {split} rows as {form}"
        given = {"split": split, "format": form, "sha256": info.sha256}
        yield Step(id=f"encode_{split}", kind="encode", title=title, request=given)
        upload = {
            "call": "s3.put_object", "bucket": options.bucket, "below": f"{options.prefix}/data",
            "name": f"{split}.jsonl", "path": output_ref(f"encode_{split}", "path"),
            "sha256": output_ref(f"encode_{split}", "sha256"), "bytes": output_ref(f"encode_{split}", "bytes"),
        }  # fmt: skip
        yield Step(id=f"upload_{split}", kind="upload", title=f"upload the {split} rows", request=upload,
                   once="atomic", token=f"{info.sha256}/{split}")  # fmt: skip
    tags = tag_list(tags_of(request.token, spec.name, options.tags, spec.tags), upper=True)
    if options.package_group is None:
        name = short(f"cloudtune-{spec.model_for(NAME)}", request.key)
        body = {"ModelPackageGroupName": name, "Tags": tags}
        yield Step(id=GROUP, kind="call", title=f"create the model package group {name}", once="atomic", token=name,
                   request={"call": "sagemaker.create_model_package_group", "body": body})  # fmt: skip
    body = _body(request, options, own, parameters, splits) | {"Tags": tags}
    yield Step(id=CREATE, kind="call", title=f"create the training job {request.slug}", request={"body": body},
               once="atomic", token=request.token, makes_job=True)  # fmt: skip


def _body(
    request: PlanRequest, options: SageMakerOptions, own: SageMakerOverrides, parameters: dict[str, str],
    splits: list[str],
) -> dict[str, Any]:  # fmt: skip
    recipe = request.resolved.facts["recipe"]
    technique, peft = technique_of(request.spec, own)
    kind = "Converse" if is_nova(recipe["model"]) else "S3Prefix"
    config: dict[str, Any] = {
        "BaseModelArn": recipe["arn"], "JobType": "FineTuning", "CustomizationTechnique": technique,
    }  # fmt: skip
    optional = {
        "Peft": peft, "AcceptEula": own.accept_eula or None, "EvaluatorArn": own.evaluator,
        "SequenceLength": own.sequence_length,
    }  # fmt: skip
    config |= {name: value for name, value in optional.items() if value is not None}
    package: dict[str, Any] = {"ModelPackageGroupArn": options.package_group or output_ref(GROUP, "arn")}
    if own.continue_from:
        package["SourceModelPackageArn"] = own.continue_from
    output: dict[str, Any] = {"S3OutputPath": f"s3://{options.bucket}/{options.prefix}/jobs"}
    if options.kms_key:
        output["KmsKeyId"] = options.kms_key
    body: dict[str, Any] = {
        "TrainingJobName": request.slug,
        "RoleArn": options.role_arn,
        "HyperParameters": parameters,
        "InputDataConfig": [
            {"ChannelName": split, "DataSource": {"S3DataSource": {
                "S3DataType": kind, "S3Uri": output_ref(f"upload_{split}", "url"),
                "S3DataDistributionType": "FullyReplicated",
            }}}
            for split in splits
        ],
        "OutputDataConfig": output,
        "ServerlessJobConfig": config,
        "ModelPackageConfig": package,
    }  # fmt: skip
    if options.mlflow:
        experiment = options.mlflow_experiment or EXPERIMENT
        body["MlflowConfig"] = {
            "MlflowResourceArn": options.mlflow, "MlflowExperimentName": experiment, "MlflowRunName": request.slug,
        }  # fmt: skip
    if options.subnets:
        body["VpcConfig"] = {"SecurityGroupIds": list(options.security_groups), "Subnets": list(options.subnets)}
    return body
