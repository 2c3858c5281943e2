"""The configuration: back-end settings, profiles and the ledger's URL, each with its source.

Order of precedence: command line, environment (``CLOUDTUNE_BACKEND``, ``CLOUDTUNE_LEDGER``,
``CLOUDTUNE_PROFILE``, ``CLOUDTUNE_BACKENDS__LOCAL__ROOT``), the selected profile, the project's ``cloudtune.toml`` (see
`trust`), the user's ``config.toml``, the defaults. A profile of the project overrides one of the user with the same
name.

The project's file can come from other people. Until the user trusts it, its settings that choose a program, an
endpoint, a credential, a protection or an output path (see `option_types`), or that read environment variables, are
not applied: using one is an error, never a silent default.

Files contain references instead of secrets: ``api_key = "${OPENAI_API_KEY}"``, or with a default
``${NAME:-default}``. References are resolved only when a back end's settings are read. URLs cannot contain references.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from cloudtune.config.budgets import Budget, budgets_of
from cloudtune.config.checks import faults, leaves, texts, url_reference
from cloudtune.config.option_types import REASONS, Effect, effect_of
from cloudtune.config.trust import PROJECT_FILE, is_trusted, project_file, read_project_file
from cloudtune.document.document import Document, dotted, parse_document, read_document
from cloudtune.document.validation import quoted
from cloudtune.errors import CloudtuneError, ConfigError, Problem
from cloudtune.ledger.url import shown
from cloudtune.redaction.masking import REFERENCE, is_secret_name, masked
from cloudtune.registry import backend_class

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

    from cloudtune.document.parsed import Path_

USER_FILE = "config.toml"
HOME = "CLOUDTUNE_HOME"
DEFAULT_BACKEND = "local"
DEFAULT_SOURCE = "default"
_ENV = "CLOUDTUNE_"
_OF_COMMANDS = frozenset({"CLOUDTUNE_EMULATOR_ADMIN_TOKEN", "CLOUDTUNE_EMULATOR_KEY", "CLOUDTUNE_SERVE_KEY"})
"""Environment variables that `serve` and `emulate` read or print; they are no settings."""
_WHAT = "a configuration"


@dataclass(frozen=True)
class Entry:
    """One value of the configuration."""

    value: Any = field(repr=False)
    source: str
    """``--backend``, ``CLOUDTUNE_BACKEND``, ``cloudtune.toml:4``, ``cloudtune.toml:9 (profile prod)``, ``default``."""
    file: str | None = None
    line: int | None = None


@dataclass(frozen=True)
class Config:
    """The effective configuration. Values are stored as written; `settings` and `ledger` resolve references."""

    entries: Mapping[Path_, Entry]
    """``("backend",)``, ``("ledger",)``, ``("backends", "local", "root")`` ... mapped to value and source."""
    home: Path
    """The folder for cloudtune's state: the ledger and local runs."""
    files: tuple[Path, ...] = ()
    """The files that were read, the project's first."""
    profiles: tuple[str, ...] = ()
    """The names of all profiles."""
    ignored: tuple[str, ...] = ()
    """Environment variables that look like cloudtune settings but are unknown."""
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    untrusted: Document | None = field(default=None, repr=False)
    """The project's file, if it exists and the user does not trust it."""

    @property
    def backend(self) -> str:
        """The back end to use if neither the call nor the spec sets one."""
        return str(self.entries["backend",].value)

    @property
    def insisted_backend(self) -> str | None:
        """The back end set by the command line or the environment, which overrides the spec."""
        entry = self.entries["backend",]
        return self.backend if entry.file is None and entry.source != DEFAULT_SOURCE else None

    @property
    def profile(self) -> str | None:
        """The selected profile."""
        entry = self.entries.get(("profile",))
        return None if entry is None else str(entry.value)

    @property
    def ledger(self) -> str:
        """Return the ledger's URL. Raises ConfigError if an untrusted file sets it."""
        return str(self._filled({("ledger",): self.entries["ledger",]})["ledger",])

    @property
    def pending(self) -> tuple[Problem, ...]:
        """The settings that are not applied until the user trusts the project's file, including its profiles."""
        return () if self.untrusted is None else sensitive_settings(self.untrusted)

    def source(self, *path: str) -> str | None:
        """Return the source of a value."""
        entry = self.entries.get(path)
        return None if entry is None else entry.source

    def settings(self, backend: str) -> dict[str, Any]:
        """Return a back end's settings with all references resolved.

        Raises:
            ConfigError: A setting needs trust, refers to a variable that is not set, or has a reference in a URL.

        """
        own = {path: entry for path, entry in self.entries.items() if path[:2] == ("backends", backend)}
        return _tables(self._filled(own), 2)

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """The budgets of all files and of the selected profile."""
        own = {path: entry for path, entry in self.entries.items() if path[0] == "budgets"}
        return budgets_of(_tables(self._filled(own), 1))

    def shown(self) -> list[tuple[str, Any, str]]:
        """Return dotted key, value and source of every entry, with secrets masked and references as written."""
        return [
            (dotted(path), shown(str(entry.value)) if path == ("ledger",) else masked(str(path[-1]), entry.value),
             entry.source)
            for path, entry in sorted(self.entries.items(), key=_top_first)
        ]  # fmt: skip

    def _filled(self, entries: Mapping[Path_, Entry]) -> dict[Path_, Any]:
        effects = _Effects()
        problems = [problem for path, entry in entries.items() for problem in self._refusals(path, entry, effects)]
        if problems:
            raise ConfigError(problems)
        found = {path: self._fill(entry.value, path, entry, problems) for path, entry in entries.items()}
        if problems:
            raise ConfigError(problems)
        return found

    def _refusals(self, path: Path_, entry: Entry, effects: _Effects) -> list[Problem]:
        if entry.file is None:
            return []
        if self.untrusted is not None and entry.file == self.untrusted.file:
            found = _needs_trust(effects(path), path, entry)
            return [found] if found else []
        if _references(entry.value) and effects(path) == "endpoint":
            return [url_reference(entry.file, entry.line, path)]
        return []

    def _fill(self, value: Any, path: Path_, entry: Entry, problems: list[Problem]) -> Any:
        if isinstance(value, list):
            return [self._fill(item, path, entry, problems) for item in value]
        if not isinstance(value, str) or entry.file is None:  # values of the environment are literal
            return value

        def fill(found: Any) -> str:
            name, default = found[1], found[2]
            if self.environ.get(name):
                return self.environ[name]
            if default is None:
                problems.append(_unset(name, path, entry))
            return default or ""

        return REFERENCE.sub(fill, value)


