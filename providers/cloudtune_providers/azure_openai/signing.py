"""The clients of the two planes, and their credentials."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cloudtune.errors import ConfigError, Problem
from cloudtune_providers.openai_dialect.sdk_client import http_client

if TYPE_CHECKING:
    from collections.abc import Callable

    import openai
    from azure.ai.ml import MLClient
    from azure.core.pipeline.transport import RequestsTransport
    from azure.identity import DefaultAzureCredential
    from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient

    from cloudtune_providers.azure_openai.options import AzureOpenAIOptions

DATA_SCOPE = "https://cognitiveservices.azure.com/.default"
_FOR_EVER = 32503680000  # the year 3000: the token's own end is not known here
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class SignIn:
    """The credential of Azure's default chain: created once, at the first use, for all clients of a back end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._credential: DefaultAzureCredential | None = None

    @property
    def credential(self) -> DefaultAzureCredential:
        """Makes no request until a token is needed."""
        from azure.identity import DefaultAzureCredential

        with self._lock:
            if self._credential is None:
                self._credential = DefaultAzureCredential()
            return self._credential

    def close(self) -> None:
        """Close its connections."""
        with self._lock:
            credential, self._credential = self._credential, None
        if credential is not None:
            credential.close()


def connected(options: AzureOpenAIOptions, sign_in: SignIn | None = None) -> openai.OpenAI:
    """The data plane's client: for v1 the plain one, which accepts a key or a token; else Azure's own."""
    import openai

    address = options.address()
    if not address:
        raise ConfigError([Problem(code="setting", field="backends.azure_openai.endpoint", message="it is not set")])
    key: Any = options.key()
    common: dict[str, Any] = {"timeout": options.timeout, "max_retries": 0, "http_client": http_client()}
    if options.api == "v1":
        return openai.OpenAI(base_url=f"{address}/openai/v1/", api_key=key or _tokens(sign_in or SignIn()), **common)
    # An explicit credential overrides AZURE_OPENAI_AD_TOKEN, which would otherwise override the key.
    signed: dict[str, Any] = {"api_key": key} if key else {"azure_ad_token_provider": _tokens(sign_in or SignIn())}
    return openai.AzureOpenAI(azure_endpoint=address, api_version=options.api_version, **signed, **common)


def _tokens(sign_in: SignIn) -> Callable[[], str]:
    from azure.identity import get_bearer_token_provider

    return get_bearer_token_provider(sign_in.credential, DATA_SCOPE)


def managed(options: AzureOpenAIOptions, sign_in: SignIn | None = None) -> CognitiveServicesManagementClient:
    """The management plane's client, with the SDK's retries disabled."""
    from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient

    credential, more = _credential(options, options.management_url, sign_in or SignIn())
    return CognitiveServicesManagementClient(
        credential,
        options.place()[0],
        retry_total=0,
        base_url=options.management_url,
        transport=closing_transport(options.timeout),
        permit_redirects=False,
        **more,
    )


def workspace_client(options: AzureOpenAIOptions, sign_in: SignIn | None = None) -> MLClient:
    """azure-ai-ml's client, with the SDK's retries and telemetry disabled; `close_workspace` closes it."""
    from azure.ai.ml import MLClient

    url = os.environ.get("AZUREML_DEV_URL_MFE", "")  # the SDK's own switch
    credential, more = _credential(options, url, sign_in or SignIn())
    subscription, group, _ = options.place()
    return MLClient(
        credential, subscription, group, options.workspace, enable_telemetry=False, show_progress=False, retry_total=0,
        transport=closing_transport(options.timeout), permit_redirects=False, **more,
    )  # fmt: skip


def closing_transport(timeout: float) -> RequestsTransport:
    """A transport whose `close` closes all its connections.

    The SDK's own `close` only drops the connection pools: a pool closes its connections once Python collects it.
    """
    from azure.core.pipeline.transport import RequestsTransport

    class ClosingTransport(RequestsTransport):  # type: ignore[misc]
        def close(self) -> None:
            for adapter in self.session.adapters.values() if self.session else ():
                pools = adapter.poolmanager.pools
                for key in pools.keys():  # noqa: SIM118 - the container cannot be iterated
                    pools[key].close()
            super().close()

    return ClosingTransport(connection_timeout=timeout, read_timeout=timeout)


def close_workspace(client: MLClient) -> None:
    """Close the transport that all parts of a client of `workspace_client` share: the SDK's client has no `close`."""
    client._requests_pipeline._transport.close()


def _credential(options: AzureOpenAIOptions, url: str, sign_in: SignIn) -> tuple[Any, dict[str, Any]]:
    """The credential for the management plane at that URL, and further arguments for its client."""
    if options.management_token is None:
        return sign_in.credential, {}
    credential = _Given(options.management_token.get_secret_value())
    parts = urlsplit(url)
    is_plain = parts.scheme == "http" and parts.hostname in _LOOPBACK  # azure-core refuses tokens without TLS
    return credential, {"authentication_policy": _bearer(credential.token)} if is_plain else {}


class _Given:
    """An externally obtained token."""

    def __init__(self, token: str) -> None:
        self.token = token

    def get_token(self, *scopes: str, **_: Any) -> Any:
        """The method that azure-core calls."""
        from azure.core.credentials import AccessToken

        return AccessToken(self.token, _FOR_EVER)


def _bearer(token: str) -> Any:
    from azure.core.pipeline.policies import SansIOHTTPPolicy

    class Bearer(SansIOHTTPPolicy):  # type: ignore[type-arg]
        def on_request(self, request: Any) -> None:
            request.context.options.pop("enforce_https", None)  # for the policy that this one replaces
            request.http_request.headers["Authorization"] = f"Bearer {token}"

    return Bearer()
