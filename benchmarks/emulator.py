"""How fast the emulator answers, and what it costs: ``python benchmarks/emulator.py [--jobs 500] [--megabytes 512]``.

The emulator is a separate process, started as users start it; the clients are this process and its threads. Reports
requests per second (bare HTTP by one and by eight clients, and the vendor's SDK), a round of polls over many jobs with
the server's CPU time and memory, and a large upload with the memory of both sides.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import openai
import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODEL = "gpt-4.1-mini-2025-04-14"
ROW = json.dumps({"messages": [{"role": "user", "content": "q" * 200}, {"role": "assistant", "content": "a" * 300}]})


class Served:
    """A running emulator and its process."""

    def __init__(self, environment: dict[str, str], process: psutil.Process) -> None:
        self.base = environment["OPENAI_BASE_URL"]
        self.key = environment["OPENAI_API_KEY"]
        self.admin_token = environment["CLOUDTUNE_EMULATOR_ADMIN_TOKEN"]
        self.process = process

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.base, api_key=self.key, max_retries=0)

    def cpu_s(self) -> float:
        times = self.process.cpu_times()
        return times.user + times.system

    def megabytes(self) -> float:
        return self.process.memory_info().rss / 1e6


@contextmanager
def served(*options: str) -> Iterator[Served]:
    command = [sys.executable, "-c", "from cloudtune.cli.main import main; main()", "emulate", "--port", "0", "--json"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        text = ""
        while not text.rstrip().endswith("\n}"):
            text += server.stdout.readline()
        try:
            yield Served(json.loads(text)["environment"], psutil.Process(server.pid))
        finally:
            server.terminate()


@contextmanager
def peak(process: psutil.Process) -> Iterator[Callable[[], float]]:
    """The most memory in MB that a process and its children held meanwhile, looked at every 20 ms."""
    most, over = [0.0], threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            with suppress(psutil.NoSuchProcess):
                family = (process, *process.children(recursive=True))
                most[0] = max(most[0], sum(one.memory_info().rss for one in family) / 1e6)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield lambda: most[0]
    finally:
        over.set()
        watcher.join()


def rate(act: Callable[[], Any], *, seconds: float = 3.0, clients: int = 1) -> float:
    """How often an act succeeds in a second."""
    end = time.perf_counter() + seconds

    def repeat(_: int) -> int:
        done = 0
        while time.perf_counter() < end:
            act()
            done += 1
        return done

    with ThreadPoolExecutor(clients) as pool:
        return sum(pool.map(repeat, range(clients))) / seconds


def bare(server: Served, path: str) -> Callable[[], None]:
    where = urlsplit(server.base)
    connections = threading.local()
    headers = {"Authorization": f"Bearer {server.key}"}

    def ask() -> None:
        if not hasattr(connections, "it"):
            connections.it = http.client.HTTPConnection(where.hostname or "", where.port)
        connections.it.request("GET", f"/v1{path}", headers=headers)
        answer = connections.it.getresponse()
        answer.read()
        assert answer.status == 200, answer.status

    return ask


def requests(jobs: int) -> None:
    with served() as server, server.client() as client:
        data = "\n".join([ROW] * 50).encode()
        file = client.files.create(file=("t.jsonl", data), purpose="fine-tune").id
        made = time.perf_counter()
        ids = [client.fine_tuning.jobs.create(model=MODEL, training_file=file).id for _ in range(jobs)]
        print(f"{jobs} jobs created by the SDK: {jobs / (time.perf_counter() - made):.0f} a second")
        ask = bare(server, f"/fine_tuning/jobs/{ids[0]}")
        print(f"GET a job, bare HTTP: {rate(ask):.0f} a second; eight clients: {rate(ask, clients=8):.0f}")
        print(f"GET a job, the SDK: {rate(lambda: client.fine_tuning.jobs.retrieve(ids[0])):.0f} a second")
        cpu, begun = server.cpu_s(), time.perf_counter()
        for job in ids:
            bare_job = client.fine_tuning.jobs.retrieve(job)
            client.fine_tuning.jobs.list_events(bare_job.id, limit=100)
        took = time.perf_counter() - begun
        print(
            f"one round over {jobs} jobs (status and events): {took:.1f} s, server CPU {server.cpu_s() - cpu:.1f} s, "
            f"server memory {server.megabytes():.0f} MB"
        )
        begun = time.perf_counter()
        listed = sum(1 for _ in client.fine_tuning.jobs.list(limit=100))
        print(f"the same {listed} by list: {time.perf_counter() - begun:.2f} s")


def written(path: Path, megabytes: int) -> None:
    lines = (ROW + "\n").encode() * 2000
    with path.open("wb") as file:
        for _ in range(megabytes * 1024 * 1024 // len(lines)):
            file.write(lines)


def upload(megabytes: int) -> None:
    with tempfile.TemporaryDirectory() as folder, served() as server, server.client() as client:
        path = Path(folder) / "large.jsonl"
        written(path, megabytes)
        print(f"upload of {path.stat().st_size / 1024**2:.0f} MB (server before: {server.megabytes():.0f} MB)")
        with peak(server.process) as server_peak, peak(psutil.Process()) as client_peak:
            begun = time.perf_counter()
            client.files.create(file=path, purpose="fine-tune")
            whole = time.perf_counter() - begun
        print(f"  in one request: {whole:.1f} s, server peak {server_peak():.0f} MB, client {client_peak():.0f} MB")
        with peak(server.process) as server_peak, peak(psutil.Process()) as client_peak:
            begun = time.perf_counter()
            client.uploads.upload_file_chunked(
                file=path, mime_type="application/jsonl", purpose="fine-tune", part_size=16 * 1024 * 1024
            )
            parts = time.perf_counter() - begun
        print(f"  in 16 MB parts: {parts:.1f} s, server peak {server_peak():.0f} MB, client {client_peak():.0f} MB")


def submitted(megabytes: int) -> None:
    """The same rows from a spec to a job: read, checked, hashed, written in OpenAI's format, and uploaded in parts."""
    with tempfile.TemporaryDirectory() as folder, served() as server:
        written(Path(folder) / "large.jsonl", megabytes)
        spec = Path(folder) / "job.json"
        spec.write_text(json.dumps({"name": "large", "model": MODEL, "data": {"train": "large.jsonl"}}))
        environment = {
            **os.environ, "OPENAI_BASE_URL": server.base, "OPENAI_API_KEY": server.key, "CLOUDTUNE_HOME": folder,
        }  # fmt: skip
        command = [sys.executable, "-m", "cloudtune", "submit", str(spec), "--backend", "openai", "--quiet"]
        begun = time.perf_counter()
        with (
            subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as client,
            peak(server.process) as server_peak,
            peak(psutil.Process(client.pid)) as client_peak,
        ):
            assert client.wait() == 0
        took = time.perf_counter() - begun
    print(f"  from spec to job by cloudtune: {took:.1f} s, server peak {server_peak():.0f} MB, "
          f"client and its workers {client_peak():.0f} MB")  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--jobs", type=int, default=500)
    arguments.add_argument("--megabytes", type=int, default=510, help="the vendor's limit is 512 MB")
    chosen = arguments.parse_args()
    if chosen.jobs:
        requests(chosen.jobs)
    upload(chosen.megabytes)
    submitted(chosen.megabytes)


if __name__ == "__main__":
    main()
