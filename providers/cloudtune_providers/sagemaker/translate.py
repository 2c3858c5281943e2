"""Translates a spec to a plan for cloudtune's trainer on SageMaker: uploads, and one CreateTrainingJob. Pure.

The trainer's ``spec.json`` is sent as the job's hyperparameters, one JSON string each, so the console shows them. Rows,
code and a custom model are S3 channels.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from cloudtune.cost import CostEstimate
from cloudtune.errors import Problem, SpecError
from cloudtune.plan import Plan, Step, output_ref
from cloudtune_providers.aws import hourly
from cloudtune_providers.aws.names import tag_list, tags_of
from cloudtune_providers.aws.training_responses import MODEL_VARIABLE, NAME_VARIABLE, PARENT_VARIABLE
from cloudtune_providers.sagemaker import instances
from cloudtune_providers.sagemaker.capabilities import LEAST_SECONDS, NAME
from cloudtune_providers.sagemaker.log_lines import metric_definitions
from cloudtune_providers.sagemaker.options import SageMakerOptions, SageMakerOverrides
from cloudtune_trainer.submit import bundle
from cloudtune_trainer.submit.plan import FORMAT, Choices, model_problems, run_spec, warning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune.plan import PlanRequest

CREATE = "create"
FIND_CHECKPOINT = "find_checkpoint"
UPLOAD_CODE = "upload_code"
UPLOAD_MODEL = "upload_model"
START = "start"
"""The channel of the checkpoint from which a job continues."""
DEFAULT_RUNTIME_S = 86400
"""The service's default, if the spec gives no limit."""
RESERVE_S = 600.0
RESERVE_SHARE = 0.2
"""How much earlier than the service the trainer stops, to save its model: the smaller of the two."""
_ONE_VALUE = ("layers.learning_rates", "classification.class_weights")
"""Mappings that are sent as one hyperparameter: their keys are the user's, and can contain dots."""
MOST_CHARS = 2500
"""Limit of one hyperparameter."""
ENTRYPOINT = (
    "/bin/bash",
    "-c",
    (
        f"mkdir -p /opt/ml/code && tar -xzf /opt/ml/input/data/code/{bundle.NAME} -C /opt/ml/code && "
        f"exec python3 -I /opt/ml/code/{bundle.ENTRY}"
    ),
)
"""The trainer is the container's first process, so that it receives SIGTERM directly."""


def to_plan(request: PlanRequest, options: SageMakerOptions) -> Plan:
    """The steps that create the job. Raises SpecError if the spec does not fit."""
    return _Planning(request, options).plan()


def estimate(request: PlanRequest, options: SageMakerOptions) -> CostEstimate:
    """The cost of the job on the instances that the plan chooses."""
    return _Planning(request, options).cost()


