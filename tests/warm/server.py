"""Runs the trainers of all tests in children of one process that has imported torch, transformers and peft once.

Importing them takes most of the time of a run over a few rows. The workers of pytest-xdist are such children, too.
``sitecustomize.py`` is the client. A child has the client's arguments, environment, folder, descriptors and umask, and
leads a process group of its own. Usage: ``server.py SOCKET``. The server ends when its standard input does, and imports
nothing before a client needs it.
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import json
import os
import resource
import runpy
import selectors
import signal
import socket
import sys
import traceback
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from sitecustomize import facts

MODULES = (
    "click", "httpx2", "openai.types.fine_tuning", "pydantic", "rich.progress", "accelerate", "peft",
    "safetensors.torch", "tokenizers", "transformers.generation", "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto", "transformers.models.llama.modeling_llama",
)  # fmt: skip
_MOST_FDS = 64


@cache
def _import_all() -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the trainer sets it
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    gc.disable()
    for name in MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()
    gc.enable()


def _forked() -> int:
    _import_all()
    return os.fork()


class _Client:
    """A process that waits for its child."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.child: int | None = None
        self.has_ended = False


def main() -> None:
    """Serve until standard input ends."""
    here = facts()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(sys.argv[1])
    listener.listen(64)
    looking = selectors.DefaultSelector()
    looking.register(sys.stdin.fileno(), selectors.EVENT_READ, "end")
    looking.register(listener, selectors.EVENT_READ, "listen")
    children: set[int] = set()
    while True:
        for key, _ in looking.select():
            if key.data == "end":
                for child in children:
                    _kill(child)
                return
            if key.data == "listen":
                connection, _ = listener.accept()
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
                looking.register(connection, selectors.EVENT_READ, _Client(connection))
            elif isinstance(key.data, tuple):
                _child_ended(looking, children, *key.data)
            elif key.data.has_ended:
                continue
            elif key.data.child is None:
                _begin(looking, children, key.data, here)
            else:
                _pass_on(looking, key.data)


def _begin(looking: selectors.BaseSelector, children: set[int], client: _Client, here: dict[str, Any]) -> None:
    try:
        body, rights, _, _ = client.connection.recvmsg(1 << 20, socket.CMSG_SPACE(4 * _MOST_FDS))
    except ConnectionError:
        body, rights = b"", []
    fds = array.array("i")
    for _, _, data in rights:
        fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    order = json.loads(body) if body else None
    if order is None or order["facts"] != here:
        if body:
            with contextlib.suppress(ConnectionError):  # the client has been killed
                client.connection.send(b"cold")
        _end(looking, client)
    elif (child := _forked()) == 0:
        _live(order, list(fds))
    else:
        with contextlib.suppress(OSError):
            os.setpgid(child, child)  # as the child does: it leads its group whichever comes first
        client.child = child
        children.add(child)
        looking.register(os.pidfd_open(child), selectors.EVENT_READ, (client, child))
    for number in fds:
        os.close(number)


def _pass_on(looking: selectors.BaseSelector, client: _Client) -> None:
    """A signal that the client got, or its end."""
    assert client.child is not None
    try:
        message = client.connection.recv(64)
    except ConnectionError:
        message = b""
    if message:
        os.kill(client.child, int(message))
    else:
        _end(looking, client)
        _kill(client.child)


def _kill(child: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def _child_ended(looking: selectors.BaseSelector, children: set[int], client: _Client, child: int) -> None:
    (key,) = [key for key in looking.get_map().values() if key.data == (client, child)]
    looking.unregister(key.fd)
    os.close(key.fd)
    _, status = os.waitpid(child, 0)
    children.discard(child)
    if not client.has_ended:
        with contextlib.suppress(ConnectionError):
            client.connection.send(str(os.waitstatus_to_exitcode(status)).encode())
        _end(looking, client)


def _end(looking: selectors.BaseSelector, client: _Client) -> None:
    client.has_ended = True
    looking.unregister(client.connection)
    client.connection.close()


def _live(order: dict[str, Any], fds: list[int]) -> NoReturn:
    """What a child does."""
    status = 1
    try:
        os.setpgid(0, 0)
        _take_descriptors(order["fds"], fds)
        for number in order["ignored"]:
            signal.signal(number, signal.SIG_IGN)
        os.umask(order["umask"])
        resource.setrlimit(resource.RLIMIT_FSIZE, order["file_size"])
        os.chdir(order["cwd"])
        os.environ.clear()
        os.environ.update(order["env"])
        program = order["program"]
        first = {"module": order["cwd"], "code": "", "script": str(Path(program).resolve().parent)}[order["kind"]]
        sys.path[:] = order["path"] if order["safe"] else [first, *order["path"]]
        sys.argv[:] = ["-c" if order["kind"] == "code" else program, *order["argv"]]
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        sys.modules.pop("sitecustomize", None)
        status = _run(program, order["kind"])
    except BaseException:  # noqa: BLE001 - the child must end here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _take_descriptors(numbers: list[int], fds: list[int]) -> None:
    """Close all other descriptors and give these their numbers. It needs no high ones: ``ulimit -n`` can be low."""
    for other in {int(name) for name in os.listdir("/proc/self/fd")}.difference(fds):
        with contextlib.suppress(OSError):  # the one that lists them
            os.close(other)
    held = list(fds)
    for place, number in enumerate(numbers):
        if number in held[place + 1 :]:
            held[held.index(number, place + 1)] = os.dup(number)
        if held[place] == number:
            os.set_inheritable(number, True)
        else:
            os.dup2(held[place], number)
            os.close(held[place])


def _run(program: str, kind: str) -> int:
    """The status with which the interpreter would end."""
    try:
        if kind == "module":
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        elif kind == "code":
            exec(program, {"__name__": "__main__"})
        else:
            runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        sys.stderr.write(f"{end.code}\n")
        return 1
    return 0


if __name__ == "__main__":
    main()
