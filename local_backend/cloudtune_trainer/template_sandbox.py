"""A sandbox for chat templates with limits on time and memory. Imports jinja2 only.

A chat template is a program that comes with a model. jinja2's sandbox blocks access to files and the network, but not
long loops and texts of any size, and Python cannot be interrupted while it creates a text.
"""

from __future__ import annotations

import re
import threading
import time
from functools import wraps
from typing import TYPE_CHECKING, Any

from jinja2 import nodes
from jinja2.environment import Template
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

LARGEST = 1 << 26
"""Limit of characters per rendering, in total and in one operation. An item of a list counts as `_ITEM`."""
LARGEST_NUMBER = 1 << 16
"""Limit of bits of a number."""
SECONDS = 10.0
"""Limit of CPU time of one rendering."""
_STEPS_BETWEEN_LOOKS = 512
_SEQUENCES = (str, list, tuple)
_ITEM = 8


class _Budget(threading.local):
    """The resources used by this thread's rendering."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.made = self.steps = 0
        self.end = time.thread_time() + SECONDS

    def step(self) -> None:
        self.steps += 1
        if not self.steps % _STEPS_BETWEEN_LOOKS and time.thread_time() > self.end:
            raise SecurityError(f"the template runs for more than {SECONDS:.0f} seconds")

    def take(self, made: int) -> None:
        """Count the output of an operation. Called before an operation whose result can be large."""
        self.made += made
        if self.made > LARGEST:
            raise SecurityError(f"the template makes more than {LARGEST:,} characters")


_budget = _Budget()


class BoundedTemplate(Template):
    """A template with a budget for each rendering."""

    def new_context(self, *arguments: Any, **named: Any) -> Any:
        """Begin a rendering."""
        _budget.start()
        return super().new_context(*arguments, **named)


class BoundedSandbox(ImmutableSandboxedEnvironment):
    """jinja2's sandbox, with a budget for each rendering. A template that exceeds it gets a `SecurityError`."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    template_class = BoundedTemplate

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, finalize=_written, **named)
        self.globals.pop("lipsum", None)  # creates text of any requested size
        self.filters = _Guarded(self.filters)
        self.tests = _Guarded(self.tests)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        _budget.start()  # constant expressions are computed while the template is compiled
        return _Instrument().visit(super()._parse(source, name, filename))  # type: ignore[no-any-return]

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """See `SandboxedEnvironment`."""
        if operator == "+":
            if isinstance(left, _SEQUENCES) and isinstance(right, _SEQUENCES):
                _budget.take((len(left) + len(right)) * (1 if isinstance(left, str) else _ITEM))
            return left + right
        _budget.step()
        _take_operation(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, called: Any, /, *arguments: Any, **named: Any) -> Any:
        """See `SandboxedEnvironment`."""
        whole = getattr(called, "__wrapped__", called)  # the sandbox wraps str.format
        receiver = getattr(whole, "__self__", None)
        values = (*((receiver,) if isinstance(receiver, str) else ()), *arguments, *named.values())
        _check(f"str.{whole.__name__}" if isinstance(receiver, str) else "", values)
        return _made(super().call(context, called, *arguments, **named))

    @staticmethod
    def each(items: Iterable[Any], text: int) -> Iterator[Any]:
        """Iterate for a loop whose body has ``text`` characters."""
        for item in items:
            _budget.step()
            _budget.take(text)
            yield item

    @staticmethod
    def joined(parts: list[Any]) -> str:
        """The ``~`` operator."""
        return "".join([str(_printable(part)) for part in parts])

    @staticmethod
    def kept(value: Any) -> Any:
        """A list, tuple or dict literal in the template. The call has checked its size."""
        return value


class _Instrument(NodeTransformer):
    """Adds the sandbox's checks to operations that jinja2 cannot intercept: loops, ``~``, and lists in lists."""

    def generic_visit(self, node: nodes.Node, *arguments: Any, **named: Any) -> nodes.Node:
        """Visit the children, then replace the node."""
        super().generic_visit(node, *arguments, **named)
        match node:
            case nodes.For():
                text = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
                node.iter = _call("each", node.iter, nodes.Const(text))
            case nodes.Concat():
                return _call("joined", nodes.List(node.nodes))
            case nodes.List() if not all(isinstance(item, nodes.Const) for item in node.items):
                return _call("kept", node)
            case nodes.Dict():
                return _call("kept", node)
            case nodes.Tuple() if node.ctx == "load":
                return _call("kept", node)
        return node


def _call(name: str, *arguments: Any) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(name), list(arguments), [], None, None)


