"""Settings of the Bedrock back end, and what a spec may say to it in its own words."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from cloudtune.config.option_types import Endpoint, Protection, Safe
from cloudtune_providers.aws.options import AwsOptions

Lambda = Annotated[str, Field(pattern=r"arn:aws[a-z-]*:lambda:[a-z0-9-]+:\d{12}:function:.+")]


class BedrockOptions(AwsOptions):
    """Which account, region, bucket and role."""

    deploy_limit: Safe[PositiveFloat] = 3600.0
    """Seconds to wait until a deployment answers."""
    base_answers_as: Safe[str | None] = None
    """What the base model is asked by, to compare: an id or the ARN of an inference profile, where its own id does not
    answer on demand."""
    answers: Safe[Literal["converse", "invoke"]] = "converse"
    """How a model is asked: by Converse, or by InvokeModel with chat messages (imported Qwen3 takes no other)."""
    open_weight_url: Endpoint[str | None] = None
    """The address of the OpenAI-compatible API that tunes open-weight models, with its ``/v1``. Default: the region's
    own ``bedrock-mantle`` address. Its key comes from AWS_BEARER_TOKEN_BEDROCK."""
    subnets: Protection[Annotated[tuple[str, ...], Field(max_length=16)]] = ()
    """Of the VPC that jobs reach the bucket through; together with ``security_groups``."""
    security_groups: Protection[Annotated[tuple[str, ...], Field(max_length=5)]] = ()


class BedrockOverrides(BaseModel):
    """``overrides.bedrock`` in a spec."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    hyperparameters: dict[str, str | int | float] = {}
    """As Bedrock names them; they win over the portable ones. Numbers are sent as the strings that Bedrock wants."""
    batch_size: PositiveInt | None = None
    """``batchSize``; Nova takes none, Llama only 1, reinforcement 16 to 512."""
    learning_rate_multiplier: PositiveFloat | None = None
    """Reinforcement of open-weight models, whose API takes no rate: multiplies one that it does not publish."""
    model_name: Annotated[str, Field(pattern=r"^([0-9a-zA-Z][_-]?){1,63}$")] | None = None
    """``customModelName``; the job's own name unless given."""
    teacher: str | None = None
    """Distillation: the teacher model, as an id or an inference profile's ARN."""
    teacher_max_tokens: PositiveInt | None = None
    """Distillation: how long those answers may be."""
    grader: Lambda | None = None
    """Reinforcement: ARN of the Lambda function that says how good an answer is."""
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
    """Unless given, derived from the model."""
    kind: Literal["on_demand", "provisioned"] = "on_demand"
    """``on_demand`` costs by the token; ``provisioned`` by the hour, idle too, and wants ``agree=true``."""
    units: PositiveInt = 1
    """Model units of provisioned throughput."""
    commitment: Literal["none", "OneMonth", "SixMonths"] = "none"
    """Provisioned throughput cannot be deleted before its commitment ends."""
    agree: bool = False
    """That provisioned throughput costs by the hour from the moment it is made."""
    update: bool = False
    """Switch the existing deployment with that name to this model."""
