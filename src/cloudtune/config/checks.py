"""Checks configuration files for unknown keys, wrong types, unknown back ends and secrets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from cloudtune.config.budgets import budget_fault
from cloudtune.document.document import Document, dotted
from cloudtune.errors import Problem
from cloudtune.redaction.masking import REFERENCE, is_secret_name, is_secret_shape, url_password

if TYPE_CHECKING:
    from cloudtune.document.parsed import Path_

_TOP = ("backend", "ledger", "profile", "backends", "budgets", "profiles")
_IN_PROFILE = ("backend", "ledger", "backends", "budgets")


def faults(document: Document) -> list[Problem]:
    """Return all problems of a configuration file."""
    problems = [*document.duplicates, *_unknown(document, document.values, _TOP, ())]
    profiles = document.values.get("profiles", {})
    problems += _sections(document, document.values, ())
    for name, values in profiles.items() if isinstance(profiles, dict) else ():
        if isinstance(values, dict):
            problems += _unknown(document, values, _IN_PROFILE, ("profiles", name))
            problems += _sections(document, values, ("profiles", name))
        else:
            problems.append(_problem(document, ("profiles", name), "shape", "must be a table",
                                     f"write [profiles.{name}] above its values"))  # fmt: skip
    problems += [problem for path, value in leaves(document.values) for problem in _literal(document, path, value)]
    return problems


def _sections(document: Document, values: Mapping[str, Any], above: Path_) -> list[Problem]:
    """Check the types of one level, and that back ends exist."""
    found = [
        _problem(document, (*above, key), "shape", f"must be a string, not {values[key]!r}")
        for key in ("backend", "ledger", "profile")
        if key in values and not (isinstance(values[key], str) and values[key])
    ]
    found += [
        _problem(document, (*above, key), "shape", "must be a table", f"write [{key}.NAME]")
        for key in ("backends", "budgets", "profiles")
        if not isinstance(values.get(key, {}), dict)
    ]
    budgets = values.get("budgets", {})
    for name, budget in budgets.items() if isinstance(budgets, dict) else ():
        if fault := budget_fault(name, budget):
            fix = 'for example: usd = 100, per = "month", tags = {team = "search"}'
            found.append(_problem(document, (*above, "budgets", name), "budget", fault, fix))
        elif "backend" in budget:
            found += _unknown_backend(document, (*above, "budgets", name, "backend"), budget["backend"])
    backends = values.get("backends", {})
    for name, settings in backends.items() if isinstance(backends, dict) else ():
        if not isinstance(settings, dict):
            fix = f"write [backends.{name}] above its settings"
            found.append(_problem(document, (*above, "backends", name), "shape", "must be a table", fix))
        else:
            found += _unknown_backend(document, (*above, "backends", name), name)
    return found


def _unknown(document: Document, values: Mapping[str, Any], known: tuple[str, ...], above: Path_) -> list[Problem]:
    found = []
    for key in values:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            fix = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
            found.append(_problem(document, (*above, key), "unknown_key", "unknown key", fix))
    return found


def _unknown_backend(document: Document, path: Path_, name: str) -> list[Problem]:
    from cloudtune.registry import BUILT_IN, backend_names

    if name in BUILT_IN or name in (known := backend_names()):
        return []
    near = get_close_matches(name, known, n=1)
    fix = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    return [_problem(document, path, "unknown_backend", "unknown back end", fix)]


def _literal(document: Document, path: Path_, value: Any) -> list[Problem]:
    """Check that the file has no literal secrets, because it is easily committed. References are allowed."""
    name = str(path[-1])
    for text in texts(value):
        rest = REFERENCE.sub("", text)
        if rest != text and ("://" in text or path[-1] == "ledger"):
            return [url_reference(document.file, document.line(path), path)]
        password = url_password(text)
        literal_password = password is not None and bool(REFERENCE.sub("", password))
        has_default = any(found[2] for found in REFERENCE.finditer(text))
        if is_secret_shape(text) or literal_password or (is_secret_name(name) and (rest or has_default)):
            variable = "".join(char if char.isalnum() else "_" for char in name).upper()
            fix = f'put it in an environment variable and write {name} = "${{{variable}}}"'
            return [_problem(document, path, "literal_secret", "this looks like a literal secret", fix)]
    return []


def url_reference(file: str, line: int | None, path: Path_) -> Problem:
    """Check that no environment variable is part of an address, because it may contain a secret."""
    fix = f"write the full address, or set the environment variable CLOUDTUNE_{'__'.join(map(str, path)).upper()}"
    message = "an address cannot contain ${NAME}: the variable would be sent to it"
    return Problem(code="url_reference", message=message, file=file, line=line, field=dotted(path), fix=fix)


def _problem(document: Document, path: Path_, code: str, message: str, fix: str | None = None) -> Problem:
    return Problem(
        code=code, message=message, file=document.file, line=document.line(path), field=dotted(path), fix=fix
    )


def texts(value: Any) -> Iterable[str]:
    """Return the non-empty strings of a value that is not a table: the value, or those in a list."""
    if isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str) and value:
        yield value


def leaves(values: Mapping[str, Any], above: Path_ = ()) -> Iterable[tuple[Path_, Any]]:
    """Yield every value that is not a table, with its path."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*above, key))
        else:
            yield (*above, key), value
