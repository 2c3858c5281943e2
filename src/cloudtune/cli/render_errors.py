"""Format errors as text or as one JSON object, and map them to exit codes."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from cloudtune.cli.session import put_json
from cloudtune.cli.terminal import write
from cloudtune.errors import CloudtuneError, InputError, JobEnded, Problem
from cloudtune.redaction.redactor import Redactor, environment_secrets

INTERNAL = 1


def report(error: BaseException, words: list[str]) -> int:
    """Print the error and return the exit code."""
    if isinstance(error, UnicodeEncodeError) and (bad := [word for word in words if not _is_utf8(word)]):
        error = InputError(f"the argument {bad[0]!a} is not UTF-8 text", hint="convert it to UTF-8")
    if isinstance(error, FileNotFoundError) and error.filename is None and not _has_working_folder():
        error = InputError("the current folder no longer exists", hint="change to a folder that exists: cd ~")
    code = exit_code(error)
    redactor = Redactor(environment_secrets(os.environ))
    if "--json" in words[: words.index("--")] if "--" in words else "--json" in words:
        put_json(redactor.data(as_json(error)))
    else:
        write(redactor.text(as_text(error)), err=True, end="")
    if _verbosity(words) > 1 and not isinstance(error, click.ClickException | click.Abort):
        write(redactor.text("".join(traceback.format_exception(error))), err=True, end="")
    sys.stderr.flush()
    return code


def exit_code(error: BaseException) -> int:
    """Return the exit code, as listed in ``cloudtune --help``."""
    if isinstance(error, CloudtuneError | click.ClickException):
        return error.exit_code
    return INTERNAL


def as_text(error: BaseException) -> str:
    """Format the error as text that ends in a newline."""
    if (
        isinstance(error, click.UsageError) and type(error).__name__ == "NoArgsIsHelpError"
    ):  # only newer versions of click have it
        return f"{error.format_message()}\n"
    if isinstance(error, click.UsageError):
        usage = f"{error.ctx.get_usage()}\n" if error.ctx else ""
        return f"{usage}error: {error.format_message()}\n"
    if isinstance(error, click.ClickException):
        return f"error: {error.format_message()}\n"
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return "interrupted: run the same command again to continue; no job is created twice\n"
    if isinstance(error, InputError):
        lines = [f"{_severity(problem)}{problem}" for problem in error.problems]
        return "\n".join([*lines, *([error.hint] if error.hint else [])]) + "\n"
    if isinstance(error, CloudtuneError):
        return f"error: {error.message}\n" + (f"{error.hint}\n" if error.hint else "")
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"error: {place}{error.strerror}\n"
    return (
        f"internal error: {type(error).__name__}: {error}\n"
        "this is a bug in cloudtune; run with -vv for a traceback\n"
    )  # fmt: skip


def _is_utf8(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _has_working_folder() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return False
    return True


def _severity(problem: Problem) -> str:
    return "error: " if problem.severity == "error" else f"{problem.severity}: "


def as_json(error: BaseException) -> dict[str, Any]:
    """Return the error as one JSON object."""
    found: dict[str, Any] = {"type": type(error).__name__, "message": str(error), "hint": None, "problems": []}
    if isinstance(error, CloudtuneError):
        found |= {"message": error.message, "hint": error.hint}
    if isinstance(error, click.ClickException):
        found["message"] = error.format_message()
    if isinstance(error, click.Abort | KeyboardInterrupt):
        found |= {"type": "Interrupted", "message": as_text(error).strip()}
    if isinstance(error, InputError):
        found["problems"] = [problem_json(problem) for problem in error.problems]
    document: dict[str, Any] = {"error": found | {"exit_code": exit_code(error)}}
    if isinstance(error, JobEnded):
        from cloudtune.cli.render_job import job_json

        document["job"] = job_json(error.snapshot) if error.snapshot else {"ref": str(error.ref)}
    return document


def problem_json(problem: Problem) -> dict[str, Any]:
    """Return all fields of a problem, with null for empty ones."""
    return {name: getattr(problem, name) for name in problem.__struct_fields__}


def _verbosity(words: list[str]) -> int:
    short = sum(word.count("v") for word in words if word.startswith("-v") and set(word[1:]) == {"v"})
    return short + words.count("--verbose")
