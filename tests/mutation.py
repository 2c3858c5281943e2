"""Mutation testing of the data package: ``python -m tests.mutation --count 300``.

A mutant is one function with one small fault, such as a negated condition. Each runs in a forked child against the
tests that call the function, fastest first. Mutants that no test notices are printed: each is a missing test, dead
code, or a change without effect. Tests of other processes never see the fault, so they do not count.
"""

from __future__ import annotations

import argparse
import ast
import gc
import importlib
import inspect
import json
import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "src/cloudtune/data"
TESTS = "tests/unit/data"
OPPOSITE: dict[type, type] = {
    ast.Eq: ast.NotEq, ast.Lt: ast.LtE, ast.Gt: ast.GtE, ast.In: ast.NotIn, ast.Is: ast.IsNot, ast.And: ast.Or,
}  # fmt: skip
OPPOSITE |= {new: old for old, new in OPPOSITE.items()}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class Mutant(NamedTuple):
    """The ``index``-th possible fault of a file."""

    file: Path
    index: int


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
    """The code of each function with its counterpart, where they differ. Functions may be nested."""
    if old != new and old.co_flags & inspect.CO_OPTIMIZED:
        yield old, new
    pairs = [[one for one in code.co_consts if isinstance(one, CodeType)] for code in (old, new)]
    for was, now in zip(*pairs, strict=True):
        yield from changed_code(was, now)


class Calls:
    """Which functions of the package each test calls, and how long the test takes."""

    def __init__(self) -> None:
        self.tests: dict[str, list[tuple[float, str]]] = {}

    def record(self, item: pytest.Item, following: pytest.Item | None) -> None:
        """Run one test."""
        called: set[CodeType] = set()
        folder = str(PACKAGE)

        def trace(frame: Any, _event: str, _argument: object) -> None:
            if frame.f_code.co_filename.startswith(folder):
                called.add(frame.f_code)

        start = time.perf_counter()
        sys.settrace(trace)
        try:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        finally:
            sys.settrace(None)
        took = time.perf_counter() - start
        for name in {place(code) for code in called}:
            self.tests.setdefault(name, []).append((took, item.nodeid))


def place(code: CodeType) -> str:
    """The name of a function's code in the record of calls."""
    return f"{Path(code.co_filename).relative_to(PACKAGE)}:{code.co_firstlineno}"


class Run:
    """A plugin that runs mutants in place of the tests."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.failed = False
        self.functions: dict[CodeType, list[FunctionType]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember a failure."""
        self.failed = self.failed or report.failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Record which test calls what, then run the mutants."""
        self.functions = functions()
        tests = self.calls(session)
        mutants = [Mutant(file, index) for file in sorted(PACKAGE.rglob("*.py"))
                   if any(str(file.relative_to(PACKAGE)).startswith(part) for part in self.options.only)
                   for index in range(len(list(faults(ast.parse(file.read_text())))))]  # fmt: skip
        random.Random(self.options.seed).shuffle(mutants)
        items = {item.nodeid: item for item in session.items}
        killed = done = 0
        begun = time.monotonic()
        for mutant in mutants[: self.options.count]:
            source = mutant.file.read_text()
            tree = ast.parse(source)
            old = compile(source, mutant.file, "exec", dont_inherit=True)
            line, kind = mutated(tree, mutant.index)
            pairs = dict(changed_code(old, compile(tree, mutant.file, "exec", dont_inherit=True)))
            if self.options.line and line != self.options.line:
                continue
            callers = sorted({one for code in pairs for one in tests.get(place(code), ())})
            chosen = [items[name] for _, name in callers if name in items]
            status = in_child(lambda: self.noticed(pairs, chosen))  # noqa: B023 - called at once
            done += 1
            killed += status != 0
            if status == 0:
                shown = source.splitlines()[line - 1].strip()
                report = f"{mutant.file.relative_to(PACKAGE)}:{line}: {kind}: {shown} ({len(callers)} tests)"
                print(report, file=sys.__stderr__, flush=True)
        print(f"{killed} of {done} noticed, in {time.monotonic() - begun:.0f} s", file=sys.__stderr__, flush=True)
        return True

    def calls(self, session: pytest.Session) -> dict[str, list[tuple[float, str]]]:
        """The tests of each function, from the file of an earlier run if there is one."""
        file = Path(self.options.calls)
        if not file.exists():

            def record() -> bool:
                calls = Calls()
                for item, following in zip(session.items, [*session.items[1:], None], strict=True):
                    calls.record(item, following)
                file.write_text(json.dumps(calls.tests))
                return self.failed

            if in_child(record, limit=3600):
                sys.exit("the tests must pass without a mutant")
        return {name: [tuple(one) for one in found] for name, found in json.loads(file.read_text()).items()}

    def noticed(self, pairs: dict[CodeType, CodeType], items: list[pytest.Item]) -> bool:
        """Whether one of these tests fails when the functions have the other code."""
        for old, new in pairs.items():
            for function in self.functions.get(old, ()):
                function.__code__ = new
        for item, following in zip(items, [*items[1:], None], strict=False):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.failed or time.process_time() > self.options.longest:
                break
        return self.failed


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


def in_child(work: Any, limit: int = 60) -> int:
    """The exit status of a forked process that does the work: 0 if it returns False.

    It ends with a signal after that many seconds of CPU, as in an endless loop.
    """
    if pid := os.fork():
        return os.waitpid(pid, 0)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    with tempfile.TemporaryFile() as output:
        for number in (1, 2):
            os.dup2(output.fileno(), number)
    try:
        os._exit(bool(work()))
    except BaseException:  # noqa: BLE001 - the mutant may raise anything
        os._exit(1)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="mutants, chosen by the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[""], help="files or folders of the package, e.g. checks read")
    parser.add_argument("--line", type=int, help="only mutants of this line")
    parser.add_argument("--longest", type=float, default=15, help="seconds of CPU for the tests of a mutant")
    parser.add_argument("--calls", default=".mutation.json", help="the file that keeps which test calls what")
    options = parser.parse_args()
    os.chdir(REPOSITORY)
    pytest.main([TESTS, "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--timeout=0"], plugins=[Run(options)])


if __name__ == "__main__":
    main()