class _Guarded(dict[str, Any]):
    """Filters or tests. Each one is checked when it is used, also if added later."""

    def __init__(self, functions: dict[str, Any]) -> None:
        super().__init__({name: _guarded(name, function) for name, function in functions.items()})

    def __setitem__(self, name: str, function: Any) -> None:
        super().__setitem__(name, _guarded(name, function))


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    hidden = 1 if hasattr(function, "jinja_pass_arg") else 0  # the context comes first

    @wraps(function)
    def checked(*arguments: Any, **named: Any) -> Any:
        _check(name, (*arguments[hidden:], *named.values()))
        return _made(function(*arguments, **named))

    return checked


def _written(value: Any) -> Any:
    """A value that the template prints."""
    text = value if type(value) is str else str(_printable(value))
    _budget.take(len(text))
    return text


def _printable(value: Any) -> Any:
    if isinstance(value, Namespace):
        raise SecurityError("a namespace cannot be printed")
    _size(value)
    return value


def _made(value: Any) -> Any:
    if isinstance(value, _SEQUENCES):
        _budget.take(len(value) * (1 if isinstance(value, str) else _ITEM))
    return value


def _size(value: Any) -> int:
    """Characters and items of a value. A list that occurs twice counts twice, as when printed."""
    if isinstance(value, str):
        return len(value)
    total, waiting = 0, [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            total += len(one)
        elif isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple):
            waiting += one
        total += _ITEM
        if total + len(waiting) * _ITEM > LARGEST:
            raise SecurityError("a value is too large")
    return total


def _take_operation(operator: str, left: Any, right: Any) -> None:
    """Count the output of an operation in advance."""
    if isinstance(left, int) and isinstance(right, int):
        left_bits, right_bits = left.bit_length(), right.bit_length()
        bits = left_bits * max(right, 0) if operator == "**" else left_bits + right_bits
        if bits > LARGEST_NUMBER:
            raise SecurityError(f"the result of {operator} is too large")
    elif operator == "%" and isinstance(left, str):
        values = right if isinstance(right, tuple) else (right,)
        _budget.take(_size(left) + _size(right) + _widest(left, values))
    elif operator == "*":
        for sequence, count in ((left, right), (right, left)):
            if isinstance(count, int) and isinstance(sequence, _SEQUENCES):
                _budget.take(len(sequence) * max(count, 0) * (1 if isinstance(sequence, str) else _ITEM))


def _widest(pattern: str, values: Iterable[Any]) -> int:
    """The characters that the widths in a pattern, or among its values, can add."""
    widths = [int(digits) for digits in re.findall(r"\d{1,18}", pattern)]
    return sum(widths) + pattern.count("*") * _largest(values) + pattern.count("{") * _largest(values)


def _largest(values: Iterable[Any]) -> int:
    return max((abs(value) for value in values if isinstance(value, int)), default=0)


def _check(name: str, values: tuple[Any, ...]) -> None:
    """Refuse a call, filter or test whose output would be too large."""
    _budget.step()
    size = sum(_size(value) for value in values)
    grow = _GROWTH.get(name)
    if size + (grow(values) if grow is not None and values else 0) > LARGEST:
        raise SecurityError(f"the result of {name.removeprefix('str.')} is too large")


def _length(values: tuple[Any, ...], place: int) -> int:
    value = values[place] if place < len(values) else 0
    return len(value) if isinstance(value, str | list | tuple | dict | range) else 0


def _by_number(values: tuple[Any, ...]) -> int:
    return _largest(values)


def _by_lines(values: tuple[Any, ...]) -> int:
    lines = str(values[0]).count("\n") + 1
    return lines * max(_largest(values), max((_length(values, place) for place in range(1, len(values))), default=0))


def _by_product(values: tuple[Any, ...]) -> int:
    size = _length(values, 0)
    return size * max(_largest(values), max((_size(value) for value in values[1:]), default=0))


def _by_join(values: tuple[Any, ...]) -> int:
    return _length(values, 0) * _length(values, 1)


def _by_replace(values: tuple[Any, ...]) -> int:
    return (_length(values, 0) // max(1, _length(values, 1)) + 1) * _length(values, 2)


def _by_pattern(values: tuple[Any, ...]) -> int:
    return _widest(str(values[0]), values[1:])


_GROWTH: dict[str, Callable[[tuple[Any, ...]], int]] = {
    "center": _by_number, "batch": _by_number, "slice": _by_number, "format": _by_pattern, "indent": _by_lines,
    "join": _by_join, "replace": _by_replace, "wordwrap": _by_product, "tojson": _by_product, "pprint": _by_product,
    "str.center": _by_number, "str.ljust": _by_number, "str.rjust": _by_number, "str.zfill": _by_number,
    "str.expandtabs": _by_product, "str.format": _by_pattern, "str.format_map": _by_pattern, "str.join": _by_join,
    "str.replace": _by_replace, "str.translate": _by_product,
}  # fmt: skip
"""Upper bounds for functions whose output can be larger than their input."""
