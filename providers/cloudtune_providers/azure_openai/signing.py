"""The clients of the two planes, and how they sign in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cloudtune.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    import openai
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

    more: dict[str, Any] = {"retry_total": 0, "base_url": options.management_url}
    credential: Any
    if options.management_token is not None:
        credential = _Given(options.management_token.get_secret_value())
        parts = urlsplit(options.management_url)
        if parts.scheme == "http" and parts.hostname in _LOOPBACK:
            more["authentication_policy"] = _bearer(credential.token)  # azure-core refuses tokens without TLS
    else:
        from azure.identity import DefaultAzureCredential

        credential = DefaultAzureCredential()
    return CognitiveServicesManagementClient(credential, options.place()[0], **more)


class _Given:
    """A token that somebody else got."""

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
            request.http_request.headers["Authorization"] = f"Bearer {token}"

    return Bearer()
