"""What following many jobs at once costs: ``python benchmarks/following.py [--jobs 500] [--seconds 30] [--rounds 2]``.

The emulator is a process of its own. Each way of following is a process too, and the ways take turns: a bare loop over
the vendor's SDK, and cloudtune, once for the states alone and once with events and figures. For each it reports looks
and requests per job and minute, the follower's CPU time, the server's, and the follower's memory. A look is one reading
of a job's state; the bare loops look at every job each ``--every`` seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib import request

import openai
import psutil
from emulator import MODEL, ROW, Served, served

from cloudtune import Client, Job, JobRef, WaitTimeout
from cloudtune_providers.openai.backend import OpenAIBackend

if TYPE_CHECKING:
    from collections.abc import Callable

WAYS = ("sdk states", "cloudtune watch_many", "sdk events", "cloudtune watch")


class Counted:
    """Requests sent, and looks taken, by all threads of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests = 0
        self.looks = 0

    def sent(self, _: Any) -> None:
        with self._lock:
            self.requests += 1

    def looked(self, jobs: int = 1) -> None:
        with self._lock:
            self.looks += jobs


def sdk(counted: Counted) -> openai.OpenAI:
    hooks = {"request": [counted.sent]}
    limits: Any = {"event_hooks": hooks}
    return openai.OpenAI(max_retries=0, http_client=openai.DefaultHttpxClient(**limits))


def by_sdk(counted: Counted, ids: list[str], until: float, every: float, *, events: bool) -> None:
    """What a script does: each job in turn, and a pause."""
    client = sdk(counted)
    while time.monotonic() < until:
        begun = time.monotonic()
        for job in ids:
            client.fine_tuning.jobs.retrieve(job)
            if events:
                client.fine_tuning.jobs.list_events(job, limit=20)
            counted.looked()
            if time.monotonic() > until:
                return
        time.sleep(max(0.0, min(begun + every, until) - time.monotonic()))


def _client(counted: Counted) -> Client:
    backend: Any = OpenAIBackend(connect=lambda _: sdk(counted))
    return Client(backend)


def _jobs(client: Client, ids: list[str]) -> list[Job]:
    scope = next(iter(client.backend("openai").list(limit=1))).ref.scope
    return [client.attach(JobRef("openai", scope, job)) for job in ids]


def by_watch_many(counted: Counted, ids: list[str], until: float) -> None:
    client = _client(counted)
    refs = [job.ref for job in _jobs(client, ids)]
    look = client.snapshots

    def counting(requested: Any) -> Any:
        found = look(requested)
        counted.looked(sum(bool(snapshot.native_state) for snapshot in found))
        return found

    client.snapshots = counting  # type: ignore[method-assign]
    with suppress(WaitTimeout):
        for _ in client.watch_many(refs, timeout=until - time.monotonic()):
            pass


def by_watch(counted: Counted, ids: list[str], until: float) -> None:
    client = _client(counted)

    def follow(job: Job) -> None:
        with suppress(WaitTimeout):
            for _ in job.watch(timeout=until - time.monotonic()):
                counted.looked()

    with ThreadPoolExecutor(len(ids)) as pool:
        list(pool.map(follow, _jobs(client, ids)))  # which raises what one of them raised


def follow(way: str, seconds: float, every: float) -> None:
    """In a process of its own: the ids come by stdin, the figures leave by stdout."""
    ids = json.load(sys.stdin)
    counted, this = Counted(), psutil.Process()
    ways: dict[str, Callable[[float], None]] = {
        "sdk states": lambda until: by_sdk(counted, ids, until, every, events=False),
        "sdk events": lambda until: by_sdk(counted, ids, until, every, events=True),
        "cloudtune watch_many": lambda until: by_watch_many(counted, ids, until),
        "cloudtune watch": lambda until: by_watch(counted, ids, until),
    }
    before, begun, rss = time.process_time(), time.monotonic(), 0.0
    over = threading.Event()

    def weigh() -> None:
        nonlocal rss
        while not over.wait(0.2):
            rss = max(rss, this.memory_info().rss / 1e6)

    watcher = threading.Thread(target=weigh)
    watcher.start()
    ways[way](time.monotonic() + seconds)
    took, cpu = time.monotonic() - begun, time.process_time() - before
    over.set()
    watcher.join()
    found = {"requests": counted.requests, "looks": counted.looks, "seconds": took, "cpu": cpu, "megabytes": rss}
    json.dump(found, sys.stdout)


