"""The reward of a completion: from the user's own function or endpoint, or from a reward model.

A function has the convention of trl's reward functions: ``reward(prompts, completions, **columns)``, with one entry in
each list for each completion, returns a list of numbers. A prompt is a list of messages, a completion a list with the
assistant's message, and the columns are the fields of the rows. A function without ``**columns`` gets the columns that
it names.

The function runs in the trainer's process with the user's permissions. Only a spec that the user has confirmed
contains one.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import json
import math
import re
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune_trainer.fingerprint import check_fingerprint
from cloudtune_trainer.problems import TrainingProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import CodeType

    from cloudtune_trainer.policy_spec import Reward


_LARGEST_REPLY = 64 << 20
_ATTEMPTS = 3
_SHOWN = 10
"""How many rows a message names."""


@dataclass(frozen=True)
class RewardInputs:
    """The completions of one call."""

    rows: Sequence[int]
    """Each completion's row in the file, counted from 1."""
    prompts: Sequence[Sequence[dict[str, Any]]]
    completions: Sequence[str]
    fields: Sequence[dict[str, Any]]
    """The other fields of each row."""
    tools: Sequence[list[dict[str, Any]] | None]
    """The tools of each row's prompt."""


class _Timeout(Exception):
    """A call did not return within its time."""


class RewardCall:
    """A reward, called with a time limit. Every failure is one `TrainingProblem` ``bad_reward``."""

    def __init__(self, source: Reward, device: str = "auto", *, max_length: int = 0) -> None:
        """``device`` is that of a reward model, which must take texts of ``max_length`` tokens."""
        self.name = f"the reward {source.function or source.url or source.model}"
        self._limit = source.timeout
        if source.function is not None:
            self._score = _function(source.function, source.fingerprint)
        elif source.url is not None:
            self._score = _endpoint(source.url, source.timeout)
        else:
            assert source.model is not None  # `read_spec` checks it
            self._score = _model(Path(source.model), source.fingerprint, device, max_length)
        self._timed = self._score if source.model is not None else self._call_in_thread

    def __call__(self, inputs: RewardInputs) -> list[float]:
        """One finite number for each completion."""
        if not inputs.rows:
            return []
        try:
            rewards = self._timed(inputs)
        except _Timeout:
            raise self._problem(f"did not return within {self._limit:g} s for {_listed(inputs.rows)}",
                                "Make it faster, or raise method.reward.timeout.") from None  # fmt: skip
        except TrainingProblem as problem:  # a reward model refuses a conversation
            what = re.sub(r"^input \d+: ", "", problem.message)
            where = self._first_failing(inputs)
            raise self._problem(f"cannot score {where}: {what}", problem.hint or "") from problem
        except Exception as error:
            where = self._first_failing(inputs)
            raise self._problem(f"raised {type(error).__name__}: {error} for {where}", "Fix it, then resume the job: "
                                "a reward must accept every completion, an empty one too.") from error  # fmt: skip
        return self._checked(rewards, inputs)

    def _call_in_thread(self, inputs: RewardInputs) -> Any:
        """A call that never returns ends with the process."""
        outcome: list[Any] = []

        def run() -> None:
            try:
                outcome.append((self._score(inputs), None))
            except Exception as error:  # noqa: BLE001 - any failure of the user's code
                outcome.append((None, error))
            except BaseException as error:  # noqa: BLE001 - such as SystemExit or asyncio.CancelledError
                outcome.append((None, RuntimeError(f"{type(error).__name__}: {error}")))

        thread = threading.Thread(target=run, name="reward", daemon=True)
        thread.start()
        thread.join(self._limit)
        if not outcome:
            raise _Timeout
        value, error = outcome[0]
        if error is not None:
            raise error
        return value

    def _first_failing(self, inputs: RewardInputs) -> str:
        """The row whose completion fails alone, if there is one."""
        deadline = time.monotonic() + self._limit
        for place, row in enumerate(inputs.rows):
            if time.monotonic() > deadline:
                break
            alone = RewardInputs(*([list_[place]] for list_ in vars(inputs).values()))
            try:
                self._timed(alone)
            except Exception:  # noqa: BLE001 - any failure of the user's code
                return f"row {row}, completion {json.dumps(inputs.completions[place][:200], ensure_ascii=False)}"
        return _listed(inputs.rows)

    def _checked(self, rewards: Any, inputs: RewardInputs) -> list[float]:
        try:
            values = list(rewards)
        except TypeError:
            raise self._problem(f"returned {type(rewards).__name__} instead of a list of numbers",
                                "Return one number for each completion.") from None  # fmt: skip
        if len(values) != len(inputs.rows):
            raise self._problem(f"returned {len(values)} numbers for {len(inputs.rows)} completions of "
                                f"{_listed(inputs.rows)}", "Return one number for each completion.")  # fmt: skip
        found = []
        for row, value in zip(inputs.rows, values, strict=True):
            try:
                number = math.nan if isinstance(value, str) else float(value)
            except (TypeError, ValueError):
                number = math.nan
            if not math.isfinite(number):
                raise self._problem(f"returned {value!r} for row {row}", "Return a finite number for every completion.")
            found.append(number)
        return found

    def _problem(self, what: str, hint: str) -> TrainingProblem:
        return TrainingProblem("bad_reward", f"{self.name} {what}", hint)


