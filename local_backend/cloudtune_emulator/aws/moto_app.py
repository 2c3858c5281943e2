"""moto in this process: its WSGI application under this emulator's account, with an initial bucket and role.

moto has one global state per process. Each emulator's requests carry its account. Two emulators with the same account
in one process share buckets and roles, and the first one to stop deletes them.
"""

from __future__ import annotations

import contextlib
import json
import threading
from typing import TYPE_CHECKING, Any

from cloudtune.errors import ConfigError
from cloudtune.install_command import install_command
from cloudtune_emulator.aws import bucket_persistence
from cloudtune_emulator.http import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cloudtune_emulator.settings import Settings

_TRUSTED = ["bedrock.amazonaws.com", "sagemaker.amazonaws.com"]
OF_AWS = "aws"
"""The account of AWS-owned resources."""
_HOP = frozenset({"connection", "date", "server", "transfer-encoding", "content-type"})


class MotoApp:
    """The AWS services that moto emulates. Nothing is imported until the first use. Thread-safe.

    ``folder`` saves the buckets over a restart; the rest of moto's state is lost. ``prepare`` is called once moto is
    loaded, to create AWS-owned resources; it reads the store, so moto is opened under the store's lock, ``alone``.
    """

    def __init__(
        self, settings: Settings, alone: Callable[[], AbstractContextManager[None]], folder: Path | None = None
    ) -> None:
        self._settings = settings
        self._alone = alone
        self._folder = folder
        self._lock = threading.Lock()
        self._is_ready = False
        self.prepare: Callable[[], None] = lambda: None
        self.joining = threading.RLock()
        """Held while parts are assembled into an object, and while objects are read."""
        self._apps: dict[str, Callable[..., Iterable[bytes]]] | None = None
        """moto's application of each service that was used."""

    @property
    def account(self) -> str:
        """The account of every request."""
        return self._settings.aws_account

    def open(self) -> dict[str, Callable[..., Iterable[bytes]]]:
        """moto's applications. Raises ConfigError where it is not installed."""
        if self._apps is not None and self._is_ready:
            return self._apps
        with self._alone():
            if self._apps is None:
                try:
                    import moto.moto_server.werkzeug_app  # noqa: F401
                except ImportError as error:
                    hint = f"run: {install_command('aws,emulator')}"
                    raise ConfigError(f"S3 and IAM need moto, which is not installed: {error}", hint=hint) from error
                self._make_world()
                self._apps = {}
                self.prepare()
                self._is_ready = True
            return self._apps

    def _app(self, service: str) -> Callable[..., Iterable[bytes]]:
        from moto.moto_server.werkzeug_app import create_backend_app

        apps = self.open()
        with self._lock:
            if service not in apps:
                apps[service] = create_backend_app(service)
            return apps[service]

    def backend(self, service: str, region: str = "global", account: str | None = None) -> Any:
        """moto's internal backend of a service. No other module depends on moto's internal names."""
        self.open()
        from moto.backends import get_backend

        found: Any = get_backend(service)
        return found[account or self.account][region]

    def answer(self, environ: dict[str, Any], service: str) -> Reply:
        """Call one of moto's services. moto's dispatcher would choose by host and path, and expose its admin API."""
        environ_out: dict[str, Any] = {}

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            environ_out["status"], environ_out["headers"] = int(status.partition(" ")[0]), headers
            return None

        chunks = self._app(service)(environ | {"HTTP_X_MOTO_ACCOUNT_ID": self.account}, start_response)
        headers = {name: value for name, value in environ_out["headers"] if name.lower() not in _HOP}
        kind = next((value for name, value in environ_out["headers"] if name.lower() == "content-type"), "text/xml")
        return Reply(status=environ_out["status"], headers=headers, content_type=kind, body=chunks)

    def keep(self, bucket: str) -> None:
        """Save a changed bucket, if buckets are persistent."""
        if self._folder is not None:
            with self.joining:
                bucket_persistence.keep(self._folder, self.backend("s3"), bucket)

    @property
    def is_open(self) -> bool:
        """Whether moto has been loaded."""
        return self._apps is not None

    def _make_world(self) -> None:
        from moto.backends import get_backend
        from moto.s3.models import s3_backends

        from cloudtune_emulator.aws.multipart_backend import LargeS3

        settings = self._settings
        if not isinstance(s3_backends[self.account].get("aws"), LargeS3):
            s3_backends[self.account]["aws"] = LargeS3("aws", self.account)
        with contextlib.suppress(Exception):  # another emulator of this account has created it
            s3_backends[self.account]["aws"].create_bucket(settings.aws_bucket, settings.aws_region)
        if self._folder is not None:
            bucket_persistence.restore(self._folder, s3_backends[self.account]["aws"])
        statement = {"Effect": "Allow", "Principal": {"Service": _TRUSTED}, "Action": "sts:AssumeRole"}
        trust = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        with contextlib.suppress(Exception):
            get_backend("iam")[self.account]["global"].create_role(
                settings.aws_role, trust, "/", None, None, [], "3600"
            )

    def close(self) -> None:
        """Delete the buckets, roles and the rest of this account and of the AWS-owned account."""
        with self._alone():
            if self._apps is None:
                return
            from moto.core.base_backend import BackendDict

            for services in list(BackendDict._instances):
                for account in {self.account, OF_AWS} & set(services):
                    services[account].reset()
                    del services[account]
            self._apps, self._is_ready = None, False


def contents(around: MotoApp) -> dict[str, dict[str, int]]:
    """How many objects, and how many unfinished uploads, each bucket holds."""
    if not around.is_open:
        return {}
    buckets = around.backend("s3").buckets
    return {name: {"objects": len(one.keys), "unfinished_uploads": len(one.multiparts)}
            for name, one in buckets.items()}  # fmt: skip
