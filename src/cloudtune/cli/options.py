"""Options shared by several commands, and the decorator that turns a function into a command."""

from __future__ import annotations

import functools
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypedDict

import click

from cloudtune.cli.session import Session
from cloudtune.clock import duration

if TYPE_CHECKING:
    from collections.abc import Callable

_SHARED: dict[str, click.Option] = {
    "backend": click.Option(["--backend"], metavar="NAME", help="Back end: local, openai, ... Overrides the spec."),
    "ledger": click.Option(["--ledger"], metavar="URL", help="Ledger URL, e.g. sqlite:///path/ledger.db."),
    "profile": click.Option(["--profile"], metavar="NAME", help="Configuration profile."),
    "json": click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON object to stdout, also for errors."),
    "quiet": click.Option(["-q", "--quiet"], count=True, help="Print less. Repeat to print results only."),
    "verbose": click.Option(["-v", "--verbose"], count=True, help="Print more. Repeat to include tracebacks."),
}


def command(
    name: str, *, without: tuple[str, ...] = (), **attributes: Any
) -> Callable[[Callable[..., Any]], click.Command]:
    """Turn a function whose first argument is a `Session` into a click command with the shared options."""

    def wrap(function: Callable[..., Any]) -> click.Command:
        shared = [option for key, option in _SHARED.items() if key not in without]

        @functools.wraps(function)
        def run(**values: Any) -> Any:
            own = {str(option.name): values.pop(str(option.name)) for option in shared}
            with closing(Session(**own)) as session:
                return function(session, **values)

        made = click.command(name, cls=click.Command, **attributes)(run)
        made.params.extend(shared)
        return made

    return wrap


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic only in the newest click
    """A duration in seconds, written as 90s, 45m, 1h30m or 2d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse the text."""
        if isinstance(value, float):
            return value
        try:
            return duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


accept_unknown_cost_option = click.option(
    "--accept-unknown-cost", is_flag=True,
    help="Allow a job whose cost is unknown although it has a cost limit or a budget.",
)  # fmt: skip


def spec_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """The spec file argument, and the options that change it."""
    for decorator in (
        accept_unknown_cost_option,
        click.option("--resume", is_flag=True, help="If the last attempt failed or was stopped, continue from its "
                     "newest valid checkpoint."),
        click.option("--again", is_flag=True, help="Start a new attempt if the last one has ended."),
        click.option("--unsupported", type=click.Choice(["refuse", "drop"]), help="What to do with fields that the "
                     "back end does not support. The plan lists dropped fields."),
        click.option("--set", "sets", multiple=True, metavar="A.B=VALUE", help="Change a field of the spec. "
                     "Repeatable."),
        click.argument("spec", metavar="SPEC"),
    ):  # fmt: skip
        function = decorator(function)
    return function


def ref_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """The job: a reference, a name, an id or an id prefix."""
    return click.argument("ref", metavar="JOB")(function)


class Waiting(TypedDict):
    """How long to wait, in seconds. None means the default."""

    timeout: float | None
    stall_after: float | None
    lost_after: float | None
    cancel_after: float | None


_WAITING = {
    "timeout": "Stop waiting after this duration (exit code 5). The job keeps running.",
    "stall_after": "Warn if a running job reports no progress for this duration.",
    "lost_after": "Stop if the back end does not respond for this duration (exit code 6).",
    "cancel_after": "While watching, cancel the job when it has run this long (exit code 8).",
}


def watch_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of `Waiting` and pass them as ``waiting``."""

    @functools.wraps(function)
    def run(*words: Any, **values: Any) -> Any:
        waiting = {name: values.pop(name) for name in _WAITING}
        return function(*words, **values, waiting=Waiting(**waiting))  # type: ignore[typeddict-item]

    for name, text in reversed(_WAITING.items()):
        run = click.option(f"--{name.replace('_', '-')}", type=Duration(), metavar="TIME", help=text)(run)
    return run


all_option = click.option("--all", "every", is_flag=True, help="List the settings that are defaults, too.")
yes_option = click.option("--yes", "-y", is_flag=True, help="Skip the confirmation prompt.")
trust_option = click.option(
    "--trust-remote-code", is_flag=True, help="Allow Python code in the model's repository to run. Use it only for "
    "models from authors you trust.",
)  # fmt: skip
trust_reward_option = click.option(
    "--trust-reward", is_flag=True, help="Allow the spec's reward function to run, or its endpoint to get the prompts "
    "and completions, and metrics that are Python functions to run.",
)  # fmt: skip
