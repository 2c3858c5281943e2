"""A vendor whose every word holds escape sequences, markup and characters that reorder or hide text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.errors import InvalidRequest
from cloudtune.optional import Check
from cloudtune.state import JobProblem, JobRef
from cloudtune.testing.scripted import ScriptedBackend

if TYPE_CHECKING:
    from cloudtune.state import Checkpoint, Deployment, Event, Generation, JobSnapshot, Metric, TunedModel

NAMED = (
    "\x1b]0;owned\x07\x1b[2J\x1b[31;8m\x9b31m\x9d0;owned\x9c\x90q\x85"
    "\u202eabc\u2066\u200f\u061c\u200b\ufeff\x08\x7f\U000e0041"
)
"""May stand in an argument and a file name."""
EVIL = f"{NAMED}\r\x0b\x0c[red]x[/red][link=http://evil.example]y[/link]:boom:\u2028\x00"
_KEPT = frozenset(
    {"id", "cursor", "ref", "backend", "scope", "state", "split", "level", "call", "type", "verdict", "parent"}
)


def hostile(value: Any) -> Any:
    """The value with all its free text hostile."""
    if isinstance(value, str):
        return f"{value}{EVIL}"
    if isinstance(value, JobRef):
        return value
    if isinstance(value, msgspec.Struct):
        names = [name for name in value.__struct_fields__ if name not in _KEPT]
        return msgspec.structs.replace(value, **{name: hostile(getattr(value, name)) for name in names})
    if isinstance(value, dict):
        return {hostile(key): hostile(item) for key, item in value.items()}
    return type(value)(map(hostile, value)) if isinstance(value, list | tuple) else value


class HostileBackend(ScriptedBackend):
    """Trains as `ScriptedBackend` does."""

    def get(self, ref: JobRef) -> JobSnapshot:
        found = hostile(super().get(ref))
        return msgspec.structs.replace(found, problem=JobProblem(message=EVIL, code=EVIL, hint=f"a\n{EVIL}"))

    def get_many(self, refs: Any) -> Any:
        return {ref: hostile(found) for ref, found in super().get_many(refs).items()}

    def list(self, limit: int | None = None) -> Any:
        return [hostile(found) for found in super().list(limit)]

    def events(self, ref: JobRef, after: str | None = None) -> list[Event]:
        return [hostile(found) for found in super().events(ref, after)]

    def metrics(self, ref: JobRef, after: str | None = None) -> list[Metric]:
        return [
            msgspec.structs.replace(found, values={"loss": 1.0, f"own{EVIL}": 2.0})
            for found in super().metrics(ref, after)
        ]

    def checkpoints(self, ref: JobRef) -> list[Checkpoint]:
        return [msgspec.structs.replace(hostile(one), id=f"{one.id}{EVIL}") for one in super().checkpoints(ref)]

    def model(self, ref: JobRef) -> TunedModel:
        return super().model(ref)

    def deployments(self) -> list[Deployment]:
        return [hostile(found) for found in super().deployments()]

    def generate(self, model: Any, prompts: Any, options: Any = None) -> Iterator[Generation]:
        for found in super().generate(model, prompts, options):
            yield msgspec.structs.replace(found, text=f"{found.text}{EVIL}")

    def cancel(self, ref: JobRef) -> None:
        raise InvalidRequest(f"not now {EVIL}", hint=EVIL)

    def preflight(self, spec: Any = None, plan: Any = None) -> Iterator[Check]:
        yield Check(what=f"role {EVIL}", verdict="warning", detail=EVIL)
