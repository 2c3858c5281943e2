"""The emulator's server: starts, stops, and returns the environment variables that point a client at it."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, Self

from cloudtune.errors import ConfigError
from cloudtune.install_command import install_command
from cloudtune_emulator import credentials
from cloudtune_emulator.admin_api import TOKEN_VARIABLE, census
from cloudtune_emulator.app import App
from cloudtune_emulator.aws.moto_app import MotoApp
from cloudtune_emulator.azure import storage
from cloudtune_emulator.clock import EmulatorClock
from cloudtune_emulator.context import EmulatorContext
from cloudtune_emulator.engines import ScriptEngine
from cloudtune_emulator.faults import Faults
from cloudtune_emulator.http_server import HttpServer, Limits
from cloudtune_emulator.sagemaker import hub, logs
from cloudtune_emulator.sagemaker.engines import ScriptTrainer
from cloudtune_emulator.settings import Settings
from cloudtune_emulator.settlement import Ticker, settle
from cloudtune_emulator.store import Store

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from cloudtune.clock import Clock
    from cloudtune_emulator.engines import Engine
    from cloudtune_emulator.job_timeline import Script
    from cloudtune_emulator.sagemaker.engines import Trainer

_BACKLOG = 1024
_SHORTEST_KEY = 16
_TRUST = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
"""The CA variables of OpenSSL and Python, requests (azure-core), botocore, curl and Node."""

_OURS = "CLOUDTUNE_BACKENDS__AZURE_OPENAI__"
_BEDROCK_KEY = "AWS_BEARER_TOKEN_BEDROCK"


class Emulator:
    """A server with its store and its engine. As a context manager it starts a thread, and stops it at the end.

    ``port`` 0 picks a free one. ``clock`` is the source of time (e.g. a test's fake clock) and ``scale`` its speed: 0
    pauses the clock until ``emulator.clock.advance``. ``tls`` serves https, with a CA created for this server.
    ``limits`` are the limits on HTTP clients.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        engine: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Clock | None = None,
        scale: float = 1.0,
        beyond_loopback: bool = False,
        tls: bool = False,
        limits: Limits | None = None,
    ) -> None:
        given = settings or Settings(engine="script" if engine is None else engine)  # type: ignore[arg-type]
        if not is_loopback(host):
            check_exposure(host, given, allowed=beyond_loopback, tls=tls)
        self.settings = given
        if self.settings.engine == "train" and scale != 1:
            raise ConfigError("--speed applies to the script engine only")
        self.clock = EmulatorClock(clock, scale=scale)
        self.faults = Faults()
        with ExitStack() as opened:
            listening = opened.enter_context(_listen(host, port))
            self._host, self._port = host, listening.getsockname()[1]
            self.store = opened.enter_context(closing(Store(given.store)))
            self.settings = credentials.complete(given)
            self.clock.reach(self.store.moment)
            self._engine = opened.enter_context(closing(_engine(self.settings, self.store)))
            around = opened.enter_context(closing(MotoApp(self.settings, self.store.alone, _buckets(self.store))))
            trainer = opened.enter_context(closing(_trainer(self.settings, self.store)))
            self.context = EmulatorContext(
                self.settings, self.clock, self.store, self._engine, self.faults, around, trainer
            )
            around.prepare = lambda: _fill_aws(self.context)
            self.app = App(self.context, host)
            self._trusted = self.store.folder / "authority.pem" if tls else None
            context = None if self._trusted is None else _tls(host, self._trusted)
            self.http = HttpServer(self.app, listening, limits=limits, tls=context)
            if self.settings.engine == "train":
                opened.enter_context(closing(Ticker(self.context)))
            opened.callback(self.http.stop)
            self._opened = opened.pop_all()

    @property
    def url(self) -> str:
        """The server's URL, without a path."""
        host, port = self._host, self._port
        scheme = "http" if self._trusted is None else "https"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    @property
    def openai_url(self) -> str:
        """``OPENAI_BASE_URL``."""
        return f"{self.url}/v1"

    @property
    def script(self) -> Script:
        """The script of jobs created from now on; can be set."""
        return self._scripted().script

    @script.setter
    def script(self, script: Script) -> None:
        self._scripted().script = script

    def _scripted(self) -> ScriptEngine:
        if not isinstance(self._engine, ScriptEngine):
            raise TypeError("the train engine has no script")
        return self._engine

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The requests, oldest first: call, body, status, whether it was executed."""
        return list(self.app.seen)

    def census(self) -> dict[str, Any]:
        """The number of resources of each kind in the store."""
        self.settle()
        return census(self.context)

    def leaks(self) -> dict[str, int]:
        """The number of resources of each kind that a vendor would bill by the hour until they are deleted."""
        found = self.census()
        counts = {"deployments": found["deployments"], "endpoints": found["sagemaker"]["endpoints"]}
        counts |= {kind: found["bedrock"][kind] for kind in ("custom_deployments", "provisioneds")}
        return {kind: count for kind, count in counts.items() if count}

    def settle(self) -> None:
        """Record all state changes until now. Requests do this; call it before reading the store directly."""
        settle(self.context, self.clock.now())

    def environment(self) -> dict[str, str]:
        """The environment variables that point the vendors' clients at this emulator."""
        settings = self.settings
        trust = {} if self._trusted is None else dict.fromkeys(_TRUST, str(self._trusted))
        return (
            trust
            | {
                TOKEN_VARIABLE: settings.admin_token,
                "OPENAI_BASE_URL": self.openai_url,
                "OPENAI_API_KEY": settings.api_key,
                "AZURE_OPENAI_ENDPOINT": self.url,
                "AZURE_OPENAI_API_KEY": settings.azure_key,
                "OPENAI_API_VERSION": "2025-04-01-preview",
                "AZURE_SUBSCRIPTION_ID": settings.subscription,
                "AZUREML_DEV_URL_MFE": self.url,  # azure-ai-ml's own switch, which allows plain http
                # Azure's SDKs have no variables for the management plane, so these are cloudtune's settings.
                f"{_OURS}MANAGEMENT_URL": self.url,
                f"{_OURS}MANAGEMENT_TOKEN": settings.azure_token,
                f"{_OURS}RESOURCE_GROUP": settings.resource_group,
                f"{_OURS}ACCOUNT": settings.account,
                f"{_OURS}WORKSPACE": "emulated",  # any name is accepted
                f"{_OURS}STORAGE_URL": f"{self.url}{storage.ROOT}{settings.account}",
            }
            | self._aws()
        )

    def _aws(self) -> dict[str, str]:
        settings = self.settings
        role = f"arn:aws:iam::{settings.aws_account}:role/{settings.aws_role}"
        # Scripts read the bucket and the role from the last two variables; cloudtune's back ends use settings.
        backend_settings = {
            f"CLOUDTUNE_BACKENDS__{name}__{field}": value
            for name in ("BEDROCK", "SAGEMAKER", "JUMPSTART")
            for field, value in (("BUCKET", settings.aws_bucket), ("ROLE_ARN", role))
        }
        # boto3 sends this key instead of a signature, and over TLS only: without TLS it would break every call.
        by_key = {} if self._trusted is None else {_BEDROCK_KEY: settings.bedrock_api_key}
        return (
            backend_settings
            | by_key
            | {
                "AWS_ENDPOINT_URL": self.url,
                "AWS_ACCESS_KEY_ID": settings.aws_key,
                "AWS_SECRET_ACCESS_KEY": settings.aws_secret,
                "AWS_DEFAULT_REGION": settings.aws_region,
                "AWS_EC2_METADATA_DISABLED": "true",  # clients must not look for other credentials
                "EMULATED_BUCKET": settings.aws_bucket,
                "EMULATED_ROLE": role,
            }
        )

    def remarks(self) -> tuple[str, ...]:
        """Other settings, one per line, with their purpose."""
        if self._trusted is not None:
            return ()
        key = f"{_BEDROCK_KEY}={self.settings.bedrock_api_key}"
        what = "authenticates OpenAI's SDK and cloudtune with Bedrock's OpenAI-compatible API"
        return (f"{key} {what}; do not set it for boto3, which sends it over TLS only (--tls)",)

    def start(self) -> Self:
        """Serve from a thread."""
        self.http.start()
        return self

    def stop(self) -> None:
        """Stop listening and release all resources. Idempotent."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


def _fill_aws(context: EmulatorContext) -> None:
    """Create AWS-owned resources, which moto does not save."""
    hub.seed_caches(context)
    logs.restore(context)


def _buckets(store: Store) -> Path | None:
    return store.folder / "s3" if store.is_kept else None


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)


def _tls(host: str, trusted: Path) -> ssl.SSLContext:
    try:
        from cloudtune_emulator import tls as authority  # whose parts come with the extra
    except ImportError as error:
        hint = f"run: {install_command('emulator')}"
        raise ConfigError(f"TLS requires a package that is not installed: {error}", hint=hint) from error
    return authority.context(host, trusted)


def is_loopback(host: str) -> bool:
    """Whether the address is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, settings: Settings, *, allowed: bool, tls: bool) -> None:
    """Other machines may reach the emulator only over TLS and with a given key. Raises ConfigError."""
    missing = [
        option
        for option, is_there in (
            ("--beyond-loopback", allowed), ("--tls", tls),
            (f"--api-key with at least {_SHORTEST_KEY} characters", len(settings.api_key) >= _SHORTEST_KEY),
        )
        if not is_there
    ]  # fmt: skip
    if missing:
        raise ConfigError(f"other machines can connect to {host}", hint=f"to allow this, add {', '.join(missing)}")


def _engine(settings: Settings, store: Store) -> Engine:
    if settings.engine == "script":
        return ScriptEngine()
    from cloudtune_emulator.train_engine import TrainEngine  # lazy: loads all of cloudtune and the local back end

    return TrainEngine(store, settings.models)


def _trainer(settings: Settings, store: Store) -> Trainer:
    """The engine of SageMaker's jobs."""
    if settings.engine == "script":
        return ScriptTrainer()
    from cloudtune_emulator.sagemaker.train_engine import TrainTrainer

    return TrainTrainer(store)
