"""The Jobs API of a Ray cluster, through Ray's own client."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from typing import TYPE_CHECKING, Any

from cloudtune.errors import (
    BackendError,
    BackendNotInstalled,
    ConfigError,
    CredentialsError,
    InvalidRequest,
    JobNotFound,
    PermissionDenied,
    RateLimited,
    Unavailable,
)
from cloudtune.install_command import install_command
from cloudtune_providers.ray.states import RayJob

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OLDEST = (2, 40)
_TIMEOUT_S = 120.0
"""The first submission waits until the agent of the head node has started, which takes a minute on a busy machine."""
_STATUS = re.compile(r"status code (\d{3})")
_OVERRIDING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


class Cluster:
    """One cluster. Connects at the first call."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._lock = threading.Lock()
        self._connected: Any = None

    def submit(self, job: str, request: Mapping[str, Any]) -> None:
        """Submit the job. The cluster refuses an id that it has."""
        with self._translated(job):
            self._client().submit_job(submission_id=job, **request)

    def find(self, job: str) -> tuple[RayJob, dict[str, str]]:
        """The job, and the metadata with which it was submitted. Raises JobNotFound."""
        with self._translated(job):
            found = self._client().get_job_info(job)
        return RayJob(found.status.value, found.message or ""), found.metadata or {}

    def jobs(self) -> dict[str, RayJob]:
        """All jobs of the cluster that were submitted through the Jobs API."""
        with self._translated("of the cluster"):
            found = self._client().list_jobs()
        return {one.submission_id: RayJob(one.status.value, one.message or "") for one in found if one.submission_id}

    def stop(self, job: str) -> None:
        """Stop the job. Raises JobNotFound."""
        with self._translated(job):
            self._client().stop_job(job)

    def delete(self, job: str) -> None:
        """Delete the record of a job that has ended. Has no effect if there is none."""
        with contextlib.suppress(JobNotFound), self._translated(job):
            self._client().delete_job(job)

    def version(self) -> str:
        """The version of Ray on the cluster. Raises BackendError if it does not answer, or is too old."""
        with self._translated("of the cluster"):
            return str(self._client().cluster_version)

    def _client(self) -> Any:
        with self._lock:
            if self._connected is None:
                self._connected = _connect(self.address)
            return self._connected

    @contextlib.contextmanager
    def _translated(self, job: str) -> Iterator[None]:
        """Convert the exceptions of Ray's client and of requests."""
        require_ray()
        import ray.exceptions
        import requests

        try:
            yield
        except requests.exceptions.Timeout as error:
            raise Unavailable(f"{self.address} did not answer in {_TIMEOUT_S:g} s") from error
        except (requests.exceptions.RequestException, ConnectionError) as error:
            hint = "start the cluster, or fix `backends.ray.address`: the URL of its dashboard"
            raise Unavailable(f"no Ray cluster answers at {self.address}", hint=hint) from error
        except ray.exceptions.AuthenticationError as error:
            hint = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH"
            raise CredentialsError(f"{self.address} requires a token", hint=hint) from error
        except RuntimeError as error:
            raise _error_of(str(error), job, self.address) from error


def _error_of(text: str, job: str, address: str) -> BackendError:
    code = int(match[1]) if (match := _STATUS.search(text)) else 0
    last = next((line.strip() for line in reversed(text.splitlines()) if line.strip(" .")), text)[:500]
    if code == 404:
        return JobNotFound(f"no job {job} on {address}")
    if code == 429:
        return RateLimited(f"{address}: {last}")
    if code in (401, 403):
        return PermissionDenied(f"{address} refused the request: {last}")
    if code >= 500 and "already exists" not in text:
        return Unavailable(f"{address} failed: {last}")
    return InvalidRequest(f"{address} refused the request: {last}")


def require_ray() -> None:
    """Raise BackendNotInstalled if Ray's client is missing."""
    try:
        import ray.job_submission  # noqa: F401
    except ImportError as error:
        hint = f"run: {install_command('ray')}"
        raise BackendNotInstalled("the ray back end requires ray[default], not installed", hint=hint) from error


def _connect(address: str) -> Any:
    """Ray's client with a time limit for each request. Raises ConfigError."""
    for name in _OVERRIDING:
        if os.environ.get(name, address).rstrip("/") != address.rstrip("/"):
            raise ConfigError(f"the variable {name} would replace the cluster's address {address}", hint="unset it")
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):
        """Without a time limit, a request to a node that is gone would never end."""

        def _do_request(self, method: str, endpoint: str, **more: Any) -> Any:
            return super()._do_request(method, endpoint, timeout=_TIMEOUT_S, **more)

        @property
        def cluster_version(self) -> str | None:
            return self._server_ray_version

    client = Client(address)
    found = str(client.cluster_version or "")
    numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdigit())
    if len(numbers) == 2 and numbers < OLDEST:
        needed = ".".join(map(str, OLDEST))
        raise InvalidRequest(
            f"{address} runs Ray {found}; the trainer needs {needed} or newer", hint="upgrade Ray there"
        )
    return client
