"""``cloudtune emulate``: serve the vendors' APIs on this machine."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shlex
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudtune.cli.options import command
from cloudtune.install_command import install_command

if TYPE_CHECKING:
    from cloudtune.cli.session import Session

MODULE = "cloudtune_emulator"
"""Imported by name, because core imports no other top-level package."""
NEEDS = "uvicorn"


@command("emulate", without=("backend", "ledger", "profile"))
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8787,
    show_default=True,
    help="Port to listen on. 0 chooses a free one.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--tls", is_flag=True, help="Serve HTTPS with a generated certificate authority.")
@click.option(
    "--beyond-loopback", is_flag=True, help="Allow connections from other machines. Requires --tls and --api-key."
)
@click.option(
    "--engine",
    type=click.Choice(["script", "train"]),
    default="script",
    show_default=True,
    help="script: jobs follow a simulated timeline. train: jobs train on this machine.",
)
@click.option(
    "--store", type=click.Path(path_type=Path, file_okay=False), help="Folder for state that persists across restarts."
)
@click.option(
    "--models",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="With --engine train: JSON file that maps vendor models to local models.",
)
@click.option(
    "--service",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Profile of an OpenAI-compatible service, whose dialect /v1 then has: a JSON file.",
)
@click.option(
    "--speed", type=click.FloatRange(min=0), default=1.0, help="Simulated seconds per real second. 0 stops the clock."
)
@click.option("--api-key", envvar="CLOUDTUNE_EMULATOR_KEY", help="OpenAI API key to accept. Default: generated.")
@click.option("--jobs-per-day", type=click.IntRange(min=0), help="Maximum active jobs. More are rejected with 429.")
@click.option(
    "--requests-per-minute", type=click.IntRange(min=1), help="Maximum requests per minute. More are rejected with 429."
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="KIND[@CALL][:NAME=VALUE,...]",
    help="Inject a fault, e.g. lost_reply@jobs.create or list_lag:seconds=30. Repeatable.",
)
def emulate(session: Session, port: int, host: str, speed: float, faults: tuple[str, ...], **options: Any) -> None:
    """Serve the fine-tuning APIs of OpenAI, Azure OpenAI and AWS on this machine until interrupted.

    Prints the environment variables that point any client at it, with generated credentials. Nothing is sent to a
    vendor. The admin API is at URL/_emulator/store, /clock and /faults; send CLOUDTUNE_EMULATOR_ADMIN_TOKEN as a
    bearer token. Credentials persist only with --store.
    """
    os.umask(0o077)  # The process only serves, so every file it creates is private to this user.
    emulator = opened(host, port, speed, options)
    stopped = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stopped.set())
    with emulator:
        for text in faults:
            try:
                emulator.faults.add(**_fault(text))
            except ValueError as error:
                raise click.BadParameter(f"{text!r}: {error}", param_hint="--fault") from error
        _tell(session, emulator)
        stopped.wait()
        leaks = ", ".join(f"{count} {kind}" for kind, count in emulator.leaks().items())
    session.say("stopped")
    if leaks:
        session.say(f"not deleted, and billed by the hour at a vendor: {leaks}")


def opened(host: str, port: int, speed: float, options: dict[str, Any]) -> Any:
    """An emulator that listens, not started yet. Raises BackendNotInstalled, CloudtuneError."""
    from cloudtune.errors import BackendNotInstalled, CloudtuneError

    if importlib.util.find_spec(NEEDS) is None:
        raise BackendNotInstalled(
            f"the emulator requires {NEEDS}, which is not installed", hint=f"run: {install_command('emulator')}"
        )
    module: Any = importlib.import_module(MODULE)
    beyond, tls = options.pop("beyond_loopback"), options.pop("tls")
    settings = module.Settings(**{name: value for name, value in options.items() if value is not None})
    try:
        return module.Emulator(settings, host=host, port=port, scale=speed, beyond_loopback=beyond, tls=tls)
    except OSError as error:
        hint = "choose another port; --port 0 picks a free one"
        raise CloudtuneError(f"cannot listen on {host} port {port}: {error.strerror or error}", hint=hint) from error


def _tell(session: Session, emulator: Any) -> None:
    """Print the connection details. The port is open before the first line is printed."""
    environment: dict[str, str] = emulator.environment()
    remarks: tuple[str, ...] = emulator.remarks()
    session.result({"url": emulator.url, "environment": environment, "remarks": remarks})
    lines = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    # In one write: with only the first lines, a script that reads the file meanwhile would reach the vendor.
    session.put("\n".join([*lines, *(f"# {remark}" for remark in remarks)]))
    session.say(f"listening on {emulator.url}, engine {emulator.settings.engine}; press Ctrl-C to stop")


def _fault(text: str) -> dict[str, Any]:
    head, _, rest = text.partition(":")
    kind, _, call = head.partition("@")
    found: dict[str, Any] = {"fault": kind}
    if call:
        found["call"] = call
    for pair in filter(None, rest.split(",")):
        name, equals, value = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"expected NAME=VALUE, got {pair!r} in {text!r}", param_hint="--fault")
        found[name] = _number(value)
    return found


def _number(text: str) -> int | float | str:
    try:
        return int(text) if text.lstrip("-").isdecimal() else float(text)
    except ValueError:
        return text
