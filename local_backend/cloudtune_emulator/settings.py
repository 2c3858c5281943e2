"""What an emulator is started with."""

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
    """What counts as an Entra token on the data and the management plane."""
    subscription: str = "00000000-0000-0000-0000-000000000000"
    resource_group: str = "emulated"
    account: str = "emulated"
    location: str = "swedencentral"
    aws_account: str = "123456789012"
    aws_region: str = "us-east-1"
    """Where the bucket lies, and where calls with a Bedrock API key belong."""
    aws_key: str = ""
    aws_secret: str = ""
    aws_bucket: str = "cloudtune-emulated"
    """A bucket that is there from the start; so is a role that Bedrock and SageMaker may take on."""
    aws_role: str = "cloudtune-emulated"
    sagemaker_quotas: dict[str, float] = {}
    """Quotas by name, e.g. ``ml.g5.2xlarge for training job usage``, over what the emulator has of itself."""
    bedrock_api_key: str = ""
    """What opens Bedrock without a signature (``AWS_BEARER_TOKEN_BEDROCK``)."""
    admin_token: str = ""
    """The bearer token of ``/_emulator``."""
    store: Path | None = None
    """A folder that keeps everything over a restart; None forgets it all at the end."""
    models: Path | None = None
    """Which local model stands for which of the vendor's (the ``train`` engine): a JSON file, see ``basemodels``."""
    processing_s: float = 0.0
    """How long a new file is ``uploaded`` (Azure: ``pending``) before it is ``processed``."""
    deploying_s: float = 2.0
    """How long an Azure or a Bedrock deployment is ``Creating``."""
    jobs_per_day: int | None = None
    requests_per_minute: int | None = None
