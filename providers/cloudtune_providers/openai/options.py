"""Settings of the OpenAI back end, and its overrides in a spec."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, SecretStr

from cloudtune.config.option_types import Credential, Endpoint, Safe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune_providers.openai.service import Service

DEFAULT_BASE_URL = "https://api.openai.com/v1"
Auto = Literal["auto"]


class OpenAIOptions(BaseModel):
    """The account and the URL. Defaults come from OpenAI's own environment variables."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    api_key: Credential[SecretStr | None] = None
    """A reference such as ``${OPENAI_API_KEY}``; the SDK reads that variable by itself."""
    base_url: Endpoint[str | None] = None
    """The base URL of the API, with its ``/v1``. Default: OPENAI_BASE_URL, else OpenAI's own."""
    service: Endpoint[str | None] = None
    """An OpenAI-compatible service: ``nebius``, or a JSON file with its address, parameters and limits."""
    organization: Safe[str | None] = None
    """Default: OPENAI_ORG_ID."""
    project: Safe[str | None] = None
    """Defaults to OPENAI_PROJECT_ID. Set it if you have several projects: it identifies the project of a job."""
    timeout: Safe[PositiveFloat] = 60.0
    """Seconds to wait for a response; uploads get more, by their size."""
    list_lag: Safe[NonNegativeFloat] = 30.0
    """Seconds for which a new file or job can be missing from a list."""
    parts_above: Safe[PositiveInt] = 100_000_000
    """Files larger than this many bytes are uploaded in parts."""
    answers: Safe[Literal["chat", "responses"]] = "chat"
    """The API for inference with a tuned model."""

    def profile(self) -> Service | None:
        """The profile of the service, if it is not OpenAI. Raises ConfigError."""
        from cloudtune_providers.openai.service import load_service

        return None if self.service is None else load_service(self.service)

    def address(self, environ: Mapping[str, str] | None = None) -> str:
        """The effective base URL."""
        environ = os.environ if environ is None else environ
        profile = self.profile()
        own = profile.base_url if profile else environ.get("OPENAI_BASE_URL")
        return (self.base_url or own or DEFAULT_BASE_URL).rstrip("/")

    def scope(self, environ: Mapping[str, str] | None = None) -> str:
        """Host, and the project or organization if one is named. The variables are about OpenAI only."""
        environ = os.environ if environ is None else environ
        account = self.project or self.organization or ""
        if not account and self.service is None:
            account = environ.get("OPENAI_PROJECT_ID") or environ.get("OPENAI_ORG_ID") or ""
        return f"{place_of(self.address(environ))}/{account}".rstrip("/")


class OpenAIOverrides(BaseModel):
    """``overrides.openai`` in a spec."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    learning_rate_multiplier: PositiveFloat | Auto | None = None
    """Multiplies a rate that OpenAI does not publish; replaces ``hyperparameters.learning_rate``."""
    n_epochs: PositiveInt | Auto | None = None
    """Replaces ``hyperparameters.epochs``."""
    batch_size: PositiveInt | Auto | None = None
    """Replaces ``hyperparameters.batch_size``."""
    suffix: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """Part of the tuned model's name. Default: the job's name."""
    integrations: list[dict[str, Any]] | None = None
    """Integrations in the format of OpenAI's API; only Weights and Biases."""


def place_of(url: str) -> str:
    """Host, with its port and path if they are not the default."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    return f"{parts.netloc.rpartition('@')[2]}{'' if path == '/v1' else path}"
