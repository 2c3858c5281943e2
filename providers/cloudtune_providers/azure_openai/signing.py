"""The clients of the two planes, and how they sign in."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cloudtune.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    import openai
    from azure.ai.ml import MLClient
    from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient

    from cloudtune_providers.azure_openai.options import AzureOpenAIOptions

DATA_SCOPE = "https://cognitiveservices.azure.com/.default"
_FOR_EVER = 32503680000  # the year 3000: the token's own end is not known here
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def connected(options: AzureOpenAIOptions) -> openai.OpenAI:
    """The data plane's client: by v1 the plain one, which takes key and token alike; else Azure's own."""
    import openai

    address = options.address()
    if not address:
        raise ConfigError([Problem(code="setting", field="backends.azure_openai.endpoint", message="it is not set")])
    key: Any = options.key()
    common: dict[str, Any] = {"timeout": options.timeout, "max_retries": 0}
    if options.api == "v1":
        return openai.OpenAI(base_url=f"{address}/openai/v1/", api_key=key or _tokens(), **common)
    # An explicit credential wins over AZURE_OPENAI_AD_TOKEN, which would otherwise win over the key.
    signed: dict[str, Any] = {"api_key": key} if key else {"azure_ad_token_provider": _tokens()}
    return openai.AzureOpenAI(azure_endpoint=address, api_version=options.api_version, **signed, **common)


def _tokens() -> Callable[[], str]:
    from azure.identity import DefaultAzureCredential, get_bearer_token_provider

    return get_bearer_token_provider(DefaultAzureCredential(), DATA_SCOPE)


def managed(options: AzureOpenAIOptions) -> CognitiveServicesManagementClient:
    """The management plane's client, with the SDK's retries switched off."""
    from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient

    credential, more = _credential(options, options.management_url)
    return CognitiveServicesManagementClient(
        credential, options.place()[0], retry_total=0, base_url=options.management_url, **more
    )


def workspace_client(options: AzureOpenAIOptions) -> MLClient:
    """azure-ai-ml's client, with the SDK's retries and telemetry switched off."""
    from azure.ai.ml import MLClient

    credential, more = _credential(options, os.environ.get("AZUREML_DEV_URL_MFE", ""))  # the SDK's own switch
    subscription, group, _ = options.place()
    return MLClient(
        credential, subscription, group, options.workspace, enable_telemetry=False, show_progress=False, retry_total=0,
        connection_timeout=options.timeout, read_timeout=options.timeout, **more,
    )  # fmt: skip


def _credential(options: AzureOpenAIOptions, url: str) -> tuple[Any, dict[str, Any]]:
    """Return the credential for the management plane at that address, and extra arguments of its client."""
    if options.management_token is None:
        from azure.identity import DefaultAzureCredential

        return DefaultAzureCredential(), {}
    credential = _Given(options.management_token.get_secret_value())
    parts = urlsplit(url)
    is_plain = parts.scheme == "http" and parts.hostname in _LOOPBACK  # azure-core refuses tokens without TLS
    return credential, {"authentication_policy": _bearer(credential.token)} if is_plain else {}


class _Given:
    """An externally obtained token."""

    def __init__(self, token: str) -> None:
        self.token = token

    def get_token(self, *scopes: str, **_: Any) -> Any:
        """As azure-core asks for it."""
        from azure.core.credentials import AccessToken

        return AccessToken(self.token, _FOR_EVER)


def _bearer(token: str) -> Any:
    from azure.core.pipeline.policies import SansIOHTTPPolicy

    class Bearer(SansIOHTTPPolicy):  # type: ignore[type-arg]
        def on_request(self, request: Any) -> None:
            request.context.options.pop("enforce_https", None)  # meant for the policy that this one replaces
            request.http_request.headers["Authorization"] = f"Bearer {token}"

    return Bearer()
