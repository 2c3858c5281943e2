"""Chat templates of models, compiled in a sandbox: they are programs, and come with models that others made."""

from __future__ import annotations

import importlib
import json
import re
from datetime import UTC, datetime
from typing import Any

TEMPLATE_SANDBOX = "cloudtune_trainer.template_sandbox:BoundedSandbox"
"""The sandbox that training renders templates in, with bounds on time and memory. It needs jinja2."""

_GENERATION = re.compile(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}")


def compiled(source: str) -> Any:
    """The template as the transformers library compiles it. A rendering that takes too much raises an error."""
    from jinja2.exceptions import TemplateError
    from jinja2.ext import loopcontrols

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)

    module, _, name = TEMPLATE_SANDBOX.partition(":")
    environment = getattr(importlib.import_module(module), name)(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now(UTC).strftime(form)
    return environment.from_string(_GENERATION.sub(_without_mark, source))


def _without_mark(tag: re.Match[str]) -> str:
    """A mark of what the assistant says as a condition that always holds: it writes the same text."""
    before, end, after = tag.groups()
    return f"{{%{before} {'endif' if end else 'if true'} {after}%}}"
