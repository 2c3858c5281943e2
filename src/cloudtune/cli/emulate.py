"""``cloudtune emulate``: the vendors' wire APIs on this machine, to rehearse on."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shlex
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudtune.cli.options import command

if TYPE_CHECKING:
    from cloudtune.cli.session import Session

MODULE = "cloudtune_emulator"
"""Reached by name, as core imports no other root."""
NEEDS = "uvicorn"


@command("emulate", without=("backend", "ledger", "profile"))
@click.option("--port", type=click.IntRange(0, 65535), default=8787, show_default=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--tls", is_flag=True, help="Serve https, by an authority made for this server; clients are told of it.")
@click.option(
    "--beyond-loopback", is_flag=True, help="Listen where other machines can reach it; needs --tls, --api-key."
)
@click.option(
    "--engine",
    type=click.Choice(["script", "train"]),
    default="script",
    show_default=True,
    help="Jobs move by the clock, or are really trained on this machine.",
)
@click.option(
    "--store", type=click.Path(path_type=Path, file_okay=False), help="A folder that keeps everything over a restart."
)
@click.option(
    "--models",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="With --engine train: a JSON file that says which local model stands for which of the vendor's.",
)
@click.option("--speed", type=click.FloatRange(min=0), default=1.0, help="Seconds that pass in one; 0 stands still.")
@click.option("--api-key", envvar="CLOUDTUNE_EMULATOR_KEY", help="The OpenAI key to accept. Default: generated.")
@click.option("--jobs-per-day", type=click.IntRange(min=0), help="Refuse more jobs, with 429.")
@click.option("--requests-per-minute", type=click.IntRange(min=1), help="Refuse more requests, with 429.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="KIND[@CALL][:NAME=VALUE,...]",
    help="Let something go wrong, e.g. lost_reply@jobs.create or list_lag:seconds=30. Repeatable.",
)
def emulate(session: Session, port: int, host: str, speed: float, faults: tuple[str, ...], **options: Any) -> None:
    """Serve the fine-tuning APIs of OpenAI, Azure OpenAI and AWS on loopback until interrupted.

    Prints the environment that points any client at it, with credentials that are generated for this start (or kept in
    the --store folder). Nothing is ever sent to a vendor. The store, the clock and the faults are at
    URL/_emulator/store, /clock and /faults; send CLOUDTUNE_EMULATOR_ADMIN_TOKEN as a bearer token.
    """
    os.umask(0o077)  # this process serves and nothing else: all that it keeps is for this user alone
    emulator = _opened(host, port, speed, options)
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
    session.say("stopped")


def _opened(host: str, port: int, speed: float, options: dict[str, Any]) -> Any:
    from cloudtune.errors import BackendNotInstalled, CloudtuneError

    if importlib.util.find_spec(NEEDS) is None:
        raise BackendNotInstalled(
            f"the emulator needs {NEEDS}, which is not installed", hint='run: pip install "cloudtune[emulator]"'
        )
    module: Any = importlib.import_module(MODULE)
    beyond, tls = options.pop("beyond_loopback"), options.pop("tls")
    settings = module.Settings(**{name: value for name, value in options.items() if value is not None})
    try:
        return module.Emulator(settings, host=host, port=port, scale=speed, beyond_loopback=beyond, tls=tls)
    except OSError as error:
        hint = "another port: --port 0 takes a free one"
        raise CloudtuneError(f"cannot listen on {host}, port {port}: {error.strerror or error}", hint=hint) from error


def _tell(session: Session, emulator: Any) -> None:
    """The port is open from here on: whoever reads these lines can connect."""
    environment: dict[str, str] = emulator.environment()
    remarks: tuple[str, ...] = emulator.remarks()
    session.result({"url": emulator.url, "environment": environment, "remarks": remarks})
    for name, value in environment.items():
        session.put(f"export {name}={shlex.quote(value)}")
    for remark in remarks:
        session.put(f"# {remark}")
    sys.stdout.flush()  # into a pipe too: somebody waits for these lines
    session.say(f"listening on {emulator.url}, engine {emulator.settings.engine}; Ctrl-C stops it")


def _fault(text: str) -> dict[str, Any]:
    head, _, rest = text.partition(":")
    kind, _, call = head.partition("@")
    found: dict[str, Any] = {"fault": kind}
    if call:
        found["call"] = call
    for pair in filter(None, rest.split(",")):
        name, equals, value = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"{pair!r} in {text!r} is not NAME=VALUE", param_hint="--fault")
        found[name] = _number(value)
    return found


def _number(text: str) -> int | float | str:
    try:
        return int(text) if text.lstrip("-").isdecimal() else float(text)
    except ValueError:
        return text
