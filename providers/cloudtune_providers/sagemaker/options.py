"""Settings of the SageMaker back end, and its overrides in a spec."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from cloudtune.config.option_types import Credential, Endpoint, Program, Protection, Safe, WrittenPath
from cloudtune.spec_types import Seconds
from cloudtune_providers.aws.options import AwsOptions
from cloudtune_trainer.submit.preference import PreferenceOverrides

PackageGroup = Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:sagemaker:.+:model-package-group/.+$")]
MlflowArn = Annotated[
    str, Field(pattern=r"^arn:aws[a-z-]*:sagemaker:[a-z0-9-]*:\d{12}:mlflow-(app|tracking-server)/.+$")
]
InstanceType = Annotated[str, Field(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$")]


class SageMakerOptions(AwsOptions):
    """Where and how jobs run."""

    compute: Safe[Literal["instances", "serverless", "local"]] = "instances"
    """``instances``: cloudtune's trainer on SageMaker's instances. ``serverless``: AWS's own trainers, billed by the
    token. ``local``: the same bundle of cloudtune's trainer in a local process, offline, for tests."""
    hub: Program[str] = "SageMakerPublicHub"
    """For ``serverless``: the hub that has the base models."""
    package_group: Endpoint[PackageGroup | None] = None
    """For ``serverless``: the package group of the tuned models. Default: cloudtune's own group."""
    base_endpoint: Safe[str | None] = None
    """For ``serverless``: an endpoint of the base model, for comparison."""
    mlflow: Endpoint[MlflowArn | None] = None
    """For ``serverless``: the MLflow app or tracking server for the job's metrics; `metrics` reads them."""
    mlflow_experiment: Safe[Annotated[str, Field(pattern=r"^[a-zA-Z0-9_./-]{1,256}$")] | None] = None
    """For ``serverless``: the experiment of the runs. Default: ``cloudtune``."""
    image: Program[Annotated[str, Field(min_length=1, max_length=255)] | None] = None
    """The container's image. Default: AWS's own Hugging Face or PyTorch training image for the region."""
    instance_type: Safe[InstanceType | None] = None
    """Default: chosen by the model's size and the method."""
    instances: Safe[PositiveInt] = 1
    """Number of instances of that type, which train one model together."""
    volume_gb: Safe[Annotated[int, Field(ge=1, le=16384)] | None] = None
    """Disk of each instance. Default: by the model's size."""
    spot: Safe[bool] = False
    """Managed spot training: cheaper, can be interrupted; the job then continues from its checkpoint automatically."""
    max_wait: Safe[Seconds | None] = None
    """With ``spot``: the limit of waiting and running together. Default: twice the maximum running time."""
    keep_alive: Safe[Annotated[int, Field(ge=0, le=21600)] | None] = None
    """Seconds for which the instances are kept for the next job (a warm pool); they are billed."""
    subnets: Protection[tuple[str, ...]] = ()
    """Subnets of a VPC, together with ``security_groups``."""
    security_groups: Protection[tuple[str, ...]] = ()
    network_isolation: Protection[bool] = False
    """No network for the container: no hub, no package index."""
    encrypt_traffic: Protection[bool] = False
    """Encrypt the traffic between instances."""
    requirements: Protection[Literal["pip", "image"]] = "pip"
    """``pip`` installs the pinned packages that the image lacks; ``image`` uses the image unchanged."""
    hub_token_secret: Credential[str | None] = None
    """Name or ARN of a secret in Secrets Manager with a token for gated models on the hub; the job's role reads
    it."""
    inference_image: Program[Annotated[str, Field(min_length=1, max_length=255)] | None] = None
    """For endpoints. Default: AWS's own Hugging Face inference image for the region."""
    deploy_limit: Safe[PositiveFloat] = 3600.0
    """Seconds to wait for an endpoint."""
    answers: Safe[Literal["auto", "endpoint", "here"]] = "auto"
    """Where a tuned model runs: on its endpoint if there is one, or in this process after a download."""
    root: WrittenPath[Path | None] = None
    """For ``compute: local`` and downloaded models. Default: ``sagemaker`` under CLOUDTUNE_HOME, else under
    this user's state folder."""
    python: Program[Path | None] = None
    """For ``compute: local``: the interpreter in place of the image's. Default: the one that runs cloudtune."""

    def root_folder(self) -> Path:
        """``root`` as an absolute path; it need not exist yet."""
        if self.root is not None:
            return self.root.expanduser().resolve()
        home = os.environ.get("CLOUDTUNE_HOME")
        if home:
            return (Path(home).expanduser() / "sagemaker").resolve()
        import platformdirs

        return platformdirs.user_state_path("cloudtune").resolve() / "sagemaker"


