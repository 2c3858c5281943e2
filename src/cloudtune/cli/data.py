"""``cloudtune data``: look at rows, and change them, before anything is trained on them."""

from __future__ import annotations

from importlib import import_module

import click

COMMANDS: dict[str, str] = {
    "check": "Find everything that is wrong with rows, before anything is paid for.",
    "convert": "Write rows in a vendor's format.",
    "split": "Hold rows out, by their content.",
    "dedupe": "Leave out rows that are there already.",
    "balance": "Even out how often each answer is given.",
    "preview": "Show rows as the model will see them.",
    "profile": "Write a page about the data, to look at in a browser.",
    "stats": "Count rows, sizes and tokens.",
}


class DataGroup(click.Group):
    """Its commands are imported when they are named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order in which they are used."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the command's own file."""
        if name not in COMMANDS:
            return None
        found = import_module(f"cloudtune.cli.data_{name}").command_
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The summaries from the table, so that nothing is loaded."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group("data", cls=DataGroup)
def data() -> None:
    """Check, convert and shape rows before anything is trained on them."""
