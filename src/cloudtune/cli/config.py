"""``cloudtune config``: the settings in force, and where each came from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudtune.cli.options import command

if TYPE_CHECKING:
    from cloudtune.cli.session import Session


@click.group("config")
def config() -> None:
    """Show the settings in force and where each came from; trust a project's file."""


@command("show")
def show(session: Session) -> None:
    """Show every setting with its source; secrets are masked.

    Looked for, the first one wins: command line, environment, profile, the project's cloudtune.toml, the user's
    config.toml, default.
    """
    from cloudtune.cli.render import table
    from cloudtune.config.config import user_file
    from cloudtune.config.trust import PROJECT_FILE

    found = session.config
    rows, pending = found.shown(), found.pending
    session.result(
        {
            "settings": [{"key": key, "value": value, "source": source} for key, value, source in rows],
            "profile": found.profile, "profiles": list(found.profiles), "files": [str(path) for path in found.files],
            "ignored": list(found.ignored),
            "pending": [{"key": p.field, "file": p.file, "line": p.line, "reason": p.message} for p in pending],
        }
    )  # fmt: skip
    if session.json:
        return
    table(["KEY", "VALUE", "SOURCE"], rows)
    if not found.files:
        session.say(f"no configuration file: neither {PROJECT_FILE} in this repository, nor {user_file()}")
    if found.profiles:
        session.say(f"profiles: {', '.join(found.profiles)}")
    for name in found.ignored:
        session.say(f"warning: {name} means nothing to cloudtune")
    for problem in pending:
        session.say(f"warning: no effect yet: {problem}")


_FILE = click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path))


@command("trust", without=("backend", "ledger", "profile"))
@_FILE
def trust(session: Session, file: Path | None) -> None:
    """Let every setting of a project's cloudtune.toml take effect, as the file is now.

    Until then, those that choose a program, an endpoint, a credential, a protection or a path have no effect. Read the
    file first. FILE is the nearest one unless given. Any change of the file ends the trust.
    """
    from cloudtune.config import trust as config_trust
    from cloudtune.config.checks import faults
    from cloudtune.config.config import read_project, sensitive_settings
    from cloudtune.errors import ConfigError

    path = _project_file(file)
    document, content = read_project(path)
    if problems := faults(document):
        raise ConfigError(problems)
    settings = sensitive_settings(document)
    config_trust.trust(path, content)
    session.result({"file": str(path), "trusted": True, "settings": [one.field for one in settings]})
    session.put(f"trusted: {path}")
    for one in settings:
        session.say(f"line {one.line}: {one.field}: {one.message.rpartition(';')[0]}")


@command("untrust", without=("backend", "ledger", "profile"))
@_FILE
def untrust(session: Session, file: Path | None) -> None:
    """Take back the trust in a project's cloudtune.toml. FILE is the nearest one unless given."""
    from cloudtune.config import trust as config_trust

    path = _project_file(file)
    had = config_trust.untrust(path)
    session.result({"file": str(path), "trusted": False, "changed": had})
    session.put(f"no longer trusted: {path}" if had else f"was not trusted: {path}")


def _project_file(file: Path | None) -> Path:
    from cloudtune.config.trust import PROJECT_FILE, project_file
    from cloudtune.errors import InputError

    if file is not None:
        return file.absolute() / PROJECT_FILE if file.is_dir() else file.absolute()
    found = project_file(Path.cwd())
    if found is None:
        raise InputError(f"there is no {PROJECT_FILE} here or above in this repository", hint="name the file")
    return found


for _command in (show, trust, untrust):
    config.add_command(_command)
