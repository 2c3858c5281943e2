"""``cloudtune``: the table of commands, each loaded when it is called, and the one place where errors become exits."""

from __future__ import annotations

import contextlib
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS: dict[str, str] = {
    "init": "Write a commented spec to start from.",
    "plan": "Show everything that submit would do, and do none of it.",
    "run": "Plan, ask, submit, and watch to the end.",
    "submit": "Make the job, print its reference, and leave.",
    "watch": "Follow a job to its end.",
    "jobs": "List jobs as they stand now.",
    "show": "Show one job.",
    "logs": "Print what happened to a job.",
    "metrics": "Show a job's figures, as a table or a curve.",
    "checkpoints": "List what a job has kept.",
    "cancel": "Ask a job to stop.",
    "pause": "Ask a job to stand still, keeping its state.",
    "resume": "Let a paused job go on, or continue an ended one.",
    "delete": "Remove an ended job and what it holds.",
    "deploy": "Make a tuned model answer, where it has to be deployed for that.",
    "deployments": "List the models that are deployed, and what they cost.",
    "undeploy": "Take a deployment down.",
    "generate": "Ask the tuned model.",
    "import": "Bring a model that was trained elsewhere to a back end, and follow that to its end.",
    "export": "Write the adapter, or the merged weights, into a folder.",
    "data": "Check, convert and shape rows before anything is trained on them.",
    "backends": "List where jobs can run, and what each place can do.",
    "schema": "Print the JSON Schema of a spec; editors complete from it.",
    "config": "Show the settings in force and where each came from; trust a project's file.",
    "ledger": "Check the durable record of jobs, and move damaged rows out of it.",
    "doctor": "Check what is installed, reachable and configured.",
    "emulate": "Serve the vendors' APIs on this machine, to rehearse on.",
}
"""Command -> its summary, which stands here so that ``--help`` needs to load none of them."""

_MODULES = {"import": "importing"}
_NAMES = {"import": "import_model"}
"""Where the command's own name is a word of Python's."""

EPILOG = """\b
Exit codes:
  0  succeeded
  1  an internal or other error
  2  the input is wrong: command, spec, data, configuration, credentials
  3  the job failed
  4  the job was cancelled
  5  the time to wait ran out, or the watch was left: the job goes on
  6  contact was lost: the job may go on
  7  refused by a limit, a policy or the person
  8  the job was stopped by one of its limits

\b
Start here:
  cloudtune init job.yaml --model ./weights --train rows.jsonl
  cloudtune run job.yaml --backend local --yes

\b
Completion: eval "$(_CLOUDTUNE_COMPLETE=bash_source cloudtune)"   (or zsh_source, fish_source)
"""


class Cli(click.Group):
    """A group whose commands are imported when they are named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order in which they are used."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the command's own file."""
        if name not in COMMANDS:
            return None
        found = getattr(import_module(f"cloudtune.cli.{_MODULES.get(name, name)}"), _NAMES.get(name, name))
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but a mistyped command is answered with the nearest ones."""
        from difflib import get_close_matches

        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            near = get_close_matches(args[0], COMMANDS, n=2)
            hint = f" Did you mean {' or '.join(near)}?" if near else " `cloudtune --help` lists the commands."
            raise click.UsageError(f"no command is called {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The summaries from the table, so that nothing is loaded."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, but an option of the commands that stands before them is told where it belongs."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name in ("--json", "--backend", "--ledger", "--profile", "--yes", "--set", "-q", "-v"):
                raise click.UsageError(f"{error.option_name} belongs after the command.", ctx) from error
            raise

    def main(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run, and turn whatever comes out into text or JSON and an exit code."""
        words = sys.argv[1:] if args is None else list(args)
        name = prog_name or "cloudtune"
        if not standalone_mode:
            return super().main(words, name, standalone_mode=False, **extra)
        _print_anything()
        try:
            code = super().main(words, name, standalone_mode=False, **extra)
            sys.stdout.flush()
        except BaseException as error:  # noqa: BLE001 - the outermost place there is
            _leave(error, words)
        sys.exit(code if isinstance(code, int) else 0)


def _print_anything() -> None:
    """A name or an answer that the terminal cannot show must not end in an error."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _leave(error: BaseException, words: list[str]) -> NoReturn:
    if isinstance(error, SystemExit):
        raise error
    from cloudtune.cli.render_errors import report

    try:
        if isinstance(error, BrokenPipeError):
            raise error
        code = report(error, words)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone: say nothing, not even from Python's own flush at the end.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


@click.group(cls=Cli, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="cloudtune", message="%(prog)s %(version)s")
def cli() -> None:
    """Fine-tune models anywhere: one spec, one job, on this machine or at any provider."""


def main() -> None:
    """Entry point of the ``cloudtune`` script."""
    cli()
