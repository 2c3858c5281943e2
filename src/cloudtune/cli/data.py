"""``cloudtune data``: check, convert and transform data sets."""

from __future__ import annotations

from importlib import import_module

import click

COMMANDS: dict[str, str] = {
    "check": "Check rows and report every problem.",
    "convert": "Convert rows to a vendor's format.",
    "split": "Split rows into training, validation and test sets.",
    "dedupe": "Remove duplicate rows.",
    "balance": "Balance how often each label occurs.",
    "preview": "Show rows as the model sees them.",
    "profile": "Write an HTML report about the data.",
    "stats": "Count rows, sizes and tokens.",
    "rules": "List the rules that a back end has for rows.",
}


class DataGroup(click.Group):
    """A group that imports a command only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all command names, in the order of a typical workflow."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the command's module."""
        if name not in COMMANDS:
            return None
        found = import_module(f"cloudtune.cli.data_{name}").command_
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the summaries from the table, without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group("data", cls=DataGroup)
def data() -> None:
    """Check, convert, split and inspect training data."""
