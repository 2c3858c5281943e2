"""Decodes and scans large files with several processes; the results have the order of the files."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self, cast

from cloudtune.data.checks.ipc import AHEAD, Begin, Reply, Request, receive, send
from cloudtune.data.checks.shared_memory import PLACE_BYTES, Places, file_in_memory
from cloudtune.data.problem_list import Faults
from cloudtune.data.read.opening import STDIN, files_of
from cloudtune.data.read.reading import is_json
from cloudtune.data.read.remote import RemoteFile
from cloudtune.errors import CloudtuneError
from cloudtune.processes.environment import child_environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from cloudtune.data.scanned import Task
    from cloudtune.spec import Source

WORTH_BYTES = 48 << 20
"""Below this size, starting processes costs more than it saves."""
_MOST = 8
_COMPRESSED = {".gz", ".zst", ".zstd", ".bz2", ".xz"}
_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031


def workers_for(sources: Iterable[Source]) -> int:
    """The number of worker processes; 0 = use this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores < 2:
        return 0
    files = [(path, source) for source in sources for path in files_of(source, Faults())]
    if any(isinstance(path, RemoteFile) or str(path) == STDIN for path, _ in files):
        return 0
    sizes = [
        path.stat().st_size * (5 if path.suffix in _COMPRESSED else 1) for path, _ in files if isinstance(path, Path)
    ]
    if sum(sizes) < WORTH_BYTES:
        return 0
    try:
        # Tables consist of Python objects: sending them would cost more than scanning them.
        return min(cores, _MOST) if all(is_json(path, source) for path, source in files) else 0
    except OSError:
        return 0  # which the reader reports


class Pool:
    """Worker processes, used in turn, so that replies have the order of the requests."""

    def __init__(self, count: int, task: Task) -> None:
        # Hashes of rows are compared between the workers: they must hash alike.
        environment = child_environment() | {
            "PYTHONHASHSEED": str(random.SystemRandom().randrange(1, 1 << 32)),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        self._memory = file_in_memory(count * AHEAD * PLACE_BYTES)
        self._places = None if self._memory is None else Places(self._memory, count * AHEAD)
        handles = [] if self._memory is None else [self._memory]
        command = [sys.executable, "-P", "-m", "cloudtune.data.checks.worker"]
        self._workers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, pass_fds=handles)
            for _ in range(count)
        ]
        for worker in self._workers:
            _widen(worker)
            self._send(worker, Begin(task, self._memory, count * AHEAD))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            if kind is not None:
                worker.kill()
            for stream in (worker.stdin, worker.stdout):
                with contextlib.suppress(OSError):
                    cast("IO[bytes]", stream).close()
            worker.wait()
        if self._places is not None:
            self._places.close()
        if self._memory is not None:
            os.close(self._memory)

    def replies(self, requests: Iterable[tuple[Request, bytes]]) -> Iterator[Reply]:
        """The workers' replies to the requests and their lines."""
        pending: deque[subprocess.Popen[bytes]] = deque()
        under_way = AHEAD * len(self._workers)
        for number, (request, data) in enumerate(requests):
            worker = self._workers[number % len(self._workers)]
            request.place = number % under_way  # free again: its request is complete
            self._send(worker, request, data)
            pending.append(worker)
            if len(pending) >= under_way:
                yield self._receive(pending.popleft())
        while pending:
            yield self._receive(pending.popleft())

    def _send(self, worker: subprocess.Popen[bytes], message: Begin | Request, *blobs: bytes) -> None:
        place = message.place if isinstance(message, Request) else 0
        try:
            send(cast("IO[bytes]", worker.stdin), message, list(blobs), self._places, place)
        except BrokenPipeError as error:
            raise self._died(worker) from error

    def _receive(self, worker: subprocess.Popen[bytes]) -> Reply:
        received = receive(cast("IO[bytes]", worker.stdout), Reply, self._places)
        if received is None:
            raise self._died(worker)
        reply, lines = received
        reply.load(lines)
        return reply

    def _died(self, worker: subprocess.Popen[bytes]) -> CloudtuneError:
        code = worker.wait()
        return CloudtuneError(
            f"a data checking process exited with code {code}",
            hint="it may have run out of memory; workers=0 checks in a single process",
        )


def _widen(worker: subprocess.Popen[bytes]) -> None:
    """Larger pipes if the system supports them: fewer switches between processes."""
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        for stream in (worker.stdin, worker.stdout):
            fcntl.fcntl(cast("IO[bytes]", stream), _F_SETPIPE_SZ, _PIPE_BYTES)
