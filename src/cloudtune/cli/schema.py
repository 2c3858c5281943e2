"""``cloudtune schema``: print the JSON Schema of a job spec."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cloudtune.cli.options import command
from cloudtune.cli.terminal import write_raw

if TYPE_CHECKING:
    from cloudtune.cli.session import Session


@command("schema", without=("ledger", "profile"))
def schema(session: Session) -> None:
    """Print the JSON Schema of a job spec, for completion and validation in editors.

    With --backend, the schema also describes the `overrides` of that back end.
    """
    document = job_schema(session.backend)
    write_raw(json.dumps(document, indent=2) + "\n")


def job_schema(backend: str | None = None) -> dict[str, Any]:
    """Return the JSON Schema 2020-12 of a spec file."""
    from cloudtune.spec import JobSpec

    document: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "cloudtune job"}
    document |= {key: value for key, value in JobSpec.model_json_schema().items() if key != "title"}
    if backend:
        from cloudtune.registry import backend_class

        own = backend_class(backend).Overrides.model_json_schema(ref_template=f"#/$defs/{backend}.{{model}}")
        for name, part in own.pop("$defs", {}).items():
            document.setdefault("$defs", {})[f"{backend}.{name}"] = part
        document["properties"]["overrides"].setdefault("properties", {})[backend] = own
    return document
