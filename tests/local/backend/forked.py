"""Starts workers and trainers of the local back end as forks of the test's process: real processes within milliseconds.

Only the start of an interpreter is left out. Locks, signals, process groups and run folders are the real ones. The
trainer trains nothing: it waits for orders in a file of its run folder, and writes status and checkpoints as the real
one does.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from cloudtune_trainer import checkpoints
from cloudtune_trainer.checkpoints import Progress
from cloudtune_trainer.folder import FINAL_STATES, RunFolder, append_line, now, read_json, write_json
from cloudtune_trainer.worker import __main__ as worker

PROGRAM = "cloudtune_trainer.worker"
ORDERS = "orders"
INTERRUPTED = {"code": "killed", "message": "received a signal", "hint": "resume it", "interrupted": True}
POLL_S = 0.01
_RESET = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGUSR1, signal.SIGALRM)


class ForkedProcess:
    """What the back end uses of `subprocess.Popen`."""

    def __init__(
        self, argv: list[str], *, cwd: Path, env: dict[str, str], stdout: Any, pass_fds: tuple[int, ...] = (),
        start_new_session: bool = False, process_group: int | None = None,
        preexec_fn: Callable[[], None] | None = None, **_: Any,
    ) -> None:  # fmt: skip
        self.returncode: int | None = None

        def become() -> int:
            os.chdir(cwd)
            os.environ.update(env)
            os.dup2(stdout.fileno(), 1)
            os.dup2(stdout.fileno(), 2)
            close_all_but({0, 1, 2, *pass_fds})
            if start_new_session:
                os.setsid()
            if process_group is not None:
                os.setpgid(0, process_group)
            if preexec_fn is not None:
                preexec_fn()
            if PROGRAM in argv:
                return worker.main(argv[argv.index(PROGRAM) + 1 :])
            return Trainer(RunFolder(argv[-1])).act()

        self.pid = fork(become)

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def fork(main: Callable[[], int]) -> int:
    """Run the function in a child process with the default signal handlers. Returns its pid."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _RESET)  # no signal reaches a handler of this process there
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the test's process has threads
            pid = os.fork()
        if pid == 0:
            _run(main, blocked)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _run(main: Callable[[], int], blocked: set[signal.Signals]) -> NoReturn:
    code = 1
    try:
        gc.disable()  # a collection would copy the memory shared with the test's process
        signal.set_wakeup_fd(-1)
        for number in _RESET:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        code = main()
    except BaseException:  # noqa: BLE001 - nothing of the test may run in the child
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(code)


def close_all_but(kept: set[int]) -> None:
    """A lock is held until every copy of its descriptor is closed."""
    for number in map(int, os.listdir("/proc/self/fd")):
        if number not in kept:
            try:
                os.close(number)
            except OSError:
                continue  # the one that listed them


class Trainer:
    """Follows orders: ``train``, ``checkpoint``, ``fail``, ``succeed``, ``expire``."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._status = {**(read_json(run.status) or {}), "problem": None, "step": 0}
        self._received = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: Any) -> None:
        self._received = number

    def act(self) -> int:
        """Until the run has ended. Returns the exit code."""
        spec = read_json(self._run.spec)
        start = checkpoints.newest_good(self._run.checkpoints)
        if start is None and spec.get("resume_from"):
            start = checkpoints.read(Path(spec["resume_from"]))
            if start is None or not checkpoints.whole(start):
                return self._fail({"code": "bad_checkpoint", "message": "not a complete checkpoint", "hint": None})
        self._state("loading", step=start.step if start else 0)
        done = 0
        orders = self._run.path / ORDERS
        while self._status["state"] not in FINAL_STATES:
            if self._run.requested("cancel"):
                self._state("cancelled")
            elif self._received:
                if self._status["state"] != "loading":
                    self._save()
                return self._fail(INTERRUPTED)
            elif self._run.requested("pause") and self._status["state"] == "training":
                self._state("paused")
            elif self._status["state"] == "paused" and not self._run.requested("pause"):
                self._state("training")
            elif len(given := orders.read_text().split() if orders.exists() else []) > done:
                done += 1
                if self._follow(given[done - 1]):
                    return 1
            else:
                time.sleep(POLL_S)
        return 0

    def _follow(self, order: str) -> int:
        if order == "train":
            self._state("training")
        elif order == "checkpoint":
            self._state("training", step=self._status["step"] + 1)
            self._save()
        elif order == "succeed":
            self._state("succeeded")
        elif order == "expire":
            self._state("expired", problem={"code": "stopped_by_limit", "message": "time is up", "hint": None})
        elif order == "fail":
            return self._fail({"code": "error", "message": "as ordered", "hint": None})
        return 0

    def _fail(self, problem: dict[str, Any]) -> int:
        self._state("failed", problem=problem)
        return 1

    def _save(self) -> None:
        checkpoints.save(
            self._run.checkpoints, Progress(step=self._status["step"]), epoch=0.0, best=False, metrics={},
            write=lambda folder: (folder / "weights").write_text("w"),
        )  # fmt: skip

    def _state(self, state: str, **fields: Any) -> None:
        self._status |= {"state": state, "detail": "", "updated_at": now(), **fields}
        if state in FINAL_STATES:
            self._status["finished_at"] = now()
        append_line(
            self._run.events, {"time": now(), "type": "state", "level": "info", "message": state, "data": {}}
        )  # fmt: skip
        write_json(self._run.status, self._status, durable=False)