class SageMakerOverrides(BaseModel):
    """``overrides.sagemaker`` in a spec."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    instance_type: InstanceType | None = None
    """See the setting of that name."""
    instances: PositiveInt | None = None
    """See the setting of that name."""
    spot: bool | None = None
    """See the setting of that name."""
    keep_alive: NonNegativeInt | None = None
    """See the setting of that name."""
    unpacked: bool = False
    """The job writes its model as files instead of one archive: Bedrock imports full weights in place."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The device: ``auto`` uses the available GPUs."""
    threads: PositiveInt | None = None
    """CPU threads of each process. Default: torch's own choice."""
    log_every: PositiveInt = 1
    """Steps between metrics."""
    revision: str | None = Field(default=None, min_length=1)
    """Branch, tag or commit of a model on the hub."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for models whose authors you trust."""
    preference: PreferenceOverrides | None = None
    """Preference settings of cloudtune's trainer: the loss of dpo, label smoothing, SimPO's margin."""

    technique: Literal["SFT", "DPO", "RLVR", "RLAIF"] | None = None
    """For ``serverless``. Default: by the method."""
    accept_eula: bool = False
    """For ``serverless``: you have read the base model's license agreement and accept it."""
    recipe: dict[str, str | int | float | bool] | None = None
    """For ``serverless``: parameters of the model's recipe by its names."""
    evaluator: Annotated[str, Field(min_length=1)] | None = None
    """For ``serverless`` reinforcement: ARN of the evaluator (a Lambda function's, or a judge's)."""
    sequence_length: Annotated[str, Field(pattern=r"^\d+K$")] | None = None
    """For ``serverless``: e.g. ``4K``."""
    continue_from: Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:sagemaker:.+:model-package/.+$")] | None = None
    """For ``serverless``: the model package to train on."""


class SageMakerDeployment(BaseModel):
    """Options of an endpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$")] | None = None
    """Default: derived from the model's name."""
    instance_type: InstanceType = "ml.g5.xlarge"
    instances: PositiveInt = 1
    endpoint: Annotated[str, Field(pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$")] | None = None
    """An existing endpoint for inference components, to add the model to. ``instances`` is then the number of
    copies."""
    onto: Annotated[str, Field(pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$")] | None = None
    """An endpoint whose base model is shared by adapters of several jobs. It is created with the base model if it does
    not exist, and this job's adapter is added. The image is AWS's LMI."""
    variant: str = "AllTraffic"
    """With ``endpoint``: its variant."""
    min_copies: NonNegativeInt | None = None
    """Minimum number of copies of the model, scaled up with requests to ``instances``. With 0 the endpoint releases all
    its instances without requests, costs nothing then, and starts within minutes after a request."""
    requests_per_minute: PositiveFloat = 60.0
    """With ``min_copies``: target number of requests per copy."""
    cooldown: Annotated[int, Field(ge=0, le=86400)] = 300
    """With ``min_copies``: seconds between two steps down."""
    memory_mb: Annotated[int, Field(ge=128, le=3_000_000)] = 1024
    """With ``endpoint``, ``onto`` or ``min_copies``: machine memory reserved for each copy. It can use more. Not
    all memory of the machine can be reserved."""
    accelerators: Annotated[int, Field(ge=0, le=16)] | None = None
    """GPUs of each copy. Default on a dedicated endpoint: all of the instance."""
    max_adapters: Annotated[int, Field(ge=1, le=1000)] = 8
    """With ``onto``, if the endpoint is created: how many adapters run at once."""
    max_lora_rank: Literal[8, 16, 32, 64, 128, 256, 320, 512] = 64
    """With ``onto``, if the endpoint is created: the largest rank of an adapter."""
    serverless_memory_mb: Literal[1024, 2048, 3072, 4096, 5120, 6144] | None = None
    """A serverless endpoint instead of instances: no GPU, no cost without requests."""
    max_concurrency: Annotated[int, Field(ge=1, le=200)] = 1
    """Limit of concurrent requests to a serverless endpoint."""

    @model_validator(mode="after")
    def _fits_together(self) -> SageMakerDeployment:
        ways = [name for name in ("endpoint", "onto", "serverless_memory_mb") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise ValueError(f"{' and '.join(ways)} cannot be combined")
        if self.min_copies is not None:
            if self.onto or self.serverless_memory_mb:
                raise ValueError(f"min_copies cannot be combined with {ways[0]}")
            if self.min_copies > self.instances:
                raise ValueError(f"min_copies {self.min_copies} exceeds instances {self.instances}, the maximum")
        return self