class _Planning:
    """The intermediate values of one plan."""

    def __init__(self, request: PlanRequest, options: SageMakerOptions) -> None:
        self.request = request
        self.options = options
        self.own = SageMakerOverrides.model_validate(request.spec.overrides.get(NAME, {}))
        self.choices = Choices(NAME)
        self.facts = request.resolved.facts
        self.model: dict[str, Any] = self.facts["model"]
        self.base: str = self.facts["base"]
        self.document = self._document()
        self.parameters = instances.parameters_of(self.model, request.spec.model_for(NAME) or "")
        self.memory = instances.memory_of(self.parameters, self.document) if self.parameters else None
        self.problems: list[Problem] = model_problems(request, self.document, self.model)
        self.type, self.count = self._instances()

    def plan(self) -> Plan:
        request = self.request
        body = self._body()
        self._sizes(body)
        errors = [problem for problem in self.problems if problem.severity == "error"]
        if errors:
            raise SpecError(errors)
        return Plan(
            name=request.spec.name,
            backend=NAME,
            scope=request.resolved.scope,
            key=request.key,
            attempt=request.attempt,
            token=request.token,
            spec=request.spec.model_dump(mode="json", exclude_none=True),
            steps=tuple(self._steps(body)),
            data=request.data,
            resolved=request.resolved,
            settings=tuple(self.choices.settings),
            warnings=tuple(self.problems),
            parent=str(request.parent) if request.parent else None,
        )

    # -- the trainer's side ------------------------------------------------------------------------------------------

    def _document(self) -> dict[str, Any]:
        """spec.json, with the paths in the container's channels."""
        request, own = self.request, self.own
        data = {split: f"{split}/{split}.jsonl" for split in request.data.splits}
        model = self.model if self.model["source"] == "hub" else {**self.model, "path": self.model["channel_path"]}
        start = output_ref(FIND_CHECKPOINT, "place") if request.parent else None
        names = ("device", "threads", "log_every", "trust_remote_code")
        for name in (*names, "revision"):
            if (value := getattr(own, name)) is not None:
                source = "override" if name in own.model_fields_set else f"default of {NAME}"
                self.choices.note(f"overrides.{NAME}.{name}", value, source)
        document = run_spec(request, self.choices, model, data, start, {name: getattr(own, name) for name in names})
        if document["limits"]["max_time"] is not None:
            document["limits"] = {"max_time": self._trained_s()}
        return document

    def _runtime_s(self) -> int:
        """MaxRuntimeInSeconds: the service stops the container then."""
        limit = self.request.spec.limits.max_time
        runtime = math.ceil(limit) if limit is not None else DEFAULT_RUNTIME_S
        if self.request.run_seconds is None:
            return runtime
        return min(runtime, max(LEAST_SECONDS, math.floor(self.request.run_seconds)))

    def _trained_s(self) -> float:
        """When the trainer stops, to save its model."""
        runtime = self._runtime_s()
        return runtime - min(RESERVE_S, runtime * RESERVE_SHARE)

    # -- the service's side ------------------------------------------------------------------------------------------

    def _instances(self) -> tuple[str, int]:
        options, own = self.options, self.own
        count = own.instances or options.instances
        kind = own.instance_type or options.instance_type
        why = "override" if own.instance_type else "settings"
        if kind is None and options.compute == "local":
            kind, why = "local", "derived: a process on this machine"
        if kind is None:
            fitting = instances.proposed(self.parameters, self.memory)
            if fitting is None:
                self._too_large()
            kind = fitting.name if fitting else instances.UNKNOWN
            why = f"proposed: {self.memory.gib} GiB on each GPU, {self.memory.basis}" if self.memory else "proposed"
            if self.memory is None:
                message = f"the size of {self.request.spec.model_for(NAME)} is unknown: {kind} is a guess"
                self.problems.append(warning("model_size", f"backends.{NAME}.instance_type", message, "set it"))
        self.choices.note(f"backends.{NAME}.instance_type", kind, why)
        self.choices.note(f"backends.{NAME}.instances", count, "override" if own.instances else "settings")
        self._judge(kind, count)
        return kind, count

    def _too_large(self) -> None:
        assert self.memory is not None
        message = f"about {self.memory.gib} GiB on one GPU ({self.memory.basis}): no instance has a GPU that large"
        fix = "use lora, a smaller batch (more gradient_accumulation_steps), gradient_checkpointing or a smaller model"
        self.problems.append(Problem(code="memory", field="model", message=message, fix=fix))

    def _judge(self, name: str, count: int) -> None:
        field = f"backends.{NAME}.instance_type"
        known = instances.instance_of(name)
        if known is not None and self.memory is not None and known.gpus and known.gpu_gib < self.memory.gib:
            message = f"{name} has {known.gpu_gib:g} GiB per GPU, but about {self.memory.gib} are needed"
            self.problems.append(warning("memory", field, f"{message} ({self.memory.basis})", "choose a larger one"))
        if known is not None and not known.gpus and self.document["hyperparameters"]["precision"] == "fp16":
            message = f"fp16 requires a GPU, and {name} has none"
            fix = "use fp32 or bf16, or choose another instance"
            self.problems.append(Problem(code="range", field="hyperparameters.precision", message=message, fix=fix))
        if count > 1 and self.model["source"] in ("config", "gguf"):
            message = f"a {self.model['source']} model is prepared on each instance separately and trains on one only"
            fix = "use one instance, or a model folder"
            self.problems.append(Problem(code="range", field=f"backends.{NAME}.instances", message=message, fix=fix))
        if self.options.network_isolation and self.model["source"] == "hub":
            message = "a hub model cannot be downloaded without network access"
            fix = "use a folder or an s3:// prefix with the model"
            self.problems.append(Problem(code="network", field="model", message=message, fix=fix))

    def _body(self) -> dict[str, Any]:
        options, request = self.options, self.request
        root = f"{self.base}/{options.prefix}"
        body: dict[str, Any] = {
            "TrainingJobName": request.slug,
            **({"RoleArn": options.role_arn} if options.role_arn else {}),
            "HyperParameters": hyperparameters(self.document),
            "AlgorithmSpecification": {
                "TrainingImage": self._image(),
                "TrainingInputMode": "File",
                "MetricDefinitions": metric_definitions(request.spec.method.name),
                "ContainerEntrypoint": list(ENTRYPOINT),
            },
            "InputDataConfig": self._channels(),
            "OutputDataConfig": {
                "S3OutputPath": f"{root}/jobs",
                "CompressionType": "NONE" if self.own.unpacked else "GZIP",
            },
            "ResourceConfig": self._resources(),
            "StoppingCondition": self._stopping(),
            "CheckpointConfig": {"S3Uri": f"{root}/checkpoints/{request.slug}", "LocalPath": "/opt/ml/checkpoints"},
            "Environment": self._environment(),
            "Tags": tag_list(tags_of(request.token, request.spec.name, options.tags, request.spec.tags), upper=True),
        }
        if options.kms_key:
            body["OutputDataConfig"]["KmsKeyId"] = options.kms_key
        if self._spot():
            body["EnableManagedSpotTraining"] = True
        if options.subnets:
            body["VpcConfig"] = {
                "SecurityGroupIds": list(options.security_groups), "Subnets": list(options.subnets)
            }  # fmt: skip
        if options.network_isolation:
            body["EnableNetworkIsolation"] = True
        if options.encrypt_traffic:
            body["EnableInterContainerTrafficEncryption"] = True
        return body

    def _image(self) -> str:
        image = self.facts["image"]
        if isinstance(image, str):
            return image
        known = instances.instance_of(self.type)
        has_gpu = known.gpus > 0 if known else self.type.split(".")[1][0] in "gp"
        return str(image["gpu" if has_gpu else "cpu"])

    def _channels(self) -> list[dict[str, Any]]:
        uris: dict[str, Any] = {"code": output_ref(UPLOAD_CODE, "url")}
        uris |= {split: output_ref(f"upload_{split}", "url") for split in self.request.data.splits}
        if self.model["source"] != "hub":
            uris["model"] = self.model["s3"] or output_ref(UPLOAD_MODEL, "url")
        if self.request.parent:
            uris[START] = output_ref(FIND_CHECKPOINT, "url")
        return [
            {
                "ChannelName": name,
                "DataSource": {"S3DataSource": {
                    "S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated",
                }},
            }
            for name, uri in uris.items()
        ]  # fmt: skip

    def _resources(self) -> dict[str, Any]:
        options = self.options
        full = self.document["adapter"]["type"] == "full"
        volume = options.volume_gb or instances.volume_gb(self.parameters, full)
        why = "settings" if options.volume_gb else "derived: the model's size"
        self.choices.note(f"backends.{NAME}.volume_gb", volume, why)
        found = {"InstanceType": self.type, "InstanceCount": self.count, "VolumeSizeInGB": volume}
        if kept := self._kept_s():
            found["KeepAlivePeriodInSeconds"] = kept
            message = f"the instances stay for {kept} s after the job and are billed as if they ran"
            self.problems.append(warning("warm_pool", f"backends.{NAME}.keep_alive", message, "set it to 0"))
        return found

    def _kept_s(self) -> int:
        return (self.own.keep_alive if self.own.keep_alive is not None else self.options.keep_alive) or 0

    def _spot(self) -> bool:
        return self.options.spot if self.own.spot is None else self.own.spot

    def _stopping(self) -> dict[str, int]:
        runtime = self._runtime_s()
        why = "spec" if self.request.spec.limits.max_time is not None else "the service's own limit"
        why = "derived: limits.max_cost_usd" if runtime == math.floor(self.request.run_seconds or 0) else why
        self.choices.note("MaxRuntimeInSeconds", runtime, why)
        self.choices.note("CLOUDTUNE_STOP_AFTER", self._trained_s(), "derived: leaves time to save the model")
        if not self._spot():
            return {"MaxRuntimeInSeconds": runtime}
        wait = max(runtime, math.ceil(self.options.max_wait or 2 * runtime))
        self.choices.note("MaxWaitTimeInSeconds", wait, "settings" if self.options.max_wait else "derived")
        return {"MaxRuntimeInSeconds": runtime, "MaxWaitTimeInSeconds": wait}

    def _environment(self) -> dict[str, str]:
        request, options = self.request, self.options
        found = {NAME_VARIABLE: request.spec.name, MODEL_VARIABLE: request.spec.model_for(NAME) or ""}
        found["CLOUDTUNE_STOP_AFTER"] = f"{self._trained_s():g}"
        if request.parent:
            found[PARENT_VARIABLE] = str(request.parent)
        if options.requirements == "image" or options.compute == "local":
            found["CLOUDTUNE_REQUIREMENTS"] = "image"
        if options.hub_token_secret:
            found["CLOUDTUNE_HUB_TOKEN_SECRET"] = options.hub_token_secret
        return found

    def _sizes(self, body: Mapping[str, Any]) -> None:
        for name, text in body["HyperParameters"].items():
            if isinstance(text, str) and len(text) > MOST_CHARS:
                message = f"{len(text)} characters, but SageMaker allows {MOST_CHARS} in a hyperparameter"
                self.problems.append(Problem(code="too_long", field=name, message=message, fix="make it shorter"))
        for name, text in body["Environment"].items():
            if len(text) > 512:
                message = f"{name} has {len(text)} characters, but SageMaker allows 512"
                self.problems.append(Problem(code="too_long", field="model", message=message, fix="make it shorter"))

    def cost(self) -> CostEstimate:
        if self.options.compute == "local":
            return CostEstimate(usd=None, basis="trains on this machine", unknown=("the price of this machine",))
        hyper = self.document["hyperparameters"]
        return hourly.training(
            self.type, self.count, self._runtime_s(), self.request, spot=self._spot(),
            epochs=hyper["epochs"] if hyper["max_steps"] is None else None, kept_s=self._kept_s(),
            time_limit="keeps_model",
        )  # fmt: skip

    # -- steps -------------------------------------------------------------------------------------------------------

    def _steps(self, body: dict[str, Any]) -> list[Step]:
        request = self.request
        steps = []
        if request.parent is not None:
            # First, so that a job without a valid checkpoint is refused before anything is written.
            title = f"find the newest valid checkpoint of {request.parent}"
            wanted = {"newest_checkpoint_of": str(request.parent)}
            steps.append(Step(id=FIND_CHECKPOINT, kind="call", title=title, request=wanted))
        for split, info in request.data.splits.items():
            title = f"write the {info.rows} {split} rows in the trainer's format"
            given = {"split": split, "format": FORMAT, "sha256": info.sha256}
            steps.append(Step(id=f"encode_{split}", kind="encode", title=title, request=given))
            upload = self._put(f"data/{info.sha256}/{split}.jsonl") | {
                "path": output_ref(f"encode_{split}", "path"),
                "sha256": output_ref(f"encode_{split}", "sha256"),
                "bytes": output_ref(f"encode_{split}", "bytes"),
            }
            steps.append(self._upload(f"upload_{split}", f"upload the {split} rows", upload))
        code = self.facts["code"]
        upload = self._put(f"code/{code['sha256']}/{bundle.NAME}") | code
        steps.append(self._upload(UPLOAD_CODE, "upload the trainer", upload))
        if self.model["source"] != "hub" and not self.model["s3"]:
            title = f"upload the model {request.spec.model_for(NAME)}"
            upload = self._put(f"models/{self.model['fingerprint']}/") | {"files": self.model["files"]}
            steps.append(self._upload(UPLOAD_MODEL, title, upload))
        title = f"create the training job {request.slug}"
        steps.append(Step(id=CREATE, kind="call", title=title, request={"body": body}, once="atomic",
                          token=request.token, makes_job=True))  # fmt: skip
        return steps

    def _put(self, key: str) -> dict[str, Any]:
        return {"call": "s3.put_object", "bucket": self.options.bucket, "key": f"{self.options.prefix}/{key}"}

    def _upload(self, name: str, title: str, request: dict[str, Any]) -> Step:
        return Step(id=name, kind="upload", title=title, request=request, once="atomic", token=request["key"])


def hyperparameters(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The document in the service's format: dotted names, each value a JSON text. A placeholder is unchanged."""
    found: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, dict) and "$step" not in value and f"{prefix}{name}" not in _ONE_VALUE:
            found |= hyperparameters(value, f"{prefix}{name}.")
        elif value is not None:
            is_placeholder = isinstance(value, dict) and "$step" in value
            found[f"{prefix}{name}"] = value if is_placeholder else json.dumps(value)
    return found
