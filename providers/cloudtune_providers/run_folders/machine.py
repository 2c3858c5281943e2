"""Another machine, reached through the user's own OpenSSH client and its configuration.

The client runs in batch mode, so it never asks for a password, and it checks the host's key against ``known_hosts``.
Nothing secret is on a command line.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from typing import IO, TYPE_CHECKING, NamedTuple, Self

from cloudtune.errors import BackendNotInstalled, CredentialsError, PermissionDenied, Unavailable
from cloudtune.processes.environment import child_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECT_TIMEOUT_S = 15
_UNSENT = ("ssh: connect to host", "ssh: could not resolve", "command-line", "can't open user config file")
"""How the client's last line begins if it did not connect."""
_NO_KEY = re.compile(r"^\S+: permission denied \(|too many authentication failures", re.MULTILINE)
_BLOCK = 1 << 16
_REFUSED = 255
"""The exit code of the client itself; every other code is that of the remote command."""
_CLIENT = (
    "BatchMode=yes", f"ConnectTimeout={CONNECT_TIMEOUT_S}", "ServerAliveInterval=15", "ServerAliveCountMax=4",
    "ForwardAgent=no", "ForwardX11=no", "ClearAllForwardings=yes", "RequestTTY=no", "PermitLocalCommand=no",
)  # fmt: skip
"""Settings of the client that the user's configuration does not change."""
HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:%-]*|[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9_\[][A-Za-z0-9_.:%\]-]*")
"""A name of the user's ssh configuration, or USER@HOST; never an option of the client."""


class Answer(NamedTuple):
    """How a remote command ended."""

    code: int
    out: bytes
    err: str


class SshMachine:
    """A machine by its name in the ssh configuration."""

    def __init__(self, host: str, *, config: str | None = None, timeout: float = 300.0) -> None:
        self.host = host
        self._config = ["-F", config] if config is not None else []
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"SshMachine({self.host!r})"

    def _argv(self, command: Sequence[str]) -> list[str]:
        if shutil.which("ssh") is None:
            raise BackendNotInstalled("there is no OpenSSH client (ssh) on this machine", hint="install openssh-client")
        words = [word for option in _CLIENT for word in ("-o", option)]
        return ["ssh", *self._config, *words, "--", self.host, shlex.join(command)]

    def run(self, command: Sequence[str], parts: Sequence[bytes | IO[bytes]] = ()) -> Answer:
        """Run a command with these parts as its standard input.

        Raises:
            Unavailable: The machine cannot be reached, or the connection was lost.
            CredentialsError: It accepts no key of this user.
            PermissionDenied: Its host key is not the known one.

        """
        try:
            with subprocess.Popen(
                self._argv(command),
                env=_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            ) as process:
                out, err = _exchange(process, parts, self._timeout)
        except OSError as error:
            raise Unavailable(f"cannot start ssh: {error}", acted=False) from error
        text = err.decode(errors="replace").strip()
        if process.returncode == _REFUSED:
            raise _failure(self.host, text)
        return Answer(process.returncode, out, text)

    def fetch(self, command: Sequence[str], request: bytes, sink: IO[bytes]) -> Answer:
        """Run a command and write its standard output to a file."""
        with (
            tempfile.TemporaryFile() as said,
            subprocess.Popen(
                self._argv(command), env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said
            ) as process,
            _Watch(process, self._timeout) as watch,
        ):
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(BrokenPipeError), process.stdin:  # the reason is in its standard error
                process.stdin.write(request)
            while block := process.stdout.read(_BLOCK):
                watch.progress()
                sink.write(block)
            process.wait()
            watch.check()
            said.seek(0)
            text = said.read().decode(errors="replace").strip()
        if process.returncode == _REFUSED:
            raise _failure(self.host, text)
        return Answer(process.returncode, b"", text)


class _Watch:
    """Kills a client that neither takes nor gives bytes for that time."""

    def __init__(self, process: subprocess.Popen[bytes], timeout: float) -> None:
        self._process, self._timeout = process, timeout
        self._seen_at, self._is_late = time.monotonic(), False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="cloudtune watch of ssh", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def progress(self) -> None:
        """Some bytes have arrived."""
        self._seen_at = time.monotonic()

    def check(self) -> None:
        """Raise Unavailable if the client had to be killed."""
        if self._is_late:
            raise Unavailable(f"no response within {self._timeout:g} s")

    def _look(self) -> None:
        while not self._over.wait(min(1.0, self._timeout)):
            if time.monotonic() - self._seen_at > self._timeout:
                self._is_late = True
                self._process.kill()
                return


def _environment() -> dict[str, str]:
    """The client needs the agent of the user's keys, and no other secret."""
    return child_environment(also=("SSH_AUTH_SOCK", "KRB5CCNAME"))


def _exchange(
    process: subprocess.Popen[bytes], parts: Sequence[bytes | IO[bytes]], timeout: float
) -> tuple[bytes, bytes]:
    """Write the parts, then read both outputs. A process that does not read its input ends the writing."""
    assert process.stdin is not None
    with _Watch(process, timeout) as watch:
        try:
            for part in parts:
                file = io.BytesIO(part) if isinstance(part, bytes) else part
                while block := file.read(_BLOCK):
                    process.stdin.write(block)
                    watch.progress()
            process.stdin.flush()
        except BrokenPipeError:
            watch.check()  # else the reason is in its standard error
    try:
        return process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        process.kill()
        process.communicate()
        raise Unavailable(f"no response within {timeout:g} s") from error


def _failure(host: str, text: str) -> Exception:
    """The error for what the client itself reports. It may have sent the command before a connection was lost.

    Only its last line tells that it did not: earlier ones may be warnings, or words of the machine.
    """
    low, last = text.lower(), text.splitlines()[-1] if text else "no message"
    if "host key verification failed" in low or "host identification has changed" in low:
        hint = f"compare the key with its administrator, then run `ssh {host}` once, or correct known_hosts"
        return PermissionDenied(f"the host key of {host} is not the known one, so nothing was sent", hint=hint)
    if _NO_KEY.search(low):
        hint = f"make `ssh {host} true` work without a password: a key in ssh-agent, or IdentityFile in ~/.ssh/config"
        return CredentialsError(f"{host} does not accept a key of this user: {last}", hint=hint)
    is_unsent = last.lower().startswith(_UNSENT) or "bad configuration option" in last.lower()
    if is_unsent:
        return Unavailable(f"cannot reach {host}: {last}", acted=False, hint="check the name in ~/.ssh/config")
    return Unavailable(f"the connection to {host} was lost: {last}")
