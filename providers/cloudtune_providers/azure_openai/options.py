"""Settings of the Azure OpenAI back end, and what a spec may say to it in its own words.

Two planes with two credentials: files, jobs and answers go to the resource's own endpoint (a key, or Entra);
deployments are made through Azure's management plane (Entra only).
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
    """Which resource, and how to sign in. What is left out comes from the SDK's own environment variables."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    route: Safe[Literal["foundry", "ml_workspace"]] = "foundry"
    """``foundry``: models of an Azure OpenAI or Foundry resource. ``ml_workspace``: catalog models in an Azure Machine
    Learning workspace; it uses only the subscription and workspace settings below."""
    endpoint: Endpoint[str | None] = None
    """``https://<resource>.openai.azure.com``; else AZURE_OPENAI_ENDPOINT."""
    api: Safe[Literal["v1", "classic"]] = "v1"
    """``v1`` needs no version; ``classic`` needs ``api_version``."""
    api_version: Safe[str | None] = None
    """For ``classic``, e.g. ``2025-04-01-preview``; else OPENAI_API_VERSION."""
    api_key: Credential[SecretStr | None] = None
    """A reference such as ``${AZURE_OPENAI_API_KEY}``; the variable is read anyway. Without a key: Entra."""
    auth: Credential[Literal["key", "entra"] | None] = None
    """Which of the two; a key is used where there is one, unless this says otherwise."""
    training_type: Safe[str | None] = None
    """``Standard`` keeps data and weights in the region, ``GlobalStandard`` (used if nothing is said) costs less and
    does not, ``developerTier`` may be interrupted."""
    subscription_id: Endpoint[str | None] = None
    """For deployments and workspaces; else AZURE_SUBSCRIPTION_ID."""
    resource_group: Endpoint[str | None] = None
    """For deployments and workspaces."""
    workspace: Endpoint[str | None] = None
    """The workspace's name, for ``ml_workspace``."""
    datastore: Endpoint[Annotated[str, Field(min_length=1)]] = "workspaceblobstore"
    """The workspace's blob store for rows. The workspace provides its address."""
    storage_url: Endpoint[str | None] = None
    """Where that store's account answers, if not at ``https://<account>.blob.core.windows.net``."""
    account: Endpoint[str | None] = None
    """The resource's name, for deployments; else the first part of the endpoint's host."""
    management_url: Endpoint[str] = "https://management.azure.com"
    management_token: Credential[SecretStr | None] = None
    """A reference to a token for the management plane; without it Entra gives one."""
    base_deployment: Safe[str | None] = None
    """A deployment of the base model, to compare answers with."""
    timeout: Safe[PositiveFloat] = 60.0
    """Seconds to wait for an answer; uploads get more, by their size."""
    list_lag: Safe[NonNegativeFloat] = 30.0
    """Seconds for which a new file or job may be missing from a list: absence is not believed before."""
    deploy_limit: Safe[PositiveFloat] = 3600.0
    """Seconds to wait for a deployment: some hang for a day and fail then."""
    answers: Safe[Literal["chat", "responses"]] = "chat"
    """Which API a deployed model is asked through."""

    @field_validator("endpoint")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value is not None and urlsplit(value).scheme not in ("http", "https"):
            raise ValueError("an endpoint must look like https://<resource>.openai.azure.com")
        return value

    def address(self, environ: Mapping[str, str] | None = None) -> str:
        """The endpoint in force, without a path; empty if there is none."""
        environ = os.environ if environ is None else environ
        parts = urlsplit(self.endpoint or environ.get("AZURE_OPENAI_ENDPOINT") or "")
        return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""

    def scope(self, environ: Mapping[str, str] | None = None) -> str:
        """The endpoint's host: a resource's name is its own all over Azure. A workspace's is that of its group only."""
        if self.route == "ml_workspace":
            subscription, group, _ = self.place(environ)
            return f"{subscription}/{group}/{self.workspace or ''}"
        return urlsplit(self.address(environ)).netloc or "no-endpoint"

    def key(self, environ: Mapping[str, str] | None = None) -> str | None:
        """The key in force, or None for Entra."""
        environ = os.environ if environ is None else environ
        if self.auth == "entra":
            return None
        return self.api_key.get_secret_value() if self.api_key else environ.get("AZURE_OPENAI_API_KEY") or None

    def place(self, environ: Mapping[str, str] | None = None) -> tuple[str, str, str]:
        """Subscription, resource group and account, empty where not known."""
        environ = os.environ if environ is None else environ
        host = (urlsplit(self.address(environ)).hostname or "").partition(".")[0]
        subscription = self.subscription_id or environ.get("AZURE_SUBSCRIPTION_ID") or ""
        return subscription, self.resource_group or "", self.account or host


class AzureOpenAIDeployment(BaseModel):
    """Options of a deployment."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,63}$")] | None = None
    """2 to 64 letters, digits, dots and hyphens; derived from the model's name unless given."""
    sku: Annotated[str, Field(min_length=1)] = "GlobalStandard"
    """GlobalStandard, Standard, DeveloperTier and others: where it is computed, and what an hour costs."""
    capacity: PositiveInt = 1
    """In thousand tokens a minute."""


class AzureOpenAIOverrides(BaseModel):
    """``overrides.azure_openai`` in a spec."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    learning_rate_multiplier: PositiveFloat | Auto | None = None
    """Multiplies a rate that is not published; 0.02 to 0.2 are advised. Takes the place of ``learning_rate``."""
    n_epochs: PositiveInt | Auto | None = None
    """Takes the place of ``hyperparameters.epochs``."""
    batch_size: PositiveInt | Auto | None = None
    """Takes the place of ``hyperparameters.batch_size``."""
    suffix: Annotated[str, Field(min_length=1, max_length=18, pattern=r"^[^.]+$")] | None = None
    """Part of the tuned model's name: 18 characters and no dots; the beginning of the job's name unless given."""
    training_type: str | None = None
    """See the setting of that name."""
    grader: dict[str, Any] | None = None
    """For ``method: rft``: the grader, as the API takes it."""
    reasoning_effort: Literal["default", "low", "medium", "high"] | None = None
    compute_multiplier: PositiveFloat | Auto | None = None
    eval_interval: PositiveInt | Auto | None = None
    eval_samples: PositiveInt | Auto | None = None
    hyperparameters: dict[str, str | int | float | bool] | None = None
    """By ``route: ml_workspace``: as the model's training component names and takes them."""
    compute: str | None = None
    """By ``route: ml_workspace``: a compute of the workspace; serverless unless given."""
    instance_types: list[str] | None = None
    """By ``route: ml_workspace``: machines that the job may run on."""