def made(server: Served, jobs: int) -> list[str]:
    """Jobs that run for an hour, with a step every few seconds."""
    route = f"{server.base.removesuffix('/v1')}/_emulator/script"
    script = json.dumps({"validating_s": 1, "queued_s": 1, "running_s": 3600}).encode()
    headers = {"Authorization": f"Bearer {server.admin_token}"}
    with request.urlopen(request.Request(route, script, headers, method="POST")):
        pass
    with server.client() as client:
        file = client.files.create(file=("t.jsonl", "\n".join([ROW] * 300).encode()), purpose="fine-tune").id
        return [client.fine_tuning.jobs.create(model=MODEL, training_file=file).id for _ in range(jobs)]


def measured(server: Served, way: str, ids: list[str], seconds: float, every: float) -> dict[str, float]:
    environment = {**os.environ, "OPENAI_BASE_URL": server.base, "OPENAI_API_KEY": server.key}
    command = [sys.executable, __file__, "--follow", way, "--seconds", str(seconds), "--every", str(every)]
    before = server.cpu_s()
    done = subprocess.run(command, input=json.dumps(ids), capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    minutes = found["seconds"] / 60
    return {
        "looks": found["looks"] / len(ids) / minutes, "requests": found["requests"] / len(ids) / minutes,
        "a look": found["requests"] / max(1, found["looks"]), "cpu": found["cpu"] / minutes,
        "server": (server.cpu_s() - before) / minutes, "megabytes": found["megabytes"],
    }  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--jobs", type=int, default=500)
    arguments.add_argument("--seconds", type=float, default=30.0, help="of each way in each round")
    arguments.add_argument("--every", type=float, default=10.0, help="seconds between two rounds of the bare loops")
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--follow", choices=WAYS, help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    if chosen.follow:
        follow(chosen.follow, chosen.seconds, chosen.every)
        return
    with served() as server:
        ids = made(server, chosen.jobs)
        found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(chosen.rounds):
            for way in WAYS:
                found[way].append(measured(server, way, ids, chosen.seconds, chosen.every))
    print_results(found, chosen)


def print_results(found: dict[str, list[dict[str, float]]], chosen: argparse.Namespace) -> None:
    """The table, and what a look costs over the bare loop's."""
    print(f"{chosen.jobs} jobs followed for {chosen.seconds:.0f} s, {chosen.rounds} rounds in turn, medians; a minute:")
    print(f"{'way':22} {'looks/job':>9} {'req/job':>8} {'req/look':>9} {'CPU s':>7} {'server s':>9} {'MB':>6}")
    middle = {
        way: {name: statistics.median(row[name] for row in rows) for name in rows[0]} for way, rows in found.items()
    }
    for way, row in middle.items():
        print(f"{way:22} {row['looks']:9.2f} {row['requests']:8.2f} {row['a look']:9.3f} {row['cpu']:7.2f} "
              f"{row['server']:9.2f} {row['megabytes']:6.0f}")  # fmt: skip
    for own, bare in (("cloudtune watch_many", "sdk states"), ("cloudtune watch", "sdk events")):
        costs = {way: middle[way]["cpu"] / middle[way]["looks"] for way in (own, bare)}
        print(f"a look by {own} over {bare}: {middle[own]['a look'] / middle[bare]['a look']:.3f} of the requests, "
              f"{costs[own] / costs[bare]:.2f} of the CPU time")  # fmt: skip


if __name__ == "__main__":
    main()
