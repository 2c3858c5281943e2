"""Settings of the JumpStart back end, and what a spec may say to it in its own words."""

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
    """Which account, region, bucket and role, and on what a job runs unless its spec says otherwise."""

    hub: Program[str] = PUBLIC_HUB
    """Whose documents are read: the public hub's, or a private one's of your account."""
    accept_eula: Protection[tuple[str, ...]] = ()
    """Ids of gated models whose terms you have read and accept, for every job."""
    instance_type: Safe[Instance | None] = None
    """Else the one that the model's document names."""
    volume_gb: Safe[PositiveInt | None] = None
    """Else the document's."""
    spot: Safe[bool] = False
    """Managed spot training: cheaper, may wait for capacity and be interrupted."""
    spot_wait: Safe[PositiveFloat] = 86400.0
    """Seconds that a spot job may wait beside its running time."""
    keep_alive: Safe[Annotated[int, Field(ge=0, le=21600)]] = 0
    """Seconds for which the instances are kept warm after a job; billed all the while."""
    subnets: Protection[Subnets] = ()
    """Of the VPC that jobs and endpoints run in; together with ``security_groups``."""
    security_groups: Protection[Groups] = ()
    document_age: Safe[NonNegativeFloat] = 900.0
    """Seconds for which a model's document, once read, is not asked for again."""
    base_endpoint: Safe[str | None] = None
    """An endpoint of the untuned model, to compare with."""
    deploy_limit: Safe[PositiveFloat] = 3600.0
    """Seconds to wait until an endpoint answers."""


class JumpStartOverrides(BaseModel):
    """``overrides.jumpstart`` in a spec."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model_version: Annotated[str, Field(pattern=r"\d{1,4}\.\d{1,4}\.\d{1,4}")] | None = None
    """Of the model's document; the newest unless given."""
    config: str | None = None
    """One of the document's training configurations."""
    accept_eula: bool | None = None
    """That you have read a gated model's terms and accept them."""
    layout: Literal["chat", "instruction"] | None = None
    """How conversations are written: dialogs, or instruction and response. The document decides unless given."""
    template: dict[str, str] | None = None
    """``template.json`` of the instruction layout: a prompt and a completion, made of {instruction}, {context} and
    {response}."""
    hyperparameters: dict[str, str | int | float | bool] = {}
    """As the model's document names them; they win over the portable ones."""
    instance_type: Instance | None = None
    instance_count: PositiveInt | None = None
    volume_gb: PositiveInt | None = None
    spot: bool | None = None


class JumpStartDeployment(BaseModel):
    """Options of a deployment."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,50}$")] | None = None
    """Unless given, derived from the job."""
    instance_type: Instance | None = None
    """Else the one that the model's document names for inference."""
    instances: PositiveInt = 1
    min_copies: NonNegativeInt | None = None
    """Copies of the model that stay while nobody asks; more are made while many do, up to ``instances``. With 0 the
    endpoint lets all its instances go, costs nothing then, and wakes within minutes of a question."""
    requests_per_minute: PositiveFloat = 60.0
    """With ``min_copies``: what one copy is to answer before another is made."""
    cooldown: Annotated[int, Field(ge=0, le=86400)] = 300
    """With ``min_copies``: seconds between two steps down."""
    memory_mb: Annotated[int, Field(ge=128, le=3_000_000)] = 1024
    """With ``min_copies``: what is reserved of the machine's memory for each copy; it may use more."""
    accelerators: Annotated[int, Field(ge=0, le=16)] | None = None
    """With ``min_copies``: GPUs of each copy; else all that the instance has."""

    @model_validator(mode="after")
    def _fits_together(self) -> JumpStartDeployment:
        if self.min_copies is not None and self.min_copies > self.instances:
            raise ValueError(f"min_copies {self.min_copies} exceeds instances {self.instances}, the maximum")
        return self
