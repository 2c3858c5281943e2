"""Settings of policy optimization for cloudtune's own trainer: terms, defaults, validation, and the reward's file."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError

from cloudtune.errors import CloudtuneError, InputError, Problem, SpecError
from cloudtune.files.regular_file import read_regular
from cloudtune.methods import METHODS, methods_of
from cloudtune.spec_types import NaturalFloat, Part, PositiveFloat, PositiveInt
from cloudtune.state import JobRef
from cloudtune_trainer.adapters import is_whole_model
from cloudtune_trainer.fingerprint import weights_fingerprint
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.tuned import read_tuned

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloudtune.spec import JobSpec
    from cloudtune_trainer.submit.plan import Choices

POLICY = methods_of("policy_optimization")
"""Methods that sample completions and learn from their rewards."""
KEY = "policy"
FIELDS = ("reward", "num_generations", "temperature", "max_new_tokens")
"""Fields of ``method`` that only these methods use."""
_DEFAULTS: dict[str, Any] = {"beta": 0.05, "num_generations": 8, "temperature": 1.0, "max_new_tokens": 256}
_OWN: dict[str, Any] = {
    "steps_per_batch": 1, "clip_range": 0.2, "scale_rewards": True, "normalization": "tokens", "discount": 1.0,
    "decay": 0.95, "value_coefficient": 0.1,
}  # fmt: skip
_BY_METHOD: dict[str, dict[str, Any]] = {"grpo": {"beta": 0.04}, "ppo": {"num_generations": 1, "steps_per_batch": 4}}
"""Other defaults of one method."""
_ONLY = {"grpo": ("scale_rewards", "normalization"), "ppo": ("discount", "decay", "value_coefficient")}
"""Overrides that only one method uses."""
_SINGLE = ("ppo",)
"""Methods that do not compare the completions of a prompt."""
_TIMEOUT_S = 300.0
_LARGEST_FILE = 16 << 20


class PolicyOverrides(Part):
    """``overrides.<back end>.policy``: settings without a portable field, since no vendor's service has them."""

    steps_per_batch: PositiveInt | None = None
    """Optimizer steps on the same completions; default 1, and 4 for ppo."""
    clip_range: Annotated[PositiveFloat, Field(lt=1)] | None = None
    """How far a ratio of probabilities counts: from 1 - clip_range to 1 + clip_range; default 0.2."""
    scale_rewards: bool | None = None
    """For grpo: divide a group's advantages by their standard deviation; default true."""
    normalization: Literal["tokens", "sequences"] | None = None
    """For grpo: the loss is a mean over the step's tokens, or over completions of each one's mean over its tokens, as
    in its paper; default tokens."""
    discount: Annotated[NaturalFloat, Field(le=1)] | None = None
    """For ppo: gamma, the discount of later rewards; default 1."""
    decay: Annotated[NaturalFloat, Field(le=1)] | None = None
    """For ppo: lambda of generalized advantage estimation; default 0.95."""
    value_coefficient: NaturalFloat | None = None
    """For ppo: the weight of the value loss; default 0.1."""


def terms(spec: JobSpec, choices: Choices, adapter: str, reward_file: Mapping[str, Any] | None) -> dict[str, Any]:
    """The part ``policy`` of the trainer's spec; nothing for other methods."""
    name, reward = spec.method.name, spec.method.reward
    if name not in POLICY or reward is None:
        return {}
    given = PolicyOverrides.model_validate(_given(spec, choices.backend))
    why = f"default of {choices.backend} for {name}"
    source = next(key for key in ("function", "url", "model") if getattr(reward, key) is not None)
    choices.note(f"method.reward.{source}", getattr(reward, source), "spec")
    timeout = choices.pick("method.reward.timeout", reward.timeout, _TIMEOUT_S)
    facts = {name: value for name, value in (reward_file or {}).items() if name != "max_length"}
    found: dict[str, Any] = {"reward": {source: getattr(reward, source), "timeout": timeout, **facts}}
    usual = _DEFAULTS | _OWN | _BY_METHOD.get(name, {})
    for field in _DEFAULTS:
        found[field] = choices.pick(f"method.{field}", getattr(spec.method, field), usual[field], why)
    for field in _applied(name):
        value = getattr(given, field)
        found[field] = usual[field] if value is None else value
        choices.note(f"overrides.{choices.backend}.{KEY}.{field}", found[field], why if value is None else "override")
    if found["beta"]:
        how = (
            "a frozen copy: the memory of the weights twice; `method.beta: 0` trains without it"
            if is_whole_model(adapter)
            else "the same weights with the adapter disabled: one more forward pass per step, no second copy"
        )
        choices.note("reference", "the base model", f"derived: {how}")
    return {KEY: found}


def _applied(method: str) -> tuple[str, ...]:
    """The overrides that the method uses."""
    others = {field for name, fields in _ONLY.items() if name != method for field in fields}
    return tuple(field for field in _OWN if field not in others)


def _given(spec: JobSpec, backend: str) -> Mapping[str, Any]:
    return spec.overrides.get(backend, {}).get(KEY) or {}


