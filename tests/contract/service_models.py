"""AWS's service models, each read from botocore's files once in a process, whatever number of sessions is made."""

from __future__ import annotations

import boto3
import botocore.session

from cloudtune_providers.aws.clients import service_models

SHARE_SERVICE_MODELS = f"{__name__}:share_service_models"


def share_service_models() -> None:
    """Let all sessions have one loader, which keeps what it has read; read what most clients need now."""
    botocore.session.create_loader = service_models
    for service in ("bedrock", "s3", "sagemaker", "sts"):
        boto3.session.Session("nobody", "nothing").client(service, "us-east-1")
