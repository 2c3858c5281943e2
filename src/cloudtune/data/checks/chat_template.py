"""Chat templates of models, compiled in a sandbox, because they are programs from untrusted models."""

from __future__ import annotations

import importlib
import json
import re
from datetime import UTC, datetime
from typing import Any

TEMPLATE_SANDBOX = "cloudtune_trainer.template_sandbox:BoundedSandbox"
"""The sandbox in which training renders templates, with limits on time and memory. It needs jinja2."""

_GENERATION = re.compile(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}")


def compiled(source: str) -> Any:
    """Compile the template like the transformers library. A rendering that exceeds the limits raises an error."""
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
    """Compile ``{% generation %}`` as a condition that is always true: the text is the same."""
    before, end, after = tag.groups()
    return f"{{%{before} {'endif' if end else 'if true'} {after}%}}"
