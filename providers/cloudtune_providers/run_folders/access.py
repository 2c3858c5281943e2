"""Calls the operations of `cloudtune_trainer.worker.access`: in this process, or on another machine through ssh.

For another machine, the modules travel with each call, so that reading a job writes nothing there and no version has
to match. The request is the first line of standard input, the body the rest.
"""

from __future__ import annotations

import ast
import io
import json
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from cloudtune.errors import (
    BackendError,
    BackendNotInstalled,
    Conflict,
    InvalidRequest,
    InvalidResponse,
    PermissionDenied,
    QuotaExceeded,
)
from cloudtune_trainer.submit.run_folder import DISK_FULL_ERRNOS
from cloudtune_trainer.worker import access

if TYPE_CHECKING:
    from cloudtune_providers.run_folders.machine import Answer, SshMachine

_OLDEST = (3, 11)
_NOT_FOUND = 127
_START = """\
import sys
if sys.version_info < (3, 11):
    sys.exit("cloudtune needs Python 3.11 or newer, and this is " + sys.version.split()[0])
import importlib.abc, importlib.util, json
order = json.loads(sys.stdin.buffer.readline())
class Modules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name in order["modules"]:
            return importlib.util.spec_from_loader(name, self, is_package=order["modules"][name][0])
    def exec_module(self, module):
        exec(compile(order["modules"][module.__name__][1], module.__name__, "exec"), module.__dict__)
sys.meta_path.insert(0, Modules())
from cloudtune_trainer.worker.access import main
main(order["request"])
"""
_PROGRAM = ("-c", f"exec({_START!r})")
"""In one line: csh, the login shell of some users, takes no line ends in quotes."""


class Folders:
    """The run folders below one root."""

    def __init__(self, root: str, machine: SshMachine | None, python: str) -> None:
        self.root = root
        self.machine = machine
        self._python = python

    @property
    def where(self) -> str:
        """The place, for messages."""
        return f"{self.machine.host}:{self.root}" if self.machine else self.root

    def call(self, act: str, body: IO[bytes] | None = None, **arguments: Any) -> dict[str, Any]:
        """Carry out one operation. Raises BackendError."""
        request = {"do": act, **arguments}
        try:
            if self.machine is None:
                return access.answer(request, body or io.BytesIO())  # type: ignore[arg-type]
            return self._remote(self.machine, request, body)
        except access.Refused as refused:
            kind, message = refused.args
            raise _REFUSALS.get(kind, BackendError)(message) from refused
        except PermissionError as error:
            raise PermissionDenied(
                f"no permission to use {self.where}: {error}", hint="choose another folder"
            ) from error
        except OSError as error:
            if error.errno in DISK_FULL_ERRNOS:
                raise QuotaExceeded(f"no space left in {self.where}: {error}", hint="free disk space") from error
            raise BackendError(f"cannot use {self.where}: {error}") from error

    def _remote(self, machine: SshMachine, request: dict[str, Any], body: IO[bytes] | None) -> dict[str, Any]:
        parts: list[bytes | IO[bytes]] = [_order(request)]
        answer = machine.run([self._python, *_PROGRAM], parts if body is None else [*parts, body])
        return self._decoded(machine, answer)

    def _decoded(self, machine: SshMachine, answer: Answer) -> dict[str, Any]:
        self._check(machine, answer)
        try:
            document = json.loads(answer.out.splitlines()[-1])
        except (ValueError, IndexError, RecursionError) as error:
            message = f"{machine.host} did not answer as expected: {answer.out[:200]!r} {answer.err[:500]}"
            raise InvalidResponse(message, hint="its shell must print nothing when it is not interactive") from error
        if "refused" in document:
            raise access.Refused(*document["refused"])
        if "os_error" in document:
            raise OSError(*document["os_error"])
        found: dict[str, Any] = document["reply"]
        return found

    def _check(self, machine: SshMachine, answer: Answer) -> None:
        if answer.code == _NOT_FOUND or "Python 3.11 or newer" in answer.err:
            last = answer.err.splitlines()[-1] if answer.err else "no such program"
            hint = "set `python` to the path of an interpreter there"
            raise BackendNotInstalled(f"cannot run {self._python} on {machine.host}: {last}", hint=hint)
        if answer.code:
            raise BackendError(f"{self._python} failed on {machine.host}: {answer.err[-2000:]}")

    def fetch(self, run: str, folder: str, sink: IO[bytes]) -> None:
        """Write a folder of the run, as a tar archive, to that file. Raises BackendError."""
        if self.machine is None:
            access.send(sink, root=self.root, run=run, folder=folder)  # type: ignore[arg-type]
            return
        order = _order({"do": "send", "root": self.root, "run": run, "folder": folder})
        self._check(self.machine, self.machine.fetch([self._python, *_PROGRAM], order, sink))


_REFUSALS: dict[str, type[BackendError | Conflict]] = {
    "conflict": Conflict, "invalid": InvalidRequest, "worker": BackendError, "damaged": InvalidResponse,
}  # fmt: skip


def _order(request: dict[str, Any]) -> bytes:
    return json.dumps({"modules": _modules(), "request": request}).encode() + b"\n"


@cache
def _modules() -> dict[str, tuple[bool, str]]:
    """The source of `cloudtune_trainer.worker.access` and of everything it imports: name -> (is a package, text)."""
    root = Path(access.__file__).parents[2]
    found: dict[str, tuple[bool, str]] = {}
    waiting = [access.__name__]
    while waiting:
        name = waiting.pop()
        path = root.joinpath(*name.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if name in found or not file.is_file():
            continue
        text = file.read_text(encoding="utf-8")
        found[name] = (path.is_dir(), text)
        parent = name.rpartition(".")[0]
        waiting += [*_imported(text), *([parent] if parent else [])]
    return found


def _imported(text: str) -> list[str]:
    """The modules of this package that a module imports."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cloudtune_trainer"):
            found += [node.module or "", *(f"{node.module}.{name.name}" for name in node.names)]
    return found
