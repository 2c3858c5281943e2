"""Mutation testing of the data package: ``python -m tests.mutation --count 300``.

A mutant is one function with one small fault, such as a negated condition. Each runs in a forked child against the
tests that call the function, fastest first. Mutants that no test notices are printed: each is a missing test, dead
code, or a change without effect. Tests of other processes never see the fault, so they do not count.

The first run records which test calls which functions. The record and the verdicts are appended to the files of
``.mutation/``, so that a run that was cut off continues, and only new tests are recorded.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import importlib
import inspect
import itertools
import json
import math
import os
import random
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "src/cloudtune/data"
FOLDER = REPOSITORY / ".mutation"
TESTS = "tests/unit/data"
OPPOSITE: dict[type, type] = {
    ast.Eq: ast.NotEq, ast.Lt: ast.LtE, ast.Gt: ast.GtE, ast.In: ast.NotIn, ast.Is: ast.IsNot, ast.And: ast.Or,
}  # fmt: skip
OPPOSITE |= {new: old for old, new in OPPOSITE.items()}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def faults(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """The nodes in functions that can be changed, and how."""
    inside = {id(node) for function in ast.walk(tree) if isinstance(function, FUNCTIONS)
              for part in (function.body if isinstance(function.body, list) else [function.body])
              for node in ast.walk(part)}  # fmt: skip
    notes = {id(node) for owner in ast.walk(tree) for name in ("annotation", "returns")
             if isinstance(note := getattr(owner, name, None), ast.AST) for node in ast.walk(note)}  # fmt: skip
    for node in ast.walk(tree):
        if id(node) not in inside - notes:
            continue
        match node:
            case ast.Compare():
                yield node, "comparison"
            case ast.BoolOp():
                yield node, "and/or"
            case ast.If() | ast.IfExp() | ast.While():
                yield node, "condition"
            case ast.comprehension(ifs=[_, *_]):
                yield node, "filter"
            case ast.UnaryOp(op=ast.Not()):
                yield node, "not"
            case ast.Constant(value=bool() | int()):
                yield node, "constant"
            case ast.Expr(value=ast.Call() | ast.Yield() | ast.YieldFrom()):
                yield node, "statement"


def mutated(tree: ast.Module, index: int) -> tuple[int, str]:
    """Put the fault into the tree. Return its line and kind."""
    node: Any
    node, kind = list(faults(tree))[index]
    line = getattr(node, "lineno", 0) or node.target.lineno
    if kind == "comparison":
        node.ops[0] = OPPOSITE[type(node.ops[0])]()
    elif kind == "and/or":
        node.op = OPPOSITE[type(node.op)]()
    elif kind == "condition":
        node.test = ast.UnaryOp(ast.Not(), node.test)
    elif kind == "filter":
        node.ifs[0] = ast.UnaryOp(ast.Not(), node.ifs[0])
    elif kind == "not":
        node.operand = ast.UnaryOp(ast.Not(), node.operand)
    elif kind == "constant":
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1
    else:
        node.value = ast.Constant(None)
    ast.fix_missing_locations(tree)
    return line, kind


def changed_code(old: CodeType, new: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    """The code of each function with its counterpart, where they differ. The innermost function comes last."""
    if old != new and old.co_flags & inspect.CO_OPTIMIZED:
        yield old, new
    pairs = [[one for one in code.co_consts if isinstance(one, CodeType)] for code in (old, new)]
    if len(pairs[0]) == len(pairs[1]):  # the compiler removes what a constant condition excludes
        for was, now in zip(*pairs, strict=True):
            yield from changed_code(was, now)


def place(code: CodeType) -> str:
    """The name of a function's code in the record of calls."""
    return f"{Path(code.co_filename).relative_to(PACKAGE)}:{code.co_qualname}"


def key(about: dict[str, Any]) -> tuple[str, int, str]:
    """Which mutant a verdict is about. It is another one when the line has changed."""
    return about["file"], about["index"], about["source"]


