"""Settings of the Azure OpenAI back end, and its overrides in a spec.

Two planes with two credentials: files, jobs and inference use the resource's own endpoint (a key, or Entra);
deployments use Azure's management plane (Entra only).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    field_validator,
)

from cloudtune.config.option_types import Credential, Endpoint, Safe

if TYPE_CHECKING:
    from collections.abc import Mapping

Auto = Literal["auto"]


class AzureOpenAIOptions(BaseModel):
    """The resource and its credentials. Defaults come from the SDK's own environment variables."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    route: Safe[Literal["foundry", "ml_workspace"]] = "foundry"
    """``foundry``: models of an Azure OpenAI or Foundry resource. ``ml_workspace``: catalog models in an Azure Machine
    Learning workspace; it uses only the subscription and workspace settings below."""
    endpoint: Endpoint[str | None] = None
    """``https://<resource>.openai.azure.com``. Default: AZURE_OPENAI_ENDPOINT."""
    api: Safe[Literal["v1", "classic"]] = "v1"
    """``v1`` needs no version; ``classic`` needs ``api_version``."""
    api_version: Safe[str | None] = None
    """For ``classic``, e.g. ``2025-04-01-preview``. Default: OPENAI_API_VERSION."""
    api_key: Credential[SecretStr | None] = None
    """A reference such as ``${AZURE_OPENAI_API_KEY}``; this variable is also the default. Without a key: Entra."""
    auth: Credential[Literal["key", "entra"] | None] = None
    """The kind of credential. By default, a key is used if there is one."""
    training_type: Safe[str | None] = None
    """``Standard`` keeps data and weights in the region, ``GlobalStandard`` (the default) costs less and does not,
    ``developerTier`` can be interrupted."""
    subscription_id: Endpoint[str | None] = None
    """For deployments and workspaces. Default: AZURE_SUBSCRIPTION_ID."""
    resource_group: Endpoint[str | None] = None
    """For deployments and workspaces."""
    workspace: Endpoint[str | None] = None
    """The workspace's name, for ``ml_workspace``."""
    datastore: Endpoint[Annotated[str, Field(min_length=1)]] = "workspaceblobstore"
    """The workspace's blob store for rows. The workspace provides its URL."""
    storage_url: Endpoint[str | None] = None
    """The URL of that store's account, if not ``https://<account>.blob.core.windows.net``."""
    account: Endpoint[str | None] = None
    """The resource's name, for deployments. Default: the first part of the endpoint's host."""
    management_url: Endpoint[str] = "https://management.azure.com"
    management_token: Credential[SecretStr | None] = None
    """A reference to a token for the management plane. Default: a token from Entra."""
    base_deployment: Safe[str | None] = None
    """A deployment of the base model, to compare answers with."""
    timeout: Safe[PositiveFloat] = 60.0
    """Seconds to wait for a response; uploads get more, by their size."""
    list_lag: Safe[NonNegativeFloat] = 30.0
    """Seconds for which a new file or job can be missing from a list."""
    deploy_limit: Safe[PositiveFloat] = 3600.0
    """Seconds to wait for a deployment: some hang for a day and then fail."""
    answers: Safe[Literal["chat", "responses"]] = "chat"
    """The API for inference with a deployed model."""

    @field_validator("endpoint")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value is not None and urlsplit(value).scheme not in ("http", "https"):
            raise ValueError("an endpoint must look like https://<resource>.openai.azure.com")
        return value

    def address(self, environ: Mapping[str, str] | None = None) -> str:
        """The effective endpoint, without a path; empty if there is none."""
        environ = os.environ if environ is None else environ
        parts = urlsplit(self.endpoint or environ.get("AZURE_OPENAI_ENDPOINT") or "")
        return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""

    def scope(self, environ: Mapping[str, str] | None = None) -> str:
        """The endpoint's host: a resource's name is unique in Azure, a workspace's only within its group."""
        if self.route == "ml_workspace":
            subscription, group, _ = self.place(environ)
            return f"{subscription}/{group}/{self.workspace or ''}"
        return urlsplit(self.address(environ)).netloc or "no-endpoint"

    def key(self, environ: Mapping[str, str] | None = None) -> str | None:
        """The effective key, or None for Entra."""
        environ = os.environ if environ is None else environ
        if self.auth == "entra":
            return None
        return self.api_key.get_secret_value() if self.api_key else environ.get("AZURE_OPENAI_API_KEY") or None

    def place(self, environ: Mapping[str, str] | None = None) -> tuple[str, str, str]:
        """Subscription, resource group and account, empty if unknown."""
        environ = os.environ if environ is None else environ
        host = (urlsplit(self.address(environ)).hostname or "").partition(".")[0]
        subscription = self.subscription_id or environ.get("AZURE_SUBSCRIPTION_ID") or ""
        return subscription, self.resource_group or "", self.account or host


class AzureOpenAIDeployment(BaseModel):
    """Options of a deployment."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,63}$")] | None = None
    """2 to 64 letters, digits, dots and hyphens; default: derived from the model's name."""
    sku: Annotated[str, Field(min_length=1)] = "GlobalStandard"
    """GlobalStandard, Standard, DeveloperTier and others: determines the region and the hourly cost."""
    capacity: PositiveInt = 1
    """In thousand tokens per minute."""


class AzureOpenAIOverrides(BaseModel):
    """``overrides.azure_openai`` in a spec."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    learning_rate_multiplier: PositiveFloat | Auto | None = None
    """Multiplies a rate that is not published; 0.02 to 0.2 are recommended. Replaces ``learning_rate``."""
    n_epochs: PositiveInt | Auto | None = None
    """Replaces ``hyperparameters.epochs``."""
    batch_size: PositiveInt | Auto | None = None
    """Replaces ``hyperparameters.batch_size``."""
    suffix: Annotated[str, Field(min_length=1, max_length=18, pattern=r"^[^.]+$")] | None = None
    """Part of the tuned model's name: 18 characters and no dots. Default: the beginning of the job's name."""
    training_type: str | None = None
    """See the setting of that name."""
    grader: dict[str, Any] | None = None
    """For ``method: rft``: the grader, in the API's format."""
    reasoning_effort: Literal["default", "low", "medium", "high"] | None = None
    compute_multiplier: PositiveFloat | Auto | None = None
    eval_interval: PositiveInt | Auto | None = None
    eval_samples: PositiveInt | Auto | None = None
    hyperparameters: dict[str, str | int | float | bool] | None = None
    """With ``route: ml_workspace``: parameters of the model's training component."""
    compute: str | None = None
    """With ``route: ml_workspace``: a compute of the workspace. Default: serverless."""
    instance_types: list[str] | None = None
    """With ``route: ml_workspace``: machine types for the job."""