def misused(spec: JobSpec, backend: str) -> Iterator[Problem]:
    """Problems of the settings of policy optimization: missing, without effect, or not possible."""
    name = spec.method.name
    if name in POLICY:
        yield from _of_completions(spec)
    else:
        for field in FIELDS:
            shared = field == "temperature" and (METHODS[name].teacher or METHODS[name].task == "text_embedding")
            if getattr(spec.method, field) is not None and not shared:
                fix = f"remove it, or use {' or '.join(POLICY)}"
                yield Problem(code="no_effect", field=f"method.{field}", message=f"{name} does not use it", fix=fix)
    try:
        given = PolicyOverrides.model_validate(_given(spec, backend))
    except ValidationError:  # cloudtune reports this
        return
    useful = _applied(name) if name in POLICY else ()
    for field in PolicyOverrides.model_fields:
        if getattr(given, field) is not None and field not in useful:
            place = f"overrides.{backend}.{KEY}.{field}"
            yield Problem(code="no_effect", field=place, message=f"{name} does not use {field}", fix="remove it")


def _of_completions(spec: JobSpec) -> Iterator[Problem]:
    method = spec.method
    if method.reward is None:
        yield Problem(code="no_reward", field="method.reward", message=f"{method.name} requires a reward",
                      fix="for example: reward: rewards.py:score")  # fmt: skip
    if method.num_generations == 1 and method.name not in _SINGLE:
        message = f"{method.name} compares the completions of a prompt with each other"
        yield Problem(code="range", field="method.num_generations", message=message, fix="use at least 2")
    if method.loss_on is not None:
        message = "only the sampled completions are trained on"
        yield Problem(code="no_effect", field="method.loss_on", message=message, fix="remove it")
    if spec.hyperparameters.packing:
        message = "completions are not packed: a step is `batch_size` prompts"
        yield Problem(code="no_effect", field="hyperparameters.packing", message=message, fix="remove it")


def too_long(document: Mapping[str, Any], length: int, reward: Mapping[str, Any] | None) -> Iterator[Problem]:
    """Problems of the sequences' ``length``: without a token for a prompt, or longer than a reward model reads."""
    new = document.get(KEY, {}).get("max_new_tokens", 0)
    if new >= length:
        message = f"{new} new tokens leave none to the prompt: max_length is {length}, completions included"
        yield Problem(code="range", field="method.max_new_tokens", message=message, fix=f"use less than {length}")
    read = (reward or {}).get("max_length", length)
    if read < length:
        message = f"the reward model reads {read} tokens, and max_length is {length}: it would not see all of an answer"
        yield Problem(code="too_long", field="hyperparameters.max_length", message=message, fix=f"use at most {read}")


def find_reward(spec: JobSpec) -> dict[str, Any] | None:
    """The fingerprint of the spec's reward, if it is a file or a folder, its absolute path, and a folder's tokens.

    A file is read, not run. Raises SpecError for a file without the function, and for what is not a reward model.
    """
    reward = spec.method.reward
    if spec.method.name not in POLICY or reward is None:
        return None
    try:
        if reward.model is not None:
            return _reward_model(reward.model)
        place, _, name = (reward.function or "").rpartition(":")
        if not place.endswith(".py"):
            return None
        file = Path(place).expanduser().absolute()
        return {"function": f"{file}:{name}", "fingerprint": _function_file(file, name)}
    except (OSError, RuntimeError, ValueError, SyntaxError, TrainingProblem, CloudtuneError) as error:
        field, fix = "function", "give a Python file and a function that it defines, e.g. rewards.py:score"
        if reward.model is not None:
            field, fix = "model", "give the model folder of a run with method: reward, or the run's reference"
        message = f"cannot use {getattr(reward, field)}: {error}"
        raise SpecError([
            Problem(code="no_reward", field=f"method.reward.{field}", message=message, fix=fix)
        ]) from error  # fmt: skip


def _reward_model(place: str) -> dict[str, Any]:
    folder = Path(place).expanduser()
    if not folder.is_absolute():
        ref = JobRef.parse(place)
        folder = Path(ref.scope, ref.id, "model")
    tuned = read_tuned(folder)
    if METHODS[tuned["method"]].task != "reward_model":
        raise InputError(f"its method is {tuned['method']}")
    found = {"model": str(folder), "fingerprint": weights_fingerprint(folder)}
    return found | ({"max_length": tuned["max_length"]} if "max_length" in tuned else {})


def _function_file(file: Path, name: str) -> str:
    content = read_regular(file, _LARGEST_FILE)
    if name not in set(_defined(ast.parse(content))):
        raise InputError(f"it does not define {name}")
    return hashlib.sha256(content).hexdigest()


def _defined(tree: ast.Module) -> Iterator[str]:
    """Names that a module defines or imports at its top level."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (one.asname or one.name for one in node.names)
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def unsupported(reason: str) -> dict[str, str]:
    """The features of these methods, for a back end that cannot run them."""
    return dict.fromkeys((*(f"method:{name}" for name in POLICY), *(f"method.{field}" for field in FIELDS)), reason)
