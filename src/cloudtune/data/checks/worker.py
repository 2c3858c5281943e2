"""A process that decodes and scans blocks for another one: ``python -m cloudtune.data.checks.worker``.

Requests come on standard input and replies go to standard output, in order (see ``ipc``).
"""

from __future__ import annotations

import gc
import queue
import sys
import threading
from typing import TYPE_CHECKING

from cloudtune.data.checks.ipc import AHEAD, KEPT, Begin, Reply, Request, receive, send
from cloudtune.data.checks.scanning import Scanner
from cloudtune.data.checks.shared_memory import Places
from cloudtune.data.problem_list import Faults
from cloudtune.data.read.blocks import Block, keep_memory
from cloudtune.data.read.decoding import FileRows
from cloudtune.data.read.kinds import row_type
from cloudtune.data.read.kinds_other import kind_named

if TYPE_CHECKING:
    from cloudtune.data.scanned import Task


class Worker:
    """Scans blocks, and keeps the detected keys of a file for its next block."""

    def __init__(self, task: Task) -> None:
        self.scanner = Scanner(task)
        self.rows: dict[tuple[str, str], FileRows] = {}

    def reply(self, request: Request, data: bytes) -> Reply:
        """All results of one block."""
        faults = Faults(KEPT)
        rows = self.rows.get((request.origin, request.file))
        if rows is None:
            how = None
            if request.kind is not None:
                how = row_type(kind_named(request.kind), request.columns)
            rows = self.rows[request.origin, request.file] = FileRows(
                request.file, request.columns, how, faults, is_fixed=request.is_fixed, items=self.scanner.task.items
            )
        rows.faults, rows.bad = faults, 0
        block = Block(data, request.first_line, request.pieces, request.lines)
        scanned = [*self.scanner.scan_block(rows, block, request.origin)]
        problems = [one for severity in ("error", "warning", "info") for one in faults.kept(severity)]
        counts: list[tuple[str, str, int]] = [(severity, code, n) for (severity, code), n in faults.counts.items()]
        return Reply(scanned, problems, counts, request.file, request.origin, rows.bad)


def main() -> None:
    """Serve until the input ends."""
    source, out = sys.stdin.buffer, sys.stdout.buffer
    begun = receive(source, Begin)
    if begun is None:
        return
    begin, _ = begun
    places = Places(begin.memory, begin.places) if begin.memory is not None else None
    waiting: queue.Queue[tuple[Request, list[bytes]] | None] = queue.Queue(AHEAD + 1)

    def take() -> None:
        # A separate thread, so that two processes never wait for each other to read.
        while (request := receive(source, Request, places)) is not None:
            waiting.put(request)
        waiting.put(None)

    threading.Thread(target=take, daemon=True).start()
    # Decoded records have no cycles. Searching for cycles after every few hundred lists takes 5% of the time.
    keep_memory()
    gc.freeze()
    gc.set_threshold(100_000)
    worker = Worker(begin.task)
    while (task := waiting.get()) is not None:
        request, (data,) = task
        reply = worker.reply(request, data)
        send(out, reply, reply.unloaded(), places, request.place)


if __name__ == "__main__":
    main()
