"""A fork server for tests: each child process does one thing with a Client, and can be killed at a failpoint.

``python -m cloudtune.testing.fork_server`` reads one command per line, as JSON, and forks a child for each. It is a
separate program with one thread, so that forking is safe and cheap whatever the test process has loaded. `ForkServer`
is its handle in the test process. A kill is SIGKILL by the child to itself, at the nth call of ``Client(trace=...)``.
"""

from __future__ import annotations

import atexit
import importlib
import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from cloudtune.plan import Plan, plan_from_json
from cloudtune.state import Value, to_json
from cloudtune.testing.world import Recipe, named

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloudtune.client import Client
    from cloudtune.spec import JobSpec


class Order(Value, frozen=True, kw_only=True):
    """An order for a child process."""

    do: str
    """``submit``, ``plan``, ``get``, ``jobs``, ``resume``, ``deploy``, ``remove`` or ``import``."""
    recipe: Recipe
    ledger: str
    spec: dict[str, Any] | None = None
    ref: str | None = None
    plan: dict[str, Any] | None = None
    """An existing plan to submit instead of a spec."""
    options: dict[str, Any] = {}
    """Keyword arguments of the Client's method: ``again``, ``resume``."""
    kill_at: int | None = None
    """Number of the failpoint, from 1, at which the child dies."""
    prepare: str | None = None
    """``module:function``, called first with the child's trace function and ``prepare_with``; what it returns becomes
    the trace function. It may set limits, block imports, or break something."""
    prepare_with: dict[str, Any] = {}


class Outcome(Value, frozen=True, kw_only=True):
    """The result of a child process."""

    killed: bool
    trace: list[str]
    """Names of the failpoints that it reached."""
    result: Any = None
    """Its result, as JSON: a ref, a snapshot, a list of snapshots, a plan."""
    error: dict[str, Any] | None = None
    """Class, message and exit code of its exception."""

    def raised(self) -> str:
        """The name of the error's class, or nothing."""
        return str(self.error["class"]) if self.error else ""


class _Message(Value, frozen=True, kw_only=True):
    """One line to the fork server."""

    orders: list[Order]
    environment: dict[str, str]


