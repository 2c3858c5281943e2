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
_RUNS = "runs a Python function with your permissions, to score completions"
_SENDS = "sends its prompts and the model's completions to this endpoint"
_MEASURES = "runs a Python function with your permissions, to score answers"
_URL = re.compile(r"\s*https?://\S+\s*", re.IGNORECASE)
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


def reward_fields(spec: Mapping[str, Any], backend: str) -> dict[str, str]:
    """The fields of a spec that name a program or an endpoint to score completions, and what each does.

    Besides ``method.reward``, any address in the overrides counts: a grader of Azure can be an endpoint.
    """
    reward = (spec.get("method") or {}).get("reward") or {}
    found = {f"method.reward.{name}": does for name, does in (("function", _RUNS), ("url", _SENDS)) if reward.get(name)}
    metrics = (spec.get("evaluation") or {}).get("metrics") or ()
    if any(map(is_function, metrics)):
        found["evaluation.metrics"] = _MEASURES
    own = (spec.get("overrides") or {}).get(backend)
    return found | dict.fromkeys(_addresses(own, f"overrides.{backend}"), _SENDS)


def is_function(metric: str) -> bool:
    """Whether the name of a metric is that of a Python function: ``module:function`` or ``file.py:function``."""
    return not metric.startswith(("regex:", "json_schema:")) and _FUNCTION.fullmatch(metric) is not None


def _addresses(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _addresses(item, f"{path}.{key}")
    elif isinstance(value, str) and _URL.fullmatch(value):
        yield path


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
            code=TRUST_REWARD, severity="warning", field=field, message=f"the job {does}",
            fix="submit with --trust-reward if you trust it",
        )
        for field, does in reward_fields(spec, backend).items()
    ]  # fmt: skip
    return (*remote, *rewards)


def check_trust(plan: Plan, *, confirmed: bool, reward_confirmed: bool = False) -> None:
    """Refuse a plan whose spec requests trust that the user has not confirmed. Raises PolicyRefused.

    ``confirmed`` is about the code of a model, ``reward_confirmed`` about the spec's reward.
    """
    require_trust(plan.spec, plan.backend, confirmed=confirmed, reward_confirmed=reward_confirmed)


def require_trust(spec: Mapping[str, Any], backend: str, *, confirmed: bool, reward_confirmed: bool) -> None:
    """As `check_trust`, for a spec that is not planned yet."""
    fields = trust_fields(spec, backend)
    if fields and not confirmed:
        raise PolicyRefused(
            f"nothing was sent: {', '.join(fields)} runs Python code from the model's repository",
            hint="if you trust the model's authors, pass --trust-remote-code, or trust_remote_code=True in Python",
        )
    if (rewards := reward_fields(spec, backend)) and not reward_confirmed:
        what = " and ".join(f"{field} {does}" for field, does in rewards.items())
        raise PolicyRefused(
            f"nothing was sent: {what}",
            hint="if you trust it, pass --trust-reward, or trust_reward=True in Python",
        )
