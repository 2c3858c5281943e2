"""Chooses metrics by name: those of the table, and those with a parameter of the user in their name."""

from __future__ import annotations

import importlib
import runpy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.errors import BackendError, InputError, Problem
from cloudtune.evaluation.metrics import ANY, DEFAULTS, LARGEST, METRICS, Metric, average, share
from cloudtune.evaluation.patterns import searcher, unlimited_search, with_limited_patterns
from cloudtune.evaluation.text_metrics import json_value
from cloudtune.files.regular_file import read_regular
from cloudtune.install_command import install_command
from cloudtune.trust import is_function

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloudtune.evaluation.metrics import Task

_LARGEST_SCHEMA = 16 << 20
SCHEMA = "json_schema:"


def chosen_metrics(names: Sequence[str], task: Task, *, load: bool = True) -> list[Metric]:
    """The metrics with these names, or those of the task. Raises InputError for names that do not exist or fit.

    Args:
        names: The names.
        task: What the expected answers are.
        load: Read schemas and import functions. Without it, such metrics only have their name and form.
    """
    found: list[Metric] = []
    problems: list[Problem] = []
    for name in dict.fromkeys(names or DEFAULTS[task]):
        try:
            found.append(_metric(name, task, load=load))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return found


def check_files(names: Sequence[str]) -> None:
    """Raise InputError for schemas that are wrong, and for files of functions that are missing. Runs no function."""
    problems: list[Problem] = []
    for name in names:
        place = name.rpartition(":")[0]
        try:
            if name.startswith(SCHEMA):
                _schema_check(name.removeprefix(SCHEMA))
            elif is_function(name) and place.endswith(".py") and not Path(place).is_file():
                raise _problem(f"{name}: the file is missing")
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)


def _metric(name: str, task: Task, *, load: bool) -> Metric:
    if name.startswith("regex:"):
        return _of_pattern(name)
    if name.startswith(SCHEMA):
        return share(name, ANY, _schema_check(name.removeprefix(SCHEMA)) if load else _never)
    if is_function(name):
        return average(name, ANY, partial(_score, name, _function(name)) if load else _never, span=None)
    fitting = ", ".join(other for other, metric in METRICS.items() if task in metric.tasks)
    fix = f"use {fitting}, regex:PATTERN, {SCHEMA}FILE or FILE.py:FUNCTION"
    if name not in METRICS:
        raise _problem(f"unknown metric {name!r}", fix)
    if task not in METRICS[name].tasks:
        message = f"{name} is for {' or '.join(METRICS[name].tasks)}, and the expected answers are {task}"
        raise _problem(message, fix)
    return METRICS[name]


def _problem(message: str, fix: str | None = None) -> InputError:
    return InputError([Problem(code="metric", field="metric", message=message, fix=fix)])


def _never(answer: str, expected: str) -> Any:
    raise NotImplementedError  # such a metric is only shown


def _of_pattern(name: str) -> Metric:
    try:
        search = searcher(name.removeprefix("regex:"))
    except ValueError as error:
        raise _problem(f"{name!r} is not valid: {error}") from error
    return share(name, ANY, lambda answer, _: search(answer))


def _schema_check(path: str) -> Callable[[str, str], bool]:
    """A check of answers against a JSON Schema in a file. References to other documents are not followed."""
    try:
        from jsonschema import validators
        from jsonschema.exceptions import SchemaError
        from referencing import Registry
        from referencing.exceptions import Unresolvable
    except ImportError as error:
        raise InputError(f"{SCHEMA} requires jsonschema", hint=f"run: {install_command('evaluate')}") from error
    try:
        schema = json_value(read_regular(Path(path), _LARGEST_SCHEMA).decode())
    except (OSError, UnicodeDecodeError) as error:
        raise _problem(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(schema, dict | bool):
        raise _problem(f"{path} is not a JSON Schema")
    checker = validators.validator_for(schema)
    try:
        checker.check_schema(schema)
    except SchemaError as error:
        raise _problem(f"{path} is not a JSON Schema: {error.message}") from error
    if keywords := unlimited_search(schema):
        fix = "remove it" if keywords.startswith("$") else "use additionalProperties"
        raise _problem(f"{path} has {keywords}, and such a check can take very long", fix)
    validator = with_limited_patterns(checker)(schema, registry=Registry())

    def matches(answer: str, _: str) -> bool:
        found = json_value(answer)
        try:
            return (found is not None or answer.strip() == "null") and bool(validator.is_valid(found))
        except Unresolvable as error:
            raise _problem(f"{path} refers to a document that is not in it: {error}") from error
        except ValueError as error:
            raise _problem(f"{path} has a pattern that is not valid: {error}") from error

    return matches


def _function(name: str) -> Callable[[str, str], Any]:
    place, _, attribute = name.rpartition(":")
    try:
        if place.endswith(".py"):
            found = runpy.run_path(place)[attribute]
        else:
            found = getattr(importlib.import_module(place), attribute)
    except Exception as error:
        raise _problem(f"{name} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise _problem(f"{name} is not a function")
    return found  # type: ignore[no-any-return]


def _score(name: str, function: Callable[[str, str], Any], answer: str, expected: str) -> float:
    try:
        score = float(function(answer, expected))
    except Exception as error:
        message = f"the metric {name} failed for the answer {answer[:60]!r}: {type(error).__name__}: {error}"
        raise BackendError(message) from error
    if not abs(score) <= LARGEST:  # NaN is not
        message = f"the metric {name} is {score:g} for the answer {answer[:60]!r}"
        raise BackendError(message, hint=f"return a number of at most {LARGEST:g}")
    return score
