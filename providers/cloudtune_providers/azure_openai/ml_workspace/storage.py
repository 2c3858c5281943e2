"""The workspace's blob store, for rows under names derived from their content."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.errors import Conflict, InvalidRequest, InvalidResponse, JobNotFound, UnsupportedError
from cloudtune_providers.azure_openai.ml_workspace import translate
from cloudtune_providers.azure_openai.signing import closing_transport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from azure.storage.blob import ContainerClient

    from cloudtune_providers.azure_openai.ml_workspace.connection import Connection
    from cloudtune_providers.azure_openai.options import AzureOpenAIOptions

SECRETS_KEPT_S = 1800.0
"""The workspace's secrets are valid for an hour."""


class Storage:
    """One datastore. Its resource has the account, the container and the credentials."""

    def __init__(self, connection: Connection, options: AzureOpenAIOptions) -> None:
        self._connection = connection
        self._datastore = options.datastore
        self._account_url = options.storage_url
        self._timeout = options.timeout
        self._lock = threading.Lock()
        self._container: ContainerClient | None = None
        self._connections = ExitStack()
        self._good_until = 0.0
        self._secrets: tuple[str, ...] = ()

    def secrets(self) -> tuple[str, ...]:
        """The account key or token, once requested."""
        return self._secrets

    def put(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Upload the file unless the blob exists. The blob is visible only once it is complete."""
        from azure.core.exceptions import ResourceExistsError

        blob = self._made().get_blob_client(request["blob"])
        with Path(request["path"]).open("rb") as content, self._asking("upload"):
            try:
                blob.upload_blob(
                    content, length=request["bytes"], overwrite=False, validate_content=True, max_concurrency=1,
                    timeout=None, read_timeout=request["timeout_s"],
                )  # fmt: skip
            except ResourceExistsError:  # another request was faster; check whether it is the same
                self._check(request, self.size(request["blob"]))
        return self._outputs(request)

    def found(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """The outputs if the blob exists. Raises Conflict if its content differs."""
        size = self.size(request["blob"])
        if size is None:
            return None
        self._check(request, size)
        return self._outputs(request)

    def size(self, blob: str) -> int | None:
        """The size of a blob, or None if there is none."""
        try:
            with self._asking(f"blob {blob}"):
                properties = self._made().get_blob_client(blob).get_blob_properties()
                if not properties.etag:
                    raise InvalidResponse(f"blob {blob}: the response has no ETag, so it is not from Azure Storage")
                return int(properties.size)
        except JobNotFound:
            return None

    def delete(self, blob: str) -> None:
        """Delete a blob. Succeeds if it does not exist."""
        try:
            with self._asking(f"blob {blob}"):
                self._made().delete_blob(blob)
        except JobNotFound:
            return

    @staticmethod
    def _check(request: Mapping[str, Any], size: int | None) -> None:
        if size != request["bytes"]:
            raise Conflict(
                f"the blob {request['blob']!r} has {size} bytes, but the rows with that name have {request['bytes']}",
                hint="another program wrote it: delete it, and run the same command again",
            )

    def _outputs(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return {"uri": translate.blob_uri(self._datastore, request["blob"])}

    def _asking(self, what: str) -> Any:
        self._made()  # the connection knows the secrets
        return self._connection.asking(what, *self._secrets)

    def _made(self) -> ContainerClient:
        with self._lock:
            if self._container is None or time.monotonic() > self._good_until:
                self._container = self._connected()
                self._good_until = time.monotonic() + SECRETS_KEPT_S
            return self._container

    def close(self) -> None:
        """Close the connections; the next call signs in again."""
        with self._lock:
            self._container = None
            self._connections.close()

    def _connected(self) -> ContainerClient:
        from azure.storage.blob import BlobServiceClient

        client = self._connection.client
        try:
            with self._connection.asking(f"datastore {self._datastore}"):
                store = client.datastores.get(self._datastore, include_secrets=True)
        except JobNotFound as error:  # a redirect would look like a missing blob
            hint = "check `workspace` and `datastore` in the settings: cloudtune config show"
            raise InvalidRequest(error.message, hint=hint) from error.__cause__
        if not hasattr(store, "container_name"):
            raise UnsupportedError(
                f"the datastore {self._datastore} is not a blob store", hint="set one as `datastore`"
            )
        url = self._account_url or f"{store.protocol}://{store.account_name}.blob.{store.endpoint}"
        key, token = getattr(store.credentials, "account_key", None), getattr(store.credentials, "sas_token", None)
        self._secrets = tuple(secret for secret in (key, token) if secret)
        credential: Any = token or client._credential
        if key:
            credential = {"account_name": store.account_name, "account_key": key}
        service = self._connections.enter_context(
            BlobServiceClient(
                url, credential=credential, retry_total=0, transport=closing_transport(self._timeout),
                permit_redirects=False,
            )
        )  # fmt: skip
        return service.get_container_client(str(store.container_name))
