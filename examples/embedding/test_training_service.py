"""How a program that uses cloudtune is tested without an account: the real SDK over a transport of one's own.

The transport below answers with just enough of OpenAI's API for one job. (For more, run `cloudtune emulate`.)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import httpx2
import openai

sys.path.insert(0, str(Path(__file__).parent))

from training_service import train_support_bot

from cloudtune_providers.openai.backend import OpenAIBackend
from cloudtune_providers.openai.options import OpenAIOptions


class Service:
    """Files are ready and jobs succeed immediately. Records every request."""

    def __init__(self) -> None:
        self.files: list[dict[str, Any]] = []
        self.jobs: list[dict[str, Any]] = []
        self.asked: list[str] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path.removeprefix("/v1")
        self.asked.append(f"{request.method} {path}")
        if request.method == "POST" and path == "/files":
            return self._upload(request)
        if request.method == "POST":
            return self._create(json.loads(request.content))
        return httpx2.Response(200, json=self._read(path))

    def _upload(self, request: httpx2.Request) -> httpx2.Response:
        content = request.read()
        name = content.partition(b'filename="')[2].partition(b'"')[0].decode()
        made = {"id": "file-1", "object": "file", "filename": name, "bytes": len(content), "purpose": "fine-tune",
                "status": "processed", "created_at": 1}  # fmt: skip
        self.files.append(made)
        return httpx2.Response(200, json=made)

    def _create(self, body: dict[str, Any]) -> httpx2.Response:
        name = f"ft:{body['model']}:mine:{body['suffix']}:1"
        made = body | {"id": "ftjob-1", "object": "fine_tuning.job", "status": "succeeded", "created_at": 2,
                       "finished_at": 3, "fine_tuned_model": name, "result_files": []}  # fmt: skip
        self.jobs.append(made)
        return httpx2.Response(200, json=made)

    def _read(self, path: str) -> dict[str, Any]:
        if path == "/files/file-1":
            return self.files[0]
        if path == "/fine_tuning/jobs/ftjob-1":
            return self.jobs[0]
        entries = {"/files": self.files, "/fine_tuning/jobs": self.jobs}.get(path, [])
        return {"object": "list", "data": entries, "has_more": False}


def test_the_bot_is_trained_once(tmp_path: Path) -> None:
    service = Service()
    backend = OpenAIBackend(
        OpenAIOptions(base_url="http://localhost/v1"),
        connect=lambda options: openai.OpenAI(
            api_key="any", base_url=options.base_url, http_client=httpx2.Client(transport=httpx2.MockTransport(service))
        ),
    )
    tickets = tmp_path / "tickets.jsonl"
    rows = [{"prompt": f"Ticket {n}", "completion": "Solved."} for n in range(20)]
    tickets.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    assert train_support_bot(backend, tickets, ledger) == "ft:gpt-4.1-mini-2025-04-14:mine:support-bot:1"
    assert train_support_bot(backend, tickets, ledger) == "ft:gpt-4.1-mini-2025-04-14:mine:support-bot:1"
    assert service.asked.count("POST /files") == 1
    assert service.asked.count("POST /fine_tuning/jobs") == 1
    assert service.jobs[0]["metadata"]["team"] == "support"
    assert service.jobs[0]["method"] == {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}}