def _arguments(inputs: RewardInputs) -> tuple[list[Any], list[Any], dict[str, list[Any]]]:
    names = dict.fromkeys(name for fields in inputs.fields for name in fields)
    completions = [[{"role": "assistant", "content": text}] for text in inputs.completions]
    columns = {name: [fields.get(name) for fields in inputs.fields] for name in names}
    return [list(prompt) for prompt in inputs.prompts], completions, columns


def _function(source: str, fingerprint: str | None) -> Callable[[RewardInputs], Any]:
    place, _, name = source.rpartition(":")
    try:
        module = _file_module(Path(place), fingerprint) if place.endswith(".py") else importlib.import_module(place)
        function = getattr(module, name)
        parameters = inspect.signature(function).parameters.values() if callable(function) else ()
    except TrainingProblem:
        raise
    except BaseException as error:
        what = f"cannot load the reward {source}: {type(error).__name__}: {error}"
        raise TrainingProblem("bad_reward", what, "Fix the module, or method.reward.function.") from error
    if not callable(function):
        raise TrainingProblem("bad_reward", f"the reward {source} is not a function", "Fix method.reward.function.")
    takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters)
    taken = {one.name for one in parameters}

    def score(inputs: RewardInputs) -> Any:
        prompts, completions, columns = _arguments(inputs)
        given = columns if takes_all else {name: column for name, column in columns.items() if name in taken}
        return function(prompts=prompts, completions=completions, **given)

    return score


def _file_module(path: Path, fingerprint: str | None) -> Any:
    content = path.read_bytes()
    if fingerprint is not None and hashlib.sha256(content).hexdigest() != fingerprint:
        raise TrainingProblem("bad_reward", f"{path} has changed since the job was submitted",
                              "Put the original back, or submit the spec as a new job.")  # fmt: skip
    loader = _SourceLoader(path.stem, str(path))
    loader.content = content
    spec = importlib.util.spec_from_file_location(path.stem, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    folder = path.parent.absolute()
    sys.path_hooks.insert(0, functools.partial(_sources_in, folder))
    sys.path.append(str(folder))  # for modules beside it
    loader.exec_module(module)
    return module


class _SourceLoader(importlib.machinery.SourceFileLoader):
    """Loads what can be read, never a compiled file from ``__pycache__``, which can hold another program."""

    content: bytes | None = None
    """The source, if it has been read."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path) if self.content is None else self.content, path)


def _sources_in(folder: Path, path: str) -> importlib.machinery.FileFinder:
    """A path hook for the folder and the packages in it."""
    if not Path(path).is_relative_to(folder):
        raise ImportError(path)
    return importlib.machinery.FileFinder(path, (_SourceLoader, importlib.machinery.SOURCE_SUFFIXES))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Rows go to the endpoint in the spec and nowhere else."""


def _endpoint(url: str, timeout: float) -> Callable[[RewardInputs], Any]:
    """POST ``{"prompts": [...], "completions": [...], "columns": {...}}``; the reply is ``{"rewards": [...]}``."""
    opener = urllib.request.build_opener(_NoRedirect)

    def score(inputs: RewardInputs) -> Any:
        prompts, completions, columns = _arguments(inputs)
        body = json.dumps({"prompts": prompts, "completions": completions, "columns": columns}).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - checked: http
        attempt, document = 0, None
        while document is None:
            try:
                # the call's own limit comes first
                with opener.open(request, timeout=timeout + 1) as reply:
                    document = json.loads(reply.read(_LARGEST_REPLY)) or {}
            except RecursionError as error:
                raise ValueError("the reply is JSON that is nested too deeply") from error
            except (urllib.error.URLError, ConnectionError) as error:
                attempt += 1
                refused = False
                if isinstance(error, urllib.error.HTTPError):
                    error.close()
                    refused = error.code < 500
                if refused or attempt == _ATTEMPTS:
                    raise
                time.sleep(2**attempt)
        if not isinstance(document, dict) or not isinstance(document.get("rewards"), list):
            raise ValueError('the reply is not {"rewards": [...]}')  # noqa: TRY004 - the endpoint's fault
        return document["rewards"]

    return score


def _model(folder: Path, fingerprint: str | None, device: str, max_length: int) -> Callable[[RewardInputs], Any]:
    from cloudtune_trainer.tasks.reward import RewardModel

    check_fingerprint(folder, fingerprint, since="the job was submitted")
    model = RewardModel.open(folder, device=device)
    if model.max_length < max_length:
        what = f"the reward model {folder} reads {model.max_length} tokens, and max_length is {max_length}"
        raise TrainingProblem("bad_spec", what, f"Use a max_length of at most {model.max_length}.")

    def score(inputs: RewardInputs) -> list[float]:
        prompts, completions, _ = _arguments(inputs)
        conversations = [[*prompt, *completion] for prompt, completion in zip(prompts, completions, strict=True)]
        return model.score(conversations, tools=inputs.tools)

    return score


def _listed(rows: Sequence[int]) -> str:
    different = sorted(set(rows))
    more = f" and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
    return f"row{'s' if len(different) > 1 else ''} {', '.join(map(str, different[:_SHOWN]))}{more}"
