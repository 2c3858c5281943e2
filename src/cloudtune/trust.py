"""Trust flags: whether Python code that comes with a model may run.

Only the user can allow this, for one call, or when the job is submitted. The ledger records the decision. A flag in a
spec file, an archive or a vendor's response, which others may have written, requests trust but does not grant it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune.errors import PolicyRefused, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloudtune.plan import Plan

TRUST_REMOTE_CODE = "trust_remote_code"
_OFF = ("", "0", "false", "no", "off", "none", "null")


def trust_fields(spec: Mapping[str, Any], backend: str) -> tuple[str, ...]:
    """The fields of a spec that ask to run a model's own code on that back end, as dotted paths."""
    own = (spec.get("overrides") or {}).get(backend)
    return tuple(_fields(own, f"overrides.{backend}"))


def _fields(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _fields(item, f"{path}.{number}")
    if isinstance(value, dict):
        for key, item in value.items():
            if str(key).lower().endswith(TRUST_REMOTE_CODE):
                if str(item).strip().strip('"').lower() not in _OFF:
                    yield f"{path}.{key}"
            else:
                yield from _fields(item, f"{path}.{key}")


def trust_warnings(spec: Mapping[str, Any], backend: str) -> tuple[Problem, ...]:
    """One warning for each field that requests trust."""
    message = "the job runs Python code from the model's repository, which can do anything its author wants"
    fix = "submit with --trust-remote-code if you trust the model's authors, or remove the field"
    return tuple(
        Problem(code=TRUST_REMOTE_CODE, severity="warning", field=field, message=message, fix=fix)
        for field in trust_fields(spec, backend)
    )


def check_trust(plan: Plan, *, confirmed: bool) -> None:
    """Refuse a plan whose spec requests trust that the user has not confirmed. Raises PolicyRefused."""
    fields = trust_fields(plan.spec, plan.backend)
    if fields and not confirmed:
        raise PolicyRefused(
            f"nothing was sent: {', '.join(fields)} runs Python code from the model's repository",
            hint="if you trust the model's authors, pass --trust-remote-code, or trust_remote_code=True in Python",
        )
