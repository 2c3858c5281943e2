"""Settings of the Bedrock back end, and its overrides in a spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from cloudtune.config.option_types import Endpoint, Protection, Safe
from cloudtune_providers.aws.options import AwsOptions

Lambda = Annotated[str, Field(pattern=r"arn:aws[a-z-]*:lambda:[a-z0-9-]+:\d{12}:function:.+")]


class BedrockOptions(AwsOptions):
    """Account, region, bucket and role."""

    deploy_limit: Safe[PositiveFloat] = 3600.0
    """Seconds to wait until a deployment is ready."""
    base_answers_as: Safe[str | None] = None
    """The base model for comparisons: an id or the ARN of an inference profile, if its own id is not available on
    demand."""
    answers: Safe[Literal["converse", "invoke"]] = "converse"
    """The API for inference: Converse, or InvokeModel with chat messages (imported Qwen3 supports only this)."""
    open_weight_url: Endpoint[str | None] = None
    """The URL of the OpenAI-compatible API that tunes open-weight models, with its ``/v1``. Default: the region's
    own ``bedrock-mantle`` URL. Its key comes from AWS_BEARER_TOKEN_BEDROCK."""
    subnets: Protection[Annotated[tuple[str, ...], Field(max_length=16)]] = ()
    """Subnets of the VPC through which jobs reach the bucket; together with ``security_groups``."""
    security_groups: Protection[Annotated[tuple[str, ...], Field(max_length=5)]] = ()


class BedrockOverrides(BaseModel):
    """``overrides.bedrock`` in a spec."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    hyperparameters: dict[str, str | int | float] = {}
    """Hyperparameters by Bedrock's names; they override the portable ones. Numbers are sent as strings, as required."""
    batch_size: PositiveInt | None = None
    """``batchSize``; Nova has none, Llama only 1, reinforcement 16 to 512."""
    learning_rate_multiplier: PositiveFloat | None = None
    """Reinforcement of open-weight models, whose API has no rate: multiplies a rate that is not published."""
    model_name: Annotated[str, Field(pattern=r"^([0-9a-zA-Z][_-]?){1,63}$")] | None = None
    """``customModelName``. Default: the job's name."""
    teacher: str | None = None
    """Distillation: the teacher model, as an id or an inference profile's ARN."""
    teacher_max_tokens: PositiveInt | None = None
    """Distillation: maximum length of its answers."""
    grader: Lambda | None = None
    """Reinforcement: ARN of the Lambda function that grades answers."""
    max_prompt_length: PositiveInt | None = None
    """Reinforcement: ``maxPromptLength``."""
    samples_per_prompt: PositiveInt | None = None
    """Reinforcement: ``trainingSamplePerPrompt``, 2 to 16."""
    inference_max_tokens: PositiveInt | None = None
    """Reinforcement: ``inferenceMaxTokens``."""
    reasoning_effort: Literal["low", "medium", "high"] | None = None
    """Reinforcement: ``reasoningEffort``."""
    eval_interval: PositiveInt | None = None
    """Reinforcement: ``evalInterval``, 1 to 100."""


class BedrockDeployment(BaseModel):
    """Options of a deployment."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: Annotated[str, Field(pattern=r"^([0-9a-zA-Z][_-]?){1,63}$")] | None = None
    """Default: derived from the model."""
    kind: Literal["on_demand", "provisioned"] = "on_demand"
    """``on_demand`` is billed by the token; ``provisioned`` by the hour, also when idle, and needs ``agree=true``."""
    units: PositiveInt = 1
    """Model units of provisioned throughput."""
    commitment: Literal["none", "OneMonth", "SixMonths"] = "none"
    """Provisioned throughput cannot be deleted before its commitment ends."""
    agree: bool = False
    """Agree that provisioned throughput is billed by the hour from its creation."""
    update: bool = False
    """Switch the existing deployment with that name to this model."""
