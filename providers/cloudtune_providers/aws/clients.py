"""botocore's clients: each is created once, at the first use, with the SDK's own retries disabled."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cloudtune.errors import CloudtuneError, ConfigError, InvalidResponse, JobNotFound, Unavailable
from cloudtune_providers.aws.errors import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloudtune_providers.aws.options import AwsOptions

    ClientFactory = Callable[[str], Any]

CONNECT_TIMEOUT_S = 10.0
POOL = 16
PRICE_LIST_REGION = "us-east-1"
"""AWS's price list is available in few regions, with the prices of all regions
(docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/using-price-list-query-api.html, seen 2026-11-21)."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_OWN_HOSTS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".on.aws")
_CREATING = threading.Lock()
"""Held while a client is created: botocore's loader is not safe while it loads."""


@cache
def service_models(data_path: str | None) -> Any:
    """Return the one loader of all sessions. It keeps what it reads, and no client changes that.

    ``data_path`` is the user's own folders of models, if there are any (AWS_DATA_PATH).
    """
    from botocore.loaders import create_loader

    return create_loader(data_path)


class Clients:
    """The clients of one back end, by service name. ``factory`` can create them (a Stubber's, moto's, a proxy's).

    Thread-safe.
    """

    def __init__(self, options: AwsOptions, factory: ClientFactory | None = None) -> None:
        self._options = options
        self._factory = factory
        self._lock = threading.RLock()
        self._session: Any = None
        self._made: dict[str, Any] = {}
        self._account: str | None = None

    def client(self, service: str) -> Any:
        """The client of a service. Raises ConfigError if there is no region."""
        with self._lock:
            if service not in self._made:
                with self.asking(f"the client of {service}"):
                    made = self._factory(service) if self._factory else self._make(service)
                    _guard(made)
                    self._made[service] = made
            return self._made[service]

    def _make(self, service: str) -> Any:
        from botocore.config import Config

        if self._session is None:
            self._session = self._new_session()
        config = Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=min(CONNECT_TIMEOUT_S, self._options.timeout),
            read_timeout=self._options.timeout,
            max_pool_connections=POOL,
            # Hosts such as bucket.127.0.0.1 do not exist.
            s3={"addressing_style": "path" if self._elsewhere() else "auto"},
            **({"auth_scheme_preference": "sigv4"} if service.startswith("bedrock") and self._must_sign() else {}),
        )
        region = PRICE_LIST_REGION if service == "pricing" else None
        with _CREATING:
            return self._session.create_client(
                service, region_name=region, endpoint_url=self._options.endpoint_url, config=config
            )

    def _new_session(self) -> Any:
        from botocore.session import Session

        session = Session(profile=self._options.profile)
        if region := self._options.region or os.environ.get("AWS_REGION"):
            session.set_config_variable("region", region)
        session.lazy_register_component("data_loader", lambda: service_models(session.get_config_variable("data_path")))
        return session

    def _must_sign(self) -> bool:
        """Return whether to sign Bedrock requests even if there is an API key, which botocore would send instead.

        botocore never sends the key over plain HTTP, and on loopback only a signature identifies the region.
        """
        named = self._options.endpoint_url or os.environ.get("AWS_ENDPOINT_URL") or ""
        return named.startswith("http://") or urlsplit(named).hostname in _LOOPBACK

    def _elsewhere(self) -> bool:
        named = (
            self._options.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        )
        return bool(named) and not _is_own(str(named))

    def close(self) -> None:
        """Close the connections of all clients; the next calls create new clients."""
        with self._lock:
            made, self._made, self._session = self._made, {}, None
        for client in made.values():
            client.close()

    @property
    def region(self) -> str:
        """The effective region. Raises ConfigError if there is none."""
        region = self.client("sts").meta.region_name
        if not region or region == "aws-global":
            raise ConfigError("no AWS region is set", hint="set region in the settings, or AWS_REGION")
        return str(region)

    def account(self) -> str:
        """The account's twelve digits from STS, requested once."""
        client = self.client("sts")
        if self._account is None:
            with self.asking("identity"):
                self._account = str(client.get_caller_identity()["Account"])
        return self._account

    def credentials(self) -> Any:
        """The current credentials, for requests without a botocore client. Raises CredentialsError."""
        from botocore.exceptions import NoCredentialsError

        with self.asking("credentials"):
            held = getattr(self.client("sts"), "_request_signer", None)
            found = getattr(held, "_credentials", None)
            if found is None:
                raise NoCredentialsError
            return found.get_frozen_credentials()

    @property
    def timeout(self) -> float:
        """Seconds to wait for a response."""
        return self._options.timeout

    def identity(self) -> dict[str, str]:
        """Return the identity of the credentials from STS."""
        with self.asking("identity"):
            response = self.client("sts").get_caller_identity()
        return {"account": str(response["Account"]), "arn": str(response.get("Arn", ""))}

    def scope(self) -> str:
        """Account and region, and the endpoint's host if it is not AWS's own: the scope of a `JobRef`."""
        host = urlsplit(self.elsewhere).netloc.rpartition("@")[2]
        place = f"{self.account()}/{self.region}"
        return f"{place}@{host}" if host else place

    @property
    def elsewhere(self) -> str:
        """The endpoint in settings, environment or profile, if it is not AWS's own; else empty."""
        url = self._options.endpoint_url or self._named_endpoint()
        return "" if _is_own(url) else url

    def address(self, service: str) -> str:
        """The endpoint of a service's client, also of an injected one, if it is not AWS's own; else empty."""
        url = str(self.client(service).meta.endpoint_url)
        return "" if _is_own(url) else url

    def _named_endpoint(self) -> str:
        """The endpoint in the environment or the profile; an injected client's is ignored here."""
        return "" if self._factory else str(self.client("sts").meta.endpoint_url)

    @property
    def is_loopback(self) -> bool:
        """Whether the endpoint is on this machine: an emulator."""
        named = self._options.endpoint_url or str(self.client("sts").meta.endpoint_url)
        return urlsplit(named).hostname in _LOOPBACK

    @contextmanager
    def asking(self, doing: str, *, missing: type[CloudtuneError] = JobNotFound) -> Iterator[None]:
        """Translate botocore's exceptions to cloudtune errors about ``doing``."""
        from botocore.eventstream import ParserError
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError
        from urllib3.exceptions import HTTPError

        try:
            yield
        except (BotoCoreError, ClientError, ResponseParserError) as error:
            raise translated(error, doing, missing=missing, secrets=self.secrets()) from error
        except CloudtuneError:
            raise
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            message = f"{doing}: unexpected response ({type(error).__name__}: {error})"
            raise InvalidResponse(message) from error
        except (HTTPError, ParserError) as error:  # botocore returns a response's stream directly from urllib3
            raise Unavailable(f"{doing}: the response was interrupted: {error}") from error

    def secrets(self) -> tuple[str, ...]:
        """Secret values that a service might repeat in a response; only credentials that are already loaded."""
        held = [getattr(made, "_request_signer", None) for made in self._made.values()]
        loaded = [getattr(signer, "_credentials", None) for signer in held]
        values = [getattr(c, name, None) for c in loaded for name in ("_secret_key", "secret_key", "_token", "token")]
        return tuple({value for value in values if isinstance(value, str) and len(value) > 3})


def _guard(client: Any) -> None:
    """Check every response before it is returned. An injected client need not be botocore's."""
    events = getattr(getattr(client, "meta", None), "events", None)
    if events is not None:
        events.register("after-call", _refuse_strangers, unique_id="cloudtune-refuse-strangers")


def _refuse_strangers(http_response: Any, parsed: dict[str, Any], model: Any, **_: Any) -> None:
    """Raise InvalidResponse if a response is not AWS's: botocore accepts any JSON, and a missing body."""
    if model.has_streaming_output or model.has_event_stream_output or http_response.status_code >= 300:
        return
    if http_response.raw is None:
        return  # botocore's Stubber responds without a body
    hint = "check that the endpoint is AWS, not a proxy's page"
    if http_response.content[:256].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise InvalidResponse(f"{model.name}: the response is a web page, not an API response", hint=hint)
    promised = model.output_shape.required_members if model.output_shape is not None else ()
    if promised and not any(name in parsed for name in promised):  # services temporarily omit some of them
        raise InvalidResponse(f"{model.name}: the response has none of the documented fields", hint=hint)


def _is_own(url: str) -> bool:
    return (urlsplit(url).hostname or "").endswith(_OWN_HOSTS)
