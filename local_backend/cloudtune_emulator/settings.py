"""Settings of an emulator."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

EngineName = Literal["script", "train"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Accounts, limits and the engine.

    An empty credential is generated when the emulator starts, see ``credentials``.
    """

    engine: EngineName = "script"
    api_key: str = ""
    organization: str = "org-emulated"
    azure_key: str = ""
    azure_token: str = ""
    """The Entra token of the data plane and the management plane."""
    subscription: str = "00000000-0000-0000-0000-000000000000"
    resource_group: str = "emulated"
    account: str = "emulated"
    location: str = "swedencentral"
    aws_account: str = "123456789012"
    aws_region: str = "us-east-1"
    """The region of the bucket, and of calls with a Bedrock API key."""
    aws_key: str = ""
    aws_secret: str = ""
    aws_bucket: str = "cloudtune-emulated"
    """The initial bucket. There is also an initial role that Bedrock and SageMaker can assume."""
    aws_role: str = "cloudtune-emulated"
    sagemaker_quotas: dict[str, float] = {}
    """Quotas by name, e.g. ``ml.g5.2xlarge for training job usage``, in addition to the emulator's defaults."""
    bedrock_api_key: str = ""
    """The key for Bedrock without a signature (``AWS_BEARER_TOKEN_BEDROCK``)."""
    admin_token: str = ""
    """The bearer token of ``/_emulator``."""
    store: Path | None = None
    """The folder that persists all state over a restart; with None, state is lost at the end."""
    models: Path | None = None
    """The local models used in place of the vendors' (``train`` engine): a JSON file, see ``base_models``."""
    service: Path | None = None
    """The profile of an OpenAI-compatible service: OpenAI's API is served in its dialect, see ``openai.compatible``."""
    processing_s: float = 0.0
    """How long a new file is ``uploaded`` (Azure: ``pending``) before it is ``processed``."""
    deploying_s: float = 2.0
    """How long an Azure or a Bedrock deployment is ``Creating``."""
    jobs_per_day: int | None = None
    requests_per_minute: int | None = None
