"""``cloudtune config``: show settings and their sources, and trust project files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudtune.cli.options import command

if TYPE_CHECKING:
    from cloudtune.cli.session import Session


@click.group("config")
def config() -> None:
    """Show settings and their sources; trust a project's configuration file."""


@command("show")
def show(session: Session) -> None:
    """Show every setting with its source. Secrets are masked.

    Order of precedence: command line, environment, profile, the project's cloudtune.toml, the user's config.toml,
    defaults.
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
        session.say(f"no configuration file found: looked for {PROJECT_FILE} in this repository and for {user_file()}")
    if found.profiles:
        session.say(f"profiles: {', '.join(found.profiles)}")
    for name in found.ignored:
        session.say(f"warning: {name} is not a cloudtune setting")
    for problem in pending:
        session.say(f"warning: not applied: {problem}")


_FILE = click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path))


@command("trust", without=("backend", "ledger", "profile"))
@_FILE
def trust(session: Session, file: Path | None) -> None:
    """Trust a project's cloudtune.toml, so that all its settings apply.

    Settings of an untrusted file that choose a program, an endpoint, a credential, a protection or a path are not
    applied. Read the file before you trust it. FILE defaults to the nearest cloudtune.toml. Any change to the file
    revokes the trust.
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
    """Revoke the trust in a project's cloudtune.toml. FILE defaults to the nearest one."""
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
        raise InputError(
            f"no {PROJECT_FILE} found in this folder or its parents within this repository",
            hint="pass the path of the file",
        )
    return found


for _command in (show, trust, untrust):
    config.add_command(_command)
