"""Trust flags: whether Python code that comes with a model may run, and whether a spec's reward may be used.

Only the user can allow this, for one call, or when the job is submitted. The ledger records the decision. A flag in a
spec file, an archive or a vendor's response, which others may have written, requests trust but does not grant it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cloudtune.errors import PolicyRefused, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloudtune.plan import Plan

TRUST_REMOTE_CODE = "trust_remote_code"
TRUST_REWARD = "trust_reward"
_REWARDS = {
    "function": "runs a Python function with your permissions, to score completions",
    "url": "sends its prompts and the model's completions to this endpoint",
    "metrics": "runs a Python function with your permissions, to score answers",
}
_FUNCTION = re.compile(r".+\.py:[A-Za-z_]\w*|[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.DOTALL)
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


def reward_fields(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields of a spec that name a program or an endpoint to score completions, as dotted paths."""
    reward = (spec.get("method") or {}).get("reward") or {}
    metrics = (spec.get("evaluation") or {}).get("metrics") or ()
    functions = ["evaluation.metrics"] if any(map(is_function, metrics)) else []
    return (*(f"method.reward.{name}" for name in _REWARDS if reward.get(name)), *functions)


def is_function(metric: str) -> bool:
    """Whether the name of a metric is that of a Python function: ``module:function`` or ``file.py:function``."""
    return not metric.startswith(("regex:", "json_schema:")) and _FUNCTION.fullmatch(metric) is not None


def trust_warnings(spec: Mapping[str, Any], backend: str) -> tuple[Problem, ...]:
    """One warning for each field that requests trust."""
    message = "the job runs Python code from the model's repository, which can do anything its author wants"
    fix = "submit with --trust-remote-code if you trust the model's authors, or remove the field"
    remote = [
        Problem(code=TRUST_REMOTE_CODE, severity="warning", field=field, message=message, fix=fix)
        for field in trust_fields(spec, backend)
    ]
    rewards = [
        Problem(
            code=TRUST_REWARD, severity="warning", field=field, message=f"the job {_REWARDS[field.split('.')[-1]]}",
            fix="submit with --trust-reward if you trust it",
        )
        for field in reward_fields(spec)
    ]  # fmt: skip
    return (*remote, *rewards)


def check_trust(plan: Plan, *, confirmed: bool, reward_confirmed: bool = False) -> None:
    """Refuse a plan whose spec requests trust that the user has not confirmed. Raises PolicyRefused.

    ``confirmed`` is about the code of a model, ``reward_confirmed`` about the spec's reward.
    """
    fields = trust_fields(plan.spec, plan.backend)
    if fields and not confirmed:
        raise PolicyRefused(
            f"nothing was sent: {', '.join(fields)} runs Python code from the model's repository",
            hint="if you trust the model's authors, pass --trust-remote-code, or trust_remote_code=True in Python",
        )
    if (rewards := reward_fields(plan.spec)) and not reward_confirmed:
        what = " and ".join(f"{field} {_REWARDS[field.split('.')[-1]]}" for field in rewards)
        raise PolicyRefused(
            f"nothing was sent: {what}",
            hint="if you trust it, pass --trust-reward, or trust_reward=True in Python",
        )
