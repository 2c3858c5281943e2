"""``cloudtune config``: the settings in force, and where each came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudtune.cli.options import command

if TYPE_CHECKING:
    from cloudtune.cli.session import Session


@click.group("config")
def config() -> None:
    """Show the settings in force, and where each came from."""


@command("show")
def show(session: Session) -> None:
    """Show every setting with its source; secrets are masked.

    Looked for, the first one wins: command line, environment, profile, the project's cloudtune.toml, the user's
    config.toml, default.
    """
    from cloudtune.cli.render import table
    from cloudtune.config import PROJECT_FILE, user_file

    found = session.config
    rows = found.shown()
    session.result(
        {
            "settings": [{"key": key, "value": value, "source": source} for key, value, source in rows],
            "profile": found.profile, "profiles": list(found.profiles), "files": [str(path) for path in found.files],
            "ignored": list(found.ignored),
        }
    )  # fmt: skip
    if session.json:
        return
    table(["KEY", "VALUE", "SOURCE"], rows)
    if not found.files:
        session.say(f"no configuration file: neither {PROJECT_FILE} here or above, nor {user_file()}")
    if found.profiles:
        session.say(f"profiles: {', '.join(found.profiles)}")
    for name in found.ignored:
        session.say(f"warning: {name} means nothing to cloudtune")


config.add_command(show)
