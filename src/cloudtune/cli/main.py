"""``cloudtune``: the command table, lazy loading of commands, and the conversion of errors to exit codes."""

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
    "advise": "Recommend prompting, RAG or fine-tuning; compute when tuning pays.",
    "init": "Create a commented job spec.",
    "plan": "Show what submit would do, without doing it.",
    "run": "Plan, confirm, submit and watch a job.",
    "submit": "Submit a job and print its reference.",
    "lr-find": "Suggest a learning rate from a short test on this machine.",
    "watch": "Watch a job until it ends.",
    "jobs": "List jobs and their states.",
    "show": "Show the details of a job.",
    "logs": "Print the events of a job.",
    "metrics": "Show the metrics of a job, as a table or a chart.",
    "checkpoints": "List the checkpoints of a job.",
    "cost": "Show what jobs cost, beside their estimates.",
    "cancel": "Cancel a job.",
    "retirements": "List which tuned models and specs stop working, and when.",
    "move": "Move a job or a spec to another back end.",
    "pause": "Pause a job.",
    "resume": "Resume a paused job, or continue one that has ended.",
    "delete": "Delete a job that has ended, with its model and checkpoints.",
    "deploy": "Deploy a tuned model.",
    "deployments": "List deployed models and their cost.",
    "undeploy": "Delete a deployment.",
    "sweep": "Delete deployments that are past their time to live.",
    "generate": "Generate text with a tuned model.",
    "chat": "Talk to a tuned model.",
    "serve": "Serve a tuned model over HTTP, as chat completions.",
    "predict": "Predict labels, tags or answers with a tuned model.",
    "evaluate": "Measure on held-out rows whether tuning helped.",
    "compare": "Compare jobs on held-out rows.",
    "tune": "Search for better parameters, and measure what they are worth.",
    "report": "Write a report about a job: verdict, metrics, curves, rows, plan.",
    "import": "Import a model that was trained elsewhere.",
    "export": "Export the adapter or the merged weights.",
    "data": "Check, convert, split and inspect training data.",
    "backends": "List the back ends and what they support.",
    "models": "List which models can be tuned where, with prices and end dates.",
    "catalog": "Read models, end dates and prices again from the vendors' APIs.",
    "methods": "Show which methods and adapters can be combined, and why others cannot.",
    "schema": "Print the JSON Schema of a job spec.",
    "config": "Show settings and their sources; trust a project's configuration file.",
    "ledger": "Check and repair the ledger, the local record of jobs.",
    "doctor": "Check the installation, the configuration and the back ends.",
    "emulate": "Serve the vendors' APIs on this machine, for development and tests.",
}
"""Maps each command to its summary, so that ``--help`` imports no command."""

_MODULES = {"import": "importing", "lr-find": "lr_find"}
_NAMES = {"import": "import_model", "lr-find": "lr_find"}
"""Modules and functions of commands whose name is not usable in Python."""

OTHER_WORDS = {
    "ask": "generate", "download": "export", "eval": "evaluate", "finetune": "run", "fit": "run", "infer": "generate",
    "inference": "generate", "info": "show", "kill": "cancel", "list": "jobs", "ls": "jobs", "ps": "jobs",
    "rm": "delete", "start": "run", "status": "show", "stop": "cancel", "test": "evaluate", "train": "run",
    "validate": "data check",
}  # fmt: skip
"""What other tools call a command -> its name here."""

EPILOG = """\b
Exit codes:
  0  success
  1  internal or other error
  2  invalid input: command, spec, data, configuration or credentials
  3  the job failed
  4  the job was cancelled
  5  timed out or interrupted; the job is still running
  6  lost connection; the job may still be running
  7  refused by a limit, a policy or the user
  8  the job reached one of its limits and was stopped
  9  the job was interrupted by a signal or a lost machine; it can be resumed
  10 the job has ended in a state that this version does not know

\b
Get started:
  cloudtune init job.yaml --model ./weights --train rows.jsonl
  cloudtune run job.yaml --backend local --yes

\b
Shell completion: eval "$(_CLOUDTUNE_COMPLETE=bash_source cloudtune)"   (or zsh_source, fish_source)
"""


class Cli(click.Group):
    """A group that imports a command only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all command names, in the order of a typical workflow."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the command's module."""
        if name not in COMMANDS:
            return None
        found = getattr(import_module(f"cloudtune.cli.{_MODULES.get(name, name)}"), _NAMES.get(name, name))
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve as click does, and suggest similar names for an unknown command."""
        from difflib import get_close_matches

        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            near = [OTHER_WORDS[args[0]]] if args[0] in OTHER_WORDS else get_close_matches(args[0], COMMANDS, n=2)
            hint = f" Did you mean {' or '.join(near)}?" if near else " Run `cloudtune --help` for a list of commands."
            raise click.UsageError(f"unknown command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the summaries from the table, without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does, and explain where a misplaced command option belongs."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name in ("--json", "--backend", "--ledger", "--profile", "--yes", "--set", "-q", "-v"):
                raise click.UsageError(f"{error.option_name} must come after the command.", ctx) from error
            raise

    def main(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command. Convert any error to text or JSON and an exit code."""
        words = sys.argv[1:] if args is None else list(args)
        name = prog_name or "cloudtune"
        if not standalone_mode:
            return super().main(words, name, standalone_mode=False, **extra)
        _print_anything()
        try:
            code = super().main(words, name, standalone_mode=False, **extra)
            sys.stdout.flush()
        except BaseException as error:  # noqa: BLE001 - the outermost handler
            _leave(error, words)
        sys.exit(code if isinstance(code, int) else 0)


def _print_anything() -> None:
    """Escape characters that the terminal's encoding cannot represent, instead of failing."""
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
        # The reader closed the pipe: suppress all output, including Python's flush at exit.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


@click.group(cls=Cli, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="cloudtune", message="%(prog)s %(version)s")
def cli() -> None:
    """Fine-tune language models locally or with a cloud provider, from one job spec."""


def main() -> None:
    """Entry point of the ``cloudtune`` script."""
    cli()
