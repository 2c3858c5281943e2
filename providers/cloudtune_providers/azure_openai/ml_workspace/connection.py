"""The clients of azure-ai-ml: created once, with retries disabled; and the translation of their errors.

Jobs are created by the SDK's generated client with the plan's own body. The layer above it uploads files, adds the
state of the working folder's git repository to the job, and drops unknown fields from responses.
"""

from __future__ import annotations

import threading
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cloudtune.errors import BackendError
from cloudtune.state import Value
from cloudtune_providers.azure_openai import errors
from cloudtune_providers.azure_openai.signing import close_workspace

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from azure.ai.ml import MLClient

    from cloudtune_providers.azure_openai.options import AzureOpenAIOptions

_GENERATED = "service_client_10_2024_preview"


class Run(Value, frozen=True, kw_only=True):
    """The fields that a run's record adds to a job."""

    started_at: datetime | None = None
    ended_at: datetime | None = None
    reason: str | None = None
    """The reason of a failure."""


class Connection:
    """One workspace. ``connect`` creates the client."""

    def __init__(self, options: AzureOpenAIOptions, connect: Callable[[], MLClient]) -> None:
        self._options = options
        self._connect = connect
        self._lock = threading.Lock()
        self._client: MLClient | None = None

    @property
    def client(self) -> Any:
        """The client of the SDK."""
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def close(self) -> None:
        """Close the client's connections; the next call creates a new client."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            close_workspace(client)

    def asking(self, what: str, *secrets: str) -> AbstractContextManager[None]:
        """Translate the SDK's exceptions to cloudtune errors about ``what``."""
        token = self._options.management_token
        return errors.asking(what, (*secrets, *((token.get_secret_value(),) if token else ())))

    def jobs(self, call: str, what: str, **arguments: Any) -> Any:
        """One call of the generated client. Returns the response unchanged."""
        operations = self.client.jobs
        generated = getattr(operations, _GENERATED, None)
        if generated is None:
            raise BackendError("this azure-ai-ml has no client for fine-tuning jobs", hint="pip install azure-ai-ml")
        _, group, _ = self._options.place()
        place = {"resource_group_name": group, "workspace_name": self._options.workspace}
        with self.asking(what):
            return getattr(generated.jobs, call)(**place, **arguments)

    def run(self, job: str) -> Run:
        """Return the record of a job's run. The job's resource has neither its times nor the reason of a failure."""
        with self.asking(f"run {job}"):
            details = self.client.jobs._runs_operations.get_run_details(job)
        reason = getattr(getattr(details, "error", None), "error", None)
        return Run(
            started_at=details.start_time_utc, ended_at=details.end_time_utc, reason=getattr(reason, "message", None)
        )  # fmt: skip