class ForkServer:
    """A running fork server. Use it as a context manager.

    It imports what its children had to import, so that only the first child of a kind waits for that. ``warm_up`` names
    functions (``module:function``) that it calls once, to load what children then find in memory. They must start no
    thread and open no connection. Each child has the environment variables that the test process has at that moment.
    """

    def __init__(self, *, warm_up: Sequence[str] = ()) -> None:
        paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cloudtune.testing.fork_server", *warm_up],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the fork server; its children have ended already."""
        self._process.communicate()

    def run(self, order: Order) -> Outcome:
        """One child."""
        return self.race([order])[0]

    def race(self, orders: Sequence[Order]) -> list[Outcome]:
        """Several children at once: all are forked before any of them starts."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        message = _Message(orders=list(orders), environment=dict(os.environ))
        self._process.stdin.write(msgspec.json.encode(message) + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"the fork server has ended with status {self._process.wait()}; its complaint is on stderr"
            )
        return msgspec.json.decode(line, type=list[Outcome])


@cache
def shared_fork_server(warm_up: tuple[str, ...] = (), *, bare: bool = False) -> ForkServer:
    """Return the one fork server of this test process that has this warm-up. It ends with the test process.

    The one that is ``bare`` has imported no back end. Give it only orders with ``prepare``: it does not import what
    their children did.
    """
    fork_server = ForkServer(warm_up=warm_up)
    atexit.register(fork_server.close)
    return fork_server


# -- inside the fork server ------------------------------------------------------------------------------------------


_SOON_NEEDED = ("cloudtune.client", "cloudtune.data.checks.preparing", "cloudtune.ledger.sqlite", "psutil")
"""Import the modules that every child needs."""


def main() -> None:
    """Serve orders until standard input ends. Arguments name functions to call first."""
    for module in _SOON_NEEDED:
        importlib.import_module(module)
    from cloudtune.data.checks.check_cache import rules_version

    rules_version()  # reads all distributions and much code; children find the result
    for function in sys.argv[1:]:
        named(function)()
    for line in sys.stdin.buffer:
        message = msgspec.json.decode(line, type=_Message)
        os.environ.clear()
        os.environ.update(message.environment)
        outcomes, imported = _fork_all(message.orders)
        sys.stdout.buffer.write(msgspec.json.encode(outcomes) + b"\n")
        sys.stdout.buffer.flush()
        for module in imported:
            importlib.import_module(module)


def _fork_all(orders: list[Order]) -> tuple[list[Outcome], list[str]]:
    """The results of the children, and the modules that they imported."""
    start_read, start_write = os.pipe()
    children = [_fork(order, start_read, start_write) for order in orders]
    os.close(start_read)
    os.close(start_write)  # closing this pipe starts the children
    ends = [_collect(pid, log) for pid, log in children]
    return [outcome for outcome, _ in ends], [module for _, imported in ends for module in imported]


def _fork(order: Order, start_read: int, start_write: int) -> tuple[int, int]:
    diary_read, diary_write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(diary_write)
        return pid, diary_read
    status = 1
    try:
        os.close(start_write)
        os.close(diary_read)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(2, 1)  # standard output belongs to the fork server
        os.read(start_read, 1)
        _live(order, diary_write)
        status = 0
    finally:
        os._exit(status)


def _collect(pid: int, log: int) -> tuple[Outcome, list[str]]:
    with os.fdopen(log, "rb") as pages:
        lines = [msgspec.json.decode(line) for line in pages if line.endswith(b"\n")]
    _, status = os.waitpid(pid, 0)
    trace = [line["at"] for line in lines if "at" in line]
    imported = [module for line in lines for module in line.get("imported", [])]
    end = next((line for line in lines if line.keys() & {"result", "error"}), None)
    killed = os.WIFSIGNALED(status)
    if end is None and not killed:
        end = {"error": {"class": "ChildDied", "message": f"the child ended with status {status}", "exit_code": 1}}
    end = end or {}
    return Outcome(killed=killed, trace=trace, result=end.get("result"), error=end.get("error")), imported


def _live(order: Order, log: int) -> None:
    """Run the child. Every failpoint is recorded before anything else happens at it."""
    reached = 0
    before = set(sys.modules)

    def trace(name: str) -> None:
        nonlocal reached
        reached += 1
        _write(log, {"at": name})
        if reached == order.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        _write(log, {"result": _obey(order, trace)})
    except BaseException as error:  # noqa: BLE001 - the test checks any exception
        name, code = type(error).__name__, getattr(error, "exit_code", 1)
        _write(log, {"error": {"class": name, "message": str(error), "exit_code": code}})
    else:
        if order.prepare is None:  # what a prepared child imports may be of its own making
            _write(log, {"imported": [name for name in sys.modules if name not in before and name != "__mp_main__"]})


def _obey(order: Order, trace: Callable[[str], None]) -> Any:
    from cloudtune.client import Client

    if order.prepare:
        trace = named(order.prepare)(trace, **order.prepare_with)
    backend, clock = order.recipe.make()
    client = Client(backend, ledger=order.ledger, clock=clock, trace=trace)
    return to_json(_import(client, order, trace) if order.do == "import" else _WAYS[order.do](client, order))


def _what(order: Order) -> JobSpec | Plan:
    from cloudtune.spec import JobSpec

    return plan_from_json(order.plan) if order.plan is not None else JobSpec.model_validate(order.spec)


def _submit(client: Client, order: Order) -> Any:
    return client.submit(_what(order), **order.options).ref


def _plan(client: Client, order: Order) -> Any:
    from cloudtune.plan import plan_to_json
    from cloudtune.spec import JobSpec

    return plan_to_json(client.plan(JobSpec.model_validate(order.spec), **order.options))


def _get(client: Client, order: Order) -> Any:
    return client.attach(order.ref or "").snapshot()


def _jobs(client: Client, order: Order) -> Any:
    return client.jobs(**order.options)


def _resume(client: Client, order: Order) -> Any:
    return client.attach(order.ref or "").resume().ref


def _deploy(client: Client, order: Order) -> Any:
    return client.attach(order.ref or "").deploy(**order.options)


def _remove(client: Client, order: Order) -> Any:
    """Delete the deployment of that name. It may already be deleted."""
    from cloudtune.state import Deployment

    client.remove(msgspec.convert(order.options, Deployment))


def _import(client: Client, order: Order, trace: Callable[[str], None]) -> Any:
    """Import the folder or the address that ``ref`` names."""
    from cloudtune.importing import Importing, is_address
    from cloudtune.runner import Runner

    source = order.ref or ""
    importing = Importing(Runner(client.backend(), client.ledger, client.clock, trace))
    return importing.submit(importing.plan(source if is_address(source) else Path(source), **order.options))


_WAYS = {
    "submit": _submit, "plan": _plan, "get": _get, "jobs": _jobs, "resume": _resume, "deploy": _deploy,
    "remove": _remove,
}  # fmt: skip


def _write(log: int, line: dict[str, Any]) -> None:
    os.write(log, msgspec.json.encode(line) + b"\n")


if __name__ == "__main__":
    main()
