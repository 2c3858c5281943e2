"""``cloudtune serve``: serve a tuned model over HTTP, in the dialect of OpenAI's chat completions."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import ipaddress
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import click

from cloudtune.cli.options import command, ref_argument, trust_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.cli.session import Session
    from cloudtune.job import Job
    from cloudtune.optional import GenerateOptions, Prompt
    from cloudtune.state import Generation

MODULE = "cloudtune_emulator.model_server"
"""Imported by name, because core imports no other top-level package."""
NEEDS = "uvicorn"
KEY = "CLOUDTUNE_SERVE_KEY"


@command("serve", without=("backend",))
@ref_argument
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port to listen on. 0 chooses a free one.",
)
@trust_option
def serve(session: Session, ref: str, host: str, port: int, trust_remote_code: bool) -> None:
    """Serve the model of a job until interrupted: /v1/chat/completions, also streamed, and /v1/models.

    Requests name the model by the job's name, or `base` for the model before training. Set CLOUDTUNE_SERVE_KEY to
    require it as a bearer token; addresses other than loopback need it. Traffic is not encrypted. One answer is
    generated at a time: this is for trying a model, and for small tools.
    """
    key = os.environ.get(KEY, "")
    _check_exposed(host, key)
    job = session.job(ref)
    ask = functools.partial(_ask, job, trust_remote_code)
    name = job.snapshot().name or job.ref.id
    name = job.ref.id if name == "base" else name  # `base` is the model before training
    if job.ref.backend == "local":  # load the model, so that its problems are reported now
        from cloudtune.optional import GenerateOptions

        session.say(f"loading {name}")
        list(ask("Hello", GenerateOptions(max_tokens=1)))
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with _opened(ask, name, host, port, key) as server:
        session.result({"url": server.url, "model": name})
        session.put(server.url)
        session.say(f"serving {name} at {server.url}; press Ctrl-C to stop")
        stopped.wait()
    session.say("stopped")


def _ask(job: Job, trusted: bool, prompt: Prompt, options: GenerateOptions) -> Iterator[Generation]:
    return job.generate([prompt], options, trust_remote_code=trusted)


def _check_exposed(host: str, key: str) -> None:
    from cloudtune.errors import InputError

    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback and not key:
        raise InputError(
            f"{host} is reachable from other machines, and no token protects the model",
            hint=f"set {KEY} to a secret that requests must send as a bearer token, or use --host 127.0.0.1",
        )


def _opened(ask: Any, name: str, host: str, port: int, key: str) -> Any:
    from cloudtune.errors import BackendNotInstalled, CloudtuneError
    from cloudtune.install_command import install_command

    if importlib.util.find_spec(NEEDS) is None:
        message = f"serving a model requires {NEEDS}, which is not installed"
        raise BackendNotInstalled(message, hint=f"run: {install_command('emulator')}")
    module: Any = importlib.import_module(MODULE)
    try:
        return module.ModelServer(ask, name, host=host, port=port, key=key)
    except OSError as error:
        hint = "choose another port; --port 0 picks a free one"
        raise CloudtuneError(f"cannot listen on {host} port {port}: {error.strerror or error}", hint=hint) from error
