"""Settings of the JumpStart back end, and its overrides in a spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from cloudtune.config.option_types import Program, Protection, Safe
from cloudtune_providers.aws.options import AwsOptions

PUBLIC_HUB = "SageMakerPublicHub"
Instance = Annotated[str, Field(pattern=r"ml\.[a-z0-9-]+\.[a-z0-9]+")]
Subnets = Annotated[tuple[str, ...], Field(max_length=16)]
Groups = Annotated[tuple[str, ...], Field(max_length=5)]


class JumpStartOptions(AwsOptions):
    """Account, region, bucket and role, and defaults for the instances of jobs."""

    hub: Program[str] = PUBLIC_HUB
    """The hub of the documents: the public one, or a private one of your account."""
    accept_eula: Protection[tuple[str, ...]] = ()
    """Ids of gated models whose terms you have read and accept, for every job."""
    instance_type: Safe[Instance | None] = None
    """Default: the one in the model's document."""
    volume_gb: Safe[PositiveInt | None] = None
    """Default: the document's."""
    spot: Safe[bool] = False
    """Managed spot training: cheaper, can wait for capacity and be interrupted."""
    spot_wait: Safe[PositiveFloat] = 86400.0
    """Seconds that a spot job can wait in addition to its running time."""
    keep_alive: Safe[Annotated[int, Field(ge=0, le=21600)]] = 0
    """Seconds for which the instances are kept warm after a job; they are billed."""
    subnets: Protection[Subnets] = ()
    """Subnets of the VPC of jobs and endpoints; together with ``security_groups``."""
    security_groups: Protection[Groups] = ()
    document_age: Safe[NonNegativeFloat] = 900.0
    """Seconds for which a model's document is cached."""
    base_endpoint: Safe[str | None] = None
    """An endpoint of the untuned model, for comparison."""
    deploy_limit: Safe[PositiveFloat] = 3600.0
    """Seconds to wait until an endpoint is ready."""


class JumpStartOverrides(BaseModel):
    """``overrides.jumpstart`` in a spec."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model_version: Annotated[str, Field(pattern=r"\d{1,4}\.\d{1,4}\.\d{1,4}")] | None = None
    """Version of the model's document. Default: the newest."""
    config: str | None = None
    """One of the document's training configurations."""
    accept_eula: bool | None = None
    """You have read a gated model's terms and accept them."""
    layout: Literal["chat", "instruction"] | None = None
    """The layout of conversations: dialogs, or instruction and response. Default: by the document."""
    template: dict[str, str] | None = None
    """``template.json`` of the instruction layout: a prompt and a completion, made of {instruction}, {context} and
    {response}."""
    hyperparameters: dict[str, str | int | float | bool] = {}
    """Hyperparameters by the document's names; they override the portable ones."""
    instance_type: Instance | None = None
    instance_count: PositiveInt | None = None
    volume_gb: PositiveInt | None = None
    spot: bool | None = None


class JumpStartDeployment(BaseModel):
    """Options of a deployment."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,50}$")] | None = None
    """Default: derived from the job."""
    instance_type: Instance | None = None
    """Default: the one in the model's document for inference."""
    instances: PositiveInt = 1
    min_copies: NonNegativeInt | None = None
    """Minimum number of copies of the model, scaled up with requests to ``instances``. With 0 the endpoint releases all
    its instances without requests, costs nothing then, and starts within minutes after a request."""
    requests_per_minute: PositiveFloat = 60.0
    """With ``min_copies``: target number of requests per copy."""
    cooldown: Annotated[int, Field(ge=0, le=86400)] = 300
    """With ``min_copies``: seconds between two steps down."""
    memory_mb: Annotated[int, Field(ge=128, le=3_000_000)] = 1024
    """With ``min_copies``: machine memory reserved for each copy; it can use more."""
    accelerators: Annotated[int, Field(ge=0, le=16)] | None = None
    """With ``min_copies``: GPUs of each copy. Default: all of the instance."""

    @model_validator(mode="after")
    def _fits_together(self) -> JumpStartDeployment:
        if self.min_copies is not None and self.min_copies > self.instances:
            raise ValueError(f"min_copies {self.min_copies} exceeds instances {self.instances}, the maximum")
        return self
