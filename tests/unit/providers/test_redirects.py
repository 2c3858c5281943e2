"""No client follows a redirect: it would repeat a file of rows at any address that a response names."""

from __future__ import annotations

import gc
import http.server
import threading
import warnings
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from cloudtune.errors import InvalidResponse
from cloudtune_providers.azure_openai import errors, signing
from cloudtune_providers.azure_openai.ml_workspace.connection import Connection
from cloudtune_providers.azure_openai.ml_workspace.storage import Storage
from cloudtune_providers.azure_openai.options import AzureOpenAIOptions
from cloudtune_providers.bedrock import open_weight
from cloudtune_providers.openai import backend as openai_backend
from cloudtune_providers.openai.options import OpenAIOptions
from cloudtune_providers.openai_dialect.sdk_client import Wire, http_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ROWS = b'{"messages": []}\n' * 9
PLACE = {"subscription_id": "sub", "resource_group": "group", "workspace": "lab", "account": "a"}


class Server(http.server.ThreadingHTTPServer):
    """Answers every request with ``status``, and a redirect to ``target`` if there is one."""

    def __init__(self, status: int, target: str = "") -> None:
        self.seen: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def handle_request(handler) -> None:  # noqa: N805
                handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
                self.seen.append(f"{handler.command} {handler.path}")
                handler.send_response(status)
                if target:
                    handler.send_header("Location", target + handler.path)
                handler.send_header("Content-Length", "0")
                handler.end_headers()

            do_GET = do_POST = do_PUT = do_HEAD = handle_request  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving(*servers: Server) -> Iterator[None]:
    threads = [threading.Thread(target=server.serve_forever, args=(0.01,)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()


def upload(client: Any) -> None:
    wire = Wire("openai", lambda: client)
    try:
        with wire.asking("upload"):
            wire.client.files.create(file=("rows.jsonl", ROWS), purpose="fine-tune")
    finally:
        wire.close()


def by_openai(url: str, rows: Path) -> None:
    upload(openai_backend.connected(OpenAIOptions.model_validate({"base_url": f"{url}/v1", "api_key": "sk-1"})))


def by_open_weight(url: str, rows: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(open_weight.KEY, "a-key")
        upload(open_weight.connected(f"{url}/v1", 9.0))


def azure(**given: Any) -> AzureOpenAIOptions:
    return AzureOpenAIOptions.model_validate(PLACE | {"api_key": "a-key", "management_token": "a-token"} | given)


def by_azure_v1(url: str, rows: Path) -> None:
    upload(signing.connected(azure(endpoint=url)))


def by_azure_classic(url: str, rows: Path) -> None:
    upload(signing.connected(azure(endpoint=url, api="classic", api_version="2024-10-21")))


def by_management(url: str, rows: Path) -> None:
    client = signing.managed(azure(management_url=url))
    with client, errors.asking("deploy", ()):
        client.deployments.begin_create_or_update("group", "a", "name", {"properties": {}}, polling=False)


def by_workspace(url: str, rows: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AZUREML_DEV_URL_MFE", url)
        connection = Connection(azure(), lambda: signing.workspace_client(azure()))
        connection.jobs("create_or_update", "job", id="a-job", body={"properties": {}})


def by_storage(url: str, rows: Path) -> None:
    store = SimpleNamespace(container_name="c", credentials=SimpleNamespace(account_key="a2V5"), account_name="a")
    datastores = SimpleNamespace(get=lambda *_, **__: store)
    client: Any = SimpleNamespace(datastores=datastores, _credential=None)
    storage = Storage(Connection(azure(), lambda: client), azure(storage_url=url))
    try:
        storage.put({"blob": "rows.jsonl", "path": str(rows), "bytes": len(ROWS), "timeout_s": 9.0})
    finally:
        storage.close()


CLIENTS = [by_openai, by_open_weight, by_azure_v1, by_azure_classic, by_management, by_workspace, by_storage]


@pytest.mark.filterwarnings("ignore")  # the SDKs' own
@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("call", CLIENTS)
def test_no_client_follows_a_redirect(call: Callable[[str, Path], None], status: int, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(ROWS)
    other = Server(200)
    first = Server(status, other.url)
    with serving(first, other), pytest.raises(InvalidResponse) as refused:
        call(first.url, rows)
    assert (len(first.seen), other.seen) == (1, [])
    assert refused.value.message.endswith(f": the service redirects to {other.url}")
    assert "follows no redirects" in str(refused.value.hint)


def test_a_client_that_nobody_closes_closes_itself() -> None:
    server = Server(200)
    server.RequestHandlerClass.protocol_version = "HTTP/1.1"  # type: ignore[attr-defined] - keeps it open
    with serving(server), warnings.catch_warnings(record=True, action="always") as found:
        client = http_client()
        assert client.get(server.url).status_code == 200
        del client
        gc.collect()
    assert [str(one.message) for one in found if one.category is ResourceWarning] == []
