"""Options that several commands share, and the decorator that makes a command of a function."""

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
    "backend": click.Option(["--backend"], metavar="NAME", help="Where: local, openai, ...; wins over the spec."),
    "ledger": click.Option(["--ledger"], metavar="URL", help="The durable record, e.g. sqlite:///path/ledger.db."),
    "profile": click.Option(["--profile"], metavar="NAME", help="A profile of the configuration."),
    "json": click.Option(["--json", "as_json"], is_flag=True, help="One JSON object on stdout, errors included."),
    "quiet": click.Option(["-q", "--quiet"], count=True, help="Less talk; twice: none."),
    "verbose": click.Option(["-v", "--verbose"], count=True, help="More talk; twice: tracebacks too."),
}


def command(
    name: str, *, without: tuple[str, ...] = (), **attributes: Any
) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a click command of a function whose first argument is a `Session` made from the shared options."""

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
    """Seconds, written as people do: 90s, 45m, 1h30m, 2d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the text."""
        if isinstance(value, float):
            return value
        try:
            return duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def spec_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """The spec file, and what may be changed in it from the command line."""
    for decorator in (
        click.option("--resume", is_flag=True, help="If the last attempt failed or was stopped, go on from its "
                     "newest good checkpoint."),
        click.option("--again", is_flag=True, help="A new attempt, if the last one has ended."),
        click.option("--unsupported", type=click.Choice(["refuse", "drop"]), help="What to do with fields that the "
                     "back end cannot apply; each drop stands in the plan."),
        click.option("--set", "sets", multiple=True, metavar="A.B=VALUE", help="Change a field of the spec; may be "
                     "repeated."),
        click.argument("spec", metavar="SPEC"),
    ):  # fmt: skip
        function = decorator(function)
    return function


def ref_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """The job: its reference, its name, its id, or the beginning of its id."""
    return click.argument("ref", metavar="JOB")(function)


class Waiting(TypedDict):
    """How long to wait, in seconds; None is the default."""

    timeout: float | None
    stall_after: float | None
    lost_after: float | None
    cancel_after: float | None


_WAITING = {
    "timeout": "Stop waiting after this long (exit code 5); the job goes on.",
    "stall_after": "Say so when a running job shows no step and no event for this long.",
    "lost_after": "Give up when nothing answers for this long (exit code 6); the job may go on.",
    "cancel_after": "Cancel the job, if somebody is watching, once it is this old (exit code 8).",
}


def watch_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `Waiting`, handed on together as ``waiting``."""

    @functools.wraps(function)
    def run(*words: Any, **values: Any) -> Any:
        waiting = {name: values.pop(name) for name in _WAITING}
        return function(*words, **values, waiting=Waiting(**waiting))  # type: ignore[typeddict-item]

    for name, text in reversed(_WAITING.items()):
        run = click.option(f"--{name.replace('_', '-')}", type=Duration(), metavar="TIME", help=text)(run)
    return run


yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
trust_option = click.option(
    "--trust-remote-code", is_flag=True, help="Let Python code that comes with the model run. Only for models whose "
    "authors you trust.",
)  # fmt: skip
