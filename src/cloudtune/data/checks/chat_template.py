"""Chat templates of models, compiled in a sandbox: they are programs, and come with models that others made."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

LARGEST_VALUE = 1 << 24
"""Of what one operation in a chat template makes: the bits of a number, the characters of a text."""

_GENERATION = re.compile(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}")


def compiled(source: str) -> Any:
    """The template as the transformers library compiles it.

    One operation of a template may not make a number or a text of any size: Python cannot be interrupted in it.
    """
    from jinja2.exceptions import SecurityError, TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"*", "**", "%"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if _result_size(operator, left, right) > LARGEST_VALUE:
                raise SecurityError(f"the result of {operator} is too large")
            return super().call_binop(context, operator, left, right)

        def call(self, context: Any, called: Any, /, *arguments: Any, **named: Any) -> Any:
            if any(isinstance(value, int) and value > LARGEST_VALUE for value in (*arguments, *named.values())):
                raise SecurityError("a number in a call is too large")
            return super().call(context, called, *arguments, **named)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)

    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now(UTC).strftime(form)
    return environment.from_string(_GENERATION.sub(_without_mark, source))


def _without_mark(tag: re.Match[str]) -> str:
    """A mark of what the assistant says as a condition that always holds: it writes the same text."""
    before, end, after = tag.groups()
    return f"{{%{before} {'endif' if end else 'if true'} {after}%}}"


def _result_size(operator: str, left: Any, right: Any) -> int:
    """A bound on the size of the operation's result: bits of a number, items of a sequence."""
    if isinstance(left, int) and isinstance(right, int):
        if operator == "**":
            return left.bit_length() * max(right, 0)
        return left.bit_length() + right.bit_length()
    if operator == "%" and isinstance(left, str):
        values = right if isinstance(right, tuple) else (right,)
        widths = [int(digits) for digits in re.findall(r"\d{1,18}", left)]
        return max([*widths, *(value for value in values if isinstance(value, int))], default=0)
    for sequence, count in ((left, right), (right, left)):
        if operator == "*" and isinstance(count, int) and hasattr(sequence, "__len__"):
            return len(sequence) * max(count, 0)
    return 0