def load_config(
    start: Path | None = None,
    *,
    profile: str | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Read the configuration, searching for the project's file from ``start`` (the working directory).

    ``flags`` has the command-line values (``backend``, ``ledger``); None means not set. Raises ConfigError with all
    problems of all files.
    """
    env = os.environ if environ is None else environ
    path, user = project_file(start or Path.cwd()), user_file()
    project, content = read_project(path) if path is not None else (None, b"")
    documents = [project] if project is not None else []
    if user.is_file():
        documents.append(read_document(user, error=ConfigError, what=_WHAT))
    problems = [problem for document in documents for problem in faults(document)]
    if problems:
        raise ConfigError(problems)
    home = _home(env)
    said = {name: value for name, value in (flags or {}).items() if value is not None}
    flagged: dict[Path_, Entry] = {(name,): Entry(value, f"--{name}") for name, value in said.items()}
    from_env, ignored = _from_environment(env)
    chosen = _profile(profile, from_env, documents)
    layers: list[Mapping[Path_, Entry]] = [flagged, from_env]
    layers += [_layer(document, chosen.value) for document in documents if chosen]
    layers += [_layer(document, None) for document in documents]
    entries = _with_defaults(_merged(layers), home, bool(env.get(HOME)))
    entries.pop(("profile",), None)
    if chosen:
        entries["profile",] = chosen
    names = dict.fromkeys(name for document in documents for name in document.values.get("profiles", {}))
    files = tuple(Path(document.file) for document in documents)
    untrusted = project if path is not None and not is_trusted(path, content) else None
    return Config(entries, home, files, tuple(names), ignored, dict(env), untrusted)


# -- files ---------------------------------------------------------------------------------------------------------


def read_project(path: Path) -> tuple[Document, bytes]:
    """Return a project's file, and the bytes that were parsed. Raises ConfigError."""
    content = read_project_file(path)
    return parse_document(content, str(path), path.absolute().parent, error=ConfigError, what=_WHAT), content


def user_file() -> Path:
    """Return the path of the user's configuration, whether it exists or not."""
    from platformdirs import user_config_dir

    return Path(user_config_dir("cloudtune", appauthor=False)) / USER_FILE


def _home(env: Mapping[str, str]) -> Path:
    from platformdirs import user_state_dir

    return Path(env.get(HOME) or user_state_dir("cloudtune", appauthor=False)).expanduser().absolute()


def _layer(document: Document, profile: str | None) -> dict[Path_, Entry]:
    """Return the values of a file's top level, or of one of its profiles."""
    values, note = document.values, ""
    above: Path_ = ()
    if profile is not None:
        values = values.get("profiles", {}).get(profile, {})
        above, note = ("profiles", profile), f" (profile {profile})"
    found: dict[Path_, Entry] = {}
    for path, value in leaves({key: value for key, value in values.items() if key != "profiles"}):
        line = document.line((*above, *path))
        source = f"{document.file}:{line}{note}" if line else f"{document.file}{note}"
        found[path] = Entry(_from_folder(path, value, document.folder), source, document.file, line)
    return found


def _from_folder(path: Path_, value: Any, folder: Path) -> Any:
    """Resolve relative paths in back-end settings against the file's folder."""
    if path[0] == "backends" and isinstance(value, str):
        if value.startswith(("./", "../")) or value in (".", ".."):
            return os.path.normpath(folder / value)
        if value.startswith("~/"):
            return str(Path(value).expanduser())
    return value


def _merged(layers: list[Mapping[Path_, Entry]]) -> dict[Path_, Entry]:
    """Merge the layers. The first layer with a value wins; a plain value also hides nested values of later layers."""
    found: dict[Path_, Entry] = {}
    tables: set[Path_] = set()
    for layer in layers:
        new = {
            path: entry
            for path, entry in layer.items()
            if path not in tables and not any(path[:end] in found for end in range(1, len(path) + 1))
        }
        found |= new
        tables |= {path[:end] for path in new for end in range(1, len(path))}
    return found


# -- trust ---------------------------------------------------------------------------------------------------------


def sensitive_settings(document: Document) -> tuple[Problem, ...]:
    """Return the settings of a project's file that require trust."""
    found, effects = [], _Effects()
    for path, value in leaves(document.values):
        meant = path[2:] if path[0] == "profiles" else path
        entry = Entry(value, document.file, document.file, document.line(path))
        if problem := _needs_trust(effects(meant), meant, entry):
            found.append(msgspec.structs.replace(problem, field=dotted(path)))
    return tuple(found)


def _needs_trust(effect: Effect, path: Path_, entry: Entry) -> Problem | None:
    if effect != "safe":
        reason = REASONS[effect]
    elif path[0] == "backends" and _references(entry.value):
        reason = "reads the environment"
    else:
        return None
    text = shown(str(entry.value)) if path == ("ledger",) else masked(str(path[-1]), entry.value)
    return Problem(
        code="untrusted", message=f"{quoted(text)} {reason}; the file is not trusted", file=entry.file, line=entry.line,
        field=dotted(path), fix=f"read the file, then run: cloudtune config trust {shlex.quote(entry.file or '')}",
    )  # fmt: skip


class _Effects:
    """Returns the effect of settings. Each back end is looked up once; a file can have thousands of settings."""

    def __init__(self) -> None:
        self._options: dict[str, type[BaseModel] | None] = {}

    def __call__(self, path: Path_) -> Effect:
        if path[0] == "budgets":
            return "protection"
        if path[0] != "backends":
            return "path" if path == ("ledger",) else "safe"
        name = str(path[1])
        if name not in self._options:
            try:
                self._options[name] = backend_class(name).Options
            except (
                CloudtuneError,
                AttributeError,
            ):  # a back end that cannot be loaded, or has no Options, declares nothing
                self._options[name] = None
        options = self._options[name]
        return "unclassified" if options is None else effect_of(options, str(path[2]))


def _tables(values: Mapping[Path_, Any], depth: int) -> dict[str, Any]:
    """Nested tables of the values, below so many keys."""
    found: dict[str, Any] = {}
    for path, value in values.items():
        here = found
        for key in path[depth:-1]:
            here = here.setdefault(str(key), {})
        here[str(path[-1])] = value
    return found


def _references(value: Any) -> bool:
    return any(REFERENCE.search(text) for text in texts(value))


def _unset(name: str, path: Path_, entry: Entry) -> Problem:
    fix = f"export {name}=..." + ("" if is_secret_name(str(path[-1])) else f", or write ${{{name}:-default}}")
    return Problem(
        code="unset_variable", message=f"the environment variable {name} is not set", file=entry.file,
        line=entry.line, field=dotted(path), fix=fix,
    )  # fmt: skip


# -- environment, profile, defaults --------------------------------------------------------------------------------


def _from_environment(env: Mapping[str, str]) -> tuple[dict[Path_, Entry], tuple[str, ...]]:
    found: dict[Path_, Entry] = {}
    ignored = []
    for name, value in sorted(env.items()):
        if not name.startswith(_ENV) or name == HOME or name in _OF_COMMANDS or not value:
            continue
        path = tuple(part.lower() for part in name.removeprefix(_ENV).split("__"))
        if path in (("backend",), ("ledger",), ("profile",)) or (path[0] == "backends" and len(path) > 2 and all(path)):
            found[path] = Entry(value, name)
        else:
            ignored.append(name)
    return found, tuple(ignored)


def _profile(flag: str | None, env: Mapping[Path_, Entry], documents: list[Document]) -> Entry | None:
    entry = Entry(flag, "--profile") if flag else env.get(("profile",))
    entry = entry or next((found[key] for found in (_layer(document, None) for document in documents)
                           for key in [("profile",)] if key in found), None)  # fmt: skip
    known = list(dict.fromkeys(name for document in documents for name in document.values.get("profiles", {})))
    if entry is None or entry.value in known:
        return entry
    near = get_close_matches(str(entry.value), known, n=1)
    fix = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}" if known else (
        f"add [profiles.{entry.value}] to {PROJECT_FILE}"
    )  # fmt: skip
    message = f"no profile named {entry.value!r}"
    raise ConfigError([Problem(code="unknown_profile", message=message, file=entry.source, fix=fix)])


def _with_defaults(entries: dict[Path_, Entry], home: Path, home_is_named: bool) -> dict[Path_, Entry]:
    found: dict[Path_, Entry] = {("backend",): Entry(DEFAULT_BACKEND, DEFAULT_SOURCE)} | entries
    if ("ledger",) not in entries:
        source = HOME if home_is_named else DEFAULT_SOURCE
        found["ledger",] = Entry(f"sqlite:///{quote(str(home / 'ledger.db'))}", source)
    if ("ledger",) not in entries or home_is_named:
        source = HOME if home_is_named else DEFAULT_SOURCE
        found.setdefault(("backends", "local", "root"), Entry(str(home / "runs"), source))
    return found


def _top_first(item: tuple[Path_, Entry]) -> tuple[bool, tuple[str, ...]]:
    path, _ = item
    return len(path) > 1, tuple(map(str, path))