class Log:
    """A file of JSON Lines that several processes append to."""

    def __init__(self, name: str) -> None:
        self.path = FOLDER / name
        self.path.touch()

    def read(self) -> list[dict[str, Any]]:
        """Every line, except one that was cut off."""
        return [json.loads(line) for line in self.path.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def add(self, **line: object) -> None:
        """Append a line in one call of the system."""
        with self.path.open("ab", buffering=0) as file:
            file.write(json.dumps(line).encode() + b"\n")


class Run:
    """A plugin that runs mutants in place of the tests."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.failed = ""
        self.functions: dict[CodeType, list[FunctionType]] = {}
        self.calls, self.verdicts = Log("calls.jsonl"), Log("verdicts.jsonl")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember a failure."""
        if report.failed:
            self.failed = report.nodeid

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Record which test calls what, then run the mutants."""
        self.functions = functions()
        known = {line["test"] for line in self.calls.read()}
        unknown = [item for item in session.items if item.nodeid not in known]
        files = [list(items) for _, items in itertools.groupby(unknown, lambda item: item.path)]
        share(files, lambda items: in_child(lambda: self.record(items), 900), self.options.workers)
        todo, without = self.mutants({item.nodeid: item for item in session.items})
        share(todo, lambda one: self.judge(*one), self.options.workers)
        self.show(without)
        return True

    def record(self, items: list[pytest.Item]) -> str:
        """Run the tests of a file. Keep which functions each of them calls, unless it fails."""
        folder = str(PACKAGE)
        called: dict[int, CodeType] = {}

        def trace(frame: Any, _event: str, _argument: object) -> None:
            if frame.f_code.co_filename.startswith(folder):
                called[id(frame.f_code)] = frame.f_code

        threading.settrace(trace)
        for item, following in zip(items, [*items[1:], None], strict=True):
            called.clear()
            self.failed = ""
            start = time.perf_counter()
            sys.settrace(trace)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            sys.settrace(None)
            took = time.perf_counter() - start
            places = [] if self.failed else sorted({place(code) for code in called.values()})
            self.calls.add(test=item.nodeid, seconds=took, failed=bool(self.failed), places=places)
        return ""

    def mutants(self, items: dict[str, pytest.Item]) -> tuple[list[tuple[Any, ...]], int]:
        """The mutants to run, each with its tests, and how many were passed over because no test calls them."""
        tests: dict[str, list[tuple[float, str]]] = {}
        for line in self.calls.read():
            for name in line["places"] if line["test"] in items and line["seconds"] < self.options.longest else ():
                tests.setdefault(name, []).append((line["seconds"], line["test"]))
        verdicts = {key(line): line["verdict"] for line in self.verdicts.read()}
        chosen = [(file, index) for file in sorted(PACKAGE.rglob("*.py"))
                  if any(str(file.relative_to(PACKAGE)).startswith(part) for part in self.options.only)
                  for index in range(len(list(faults(ast.parse(file.read_text())))))]  # fmt: skip
        if self.options.survivors:
            survived = {one[:2] for one, verdict in verdicts.items() if verdict == "survived"}
            chosen = [one for one in chosen if (str(one[0].relative_to(PACKAGE)), one[1]) in survived]
        random.Random(self.options.seed).shuffle(chosen)
        todo, found, without = [], 0, 0
        for file, index in chosen:
            if found == self.options.count:
                break
            source = file.read_text()
            tree = ast.parse(source)
            old = compile(source, file, "exec", dont_inherit=True)
            line, kind = mutated(tree, index)
            pairs = list(changed_code(old, compile(tree, file, "exec", dont_inherit=True)))
            if not pairs:
                continue
            names = [name for _, name in sorted(tests.get(place(pairs[-1][0]), ()))]
            found, without = found + bool(names), without + (not names)
            about = {"file": str(file.relative_to(PACKAGE)), "index": index, "line": line, "kind": kind,
                     "source": source.splitlines()[line - 1].strip()}  # fmt: skip
            if names and verdicts.get(key(about)) == ("survived" if self.options.survivors else None):
                todo.append((about, dict(pairs), [items[one] for one in names]))
        return todo, without

    def judge(self, about: dict[str, Any], pairs: dict[CodeType, CodeType], items: list[pytest.Item]) -> None:
        """Run one mutant."""
        status, answer = in_child(lambda: self.noticed(pairs, items), 5 * self.options.longest)
        by, ran = json.loads(answer) if answer else (f"status {status}", 0)
        self.verdicts.add(**about, verdict="killed" if by else "survived", by=by, ran=ran, tests=len(items))

    def noticed(self, pairs: dict[CodeType, CodeType], items: list[pytest.Item]) -> str:
        """The first of these tests that fails when the functions have the other code, and how many ran, as JSON."""
        for old, new in pairs.items():
            for function in self.functions.get(old, ()):
                function.__code__ = new
        begun = time.process_time()
        ran = 0
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            ran += 1
            if self.failed or time.process_time() - begun > self.options.longest:
                break
        return json.dumps((self.failed, ran))

    def show(self, without: int) -> None:
        """Print the survivors and the share that was noticed."""
        last = {key(line): line for line in self.verdicts.read()}
        survivors = [line for line in last.values() if line["verdict"] == "survived"]
        for one in sorted(survivors, key=lambda line: (line["file"], line["line"])):
            text = f"{one['file']}:{one['line']}: {one['kind']}: {one['source']} ({one['ran']} of {one['tests']} tests)"
            print(text, file=sys.__stderr__)
        summary = f"{len(last) - len(survivors)} of {len(last)} noticed; {without} more in functions that no test calls"
        print(summary, file=sys.__stderr__)


def functions() -> dict[CodeType, list[FunctionType]]:
    """The functions of the package by their code."""
    for file in PACKAGE.rglob("*.py"):
        importlib.import_module(".".join(file.relative_to(REPOSITORY / "src").with_suffix("").parts))
    gc.unfreeze()
    found: dict[CodeType, list[FunctionType]] = {}
    for one in gc.get_objects():
        if type(one) is FunctionType and one.__code__.co_filename.startswith(str(PACKAGE)):
            found.setdefault(one.__code__, []).append(one)
    gc.freeze()
    return found


def share(jobs: list[Any], work: Callable[[Any], object], workers: int) -> None:
    """Do the work for each job, in so many forked processes."""
    children = []
    for first in range(workers):
        if pid := os.fork():
            children.append(pid)
            continue
        status = 1
        try:
            for job in jobs[first::workers]:
                work(job)
            status = 0
        except BaseException:  # noqa: BLE001 - also the exit of a test run
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(status)
    failed = [pid for pid in children if os.waitpid(pid, 0)[1]]
    if failed:
        raise RuntimeError(f"{len(failed)} of {workers} workers failed; their errors are above")


def in_child(work: Callable[[], str], seconds: float) -> tuple[int, str]:
    """The exit status and the answer of a forked process that does the work.

    It ends with a signal after that many seconds of CPU, or ten times as much in total, as in an endless loop.
    """
    with tempfile.TemporaryFile("w+") as answer, tempfile.TemporaryFile() as output:
        if not (pid := os.fork()):
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds)))
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(math.ceil(10 * seconds))
            for number in (1, 2):
                os.dup2(output.fileno(), number)
            try:
                answer.write(work())
                answer.flush()
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # what the tests have started
        answer.seek(0)
        return status, answer.read()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="mutants, chosen by the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[""], help="files or folders of the package, e.g. checks read")
    parser.add_argument("--survivors", action="store_true", help="only run those again that no test noticed")
    parser.add_argument("--longest", type=float, default=4, help="seconds of CPU for the tests of a mutant")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    options = parser.parse_args()
    os.chdir(REPOSITORY)
    FOLDER.mkdir(exist_ok=True)
    pytest.main([TESTS, "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--timeout=0"], plugins=[Run(options)])


if __name__ == "__main__":
    main()
