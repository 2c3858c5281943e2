"""State of one command invocation: configuration, client, results on stdout and messages on stderr."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from cloudtune.cli.terminal import escaped, json_escaped, write, write_raw

if TYPE_CHECKING:
    from cloudtune.client import Client
    from cloudtune.config.config import Config
    from cloudtune.document.specfile import SpecFile
    from cloudtune.job import Job

SCHEMA_VERSION = 1
"""Version of the JSON that the commands print."""


class Service(NamedTuple):
    """A service that is compatible with a vendor's."""

    scope: str
    title: str


class Session:
    """One invocation of a command."""

    def __init__(
        self,
        *,
        backend: str | None = None,
        ledger: str | None = None,
        profile: str | None = None,
        as_json: bool = False,
        quiet: int = 0,
        verbose: int = 0,
    ) -> None:
        self.backend = backend
        self.json = as_json
        self.quiet = quiet
        self.verbose = verbose
        self._ledger = ledger
        self._profile = profile
        if not verbose and not sys.warnoptions:
            import warnings

            warnings.simplefilter("ignore")  # warnings from other packages' code do not help CLI users
        if verbose:
            _log_to_stderr(debug=verbose > 1)

    # -- configuration and client ----------------------------------------------------------------------------------

    @cached_property
    def config(self) -> Config:
        """The configuration, with command-line options applied."""
        from cloudtune.config.config import load_config

        return load_config(profile=self._profile, flags={"backend": self.backend, "ledger": self._ledger})

    @cached_property
    def client(self) -> Client:
        """The client of this invocation."""
        from cloudtune.client import Client

        return Client(config=self.config)

    def close(self) -> None:
        """Close the client's connections, if it was used."""
        if "client" in vars(self):
            self.client.close()

    def open_spec(self, path: str, sets: tuple[str, ...], unsupported: str | None) -> SpecFile:
        """Load the spec file and apply the command-line changes."""
        from cloudtune.document.specfile import open_spec

        return open_spec(path, (*sets, *((f"unsupported={unsupported}",) if unsupported else ())))

    def service_of(self, backend: str) -> Service | None:
        """Return the service to which a back end is set, if it is not its vendor's: no catalog is about it."""
        from cloudtune.errors import CloudtuneError
        from cloudtune.optional import Generator

        with suppress(CloudtuneError):
            opened = self.client.backend(backend)
            if opened.capabilities.title and isinstance(opened, Generator):
                return Service(opened.scope(), opened.capabilities.title)
        return None

    def job(self, ref: str) -> Job:
        """Return the job that the user named. Rejects an empty string, which an unset shell variable produces."""
        from cloudtune.errors import InputError, JobNotFound

        if not ref.strip():
            raise InputError("the job name is empty", hint="run `cloudtune jobs` to list jobs")
        try:
            return self.client.attach(ref)
        except JobNotFound as error:
            if not os.path.isdir(ref):  # noqa: PTH112 - unlike Path.is_dir, it raises nothing for odd names
                raise
            hint = "name the job that trained it; transformers loads the folder, and a spec takes it as `model`"
            raise JobNotFound(f"{ref} is a folder, not a job", hint=hint) from error

    # -- output ----------------------------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        """Whether to use the live display: stderr is a terminal and output is not reduced."""
        return sys.stderr.isatty() and not self.quiet and not self.json

    def say(self, text: str = "", *, even_quiet: bool = False) -> None:
        """Print a message to stderr."""
        if self.quiet < (2 if even_quiet else 1):
            write(text, err=True)

    def put(self, text: str, *, end: str = "\n") -> None:
        """Print a result to stdout and flush. Does nothing with ``--json``, which prints one object only."""
        if not self.json:
            write(text, end=end)

    def answer(self, text: str, *, end: str = "\n") -> None:
        """Print model output to stdout: unchanged in a file or pipe, escaped in a terminal."""
        if not self.json:
            write(text, end=end) if sys.stdout.isatty() else write_raw(text + end)

    def result(self, document: dict[str, Any]) -> None:
        """Print the command's JSON object, with ``--json``."""
        if self.json:
            put_json(document)


def _log_to_stderr(*, debug: bool) -> None:
    """Show log records, except those of the SDKs: they contain whole requests with credentials."""
    import logging

    from cloudtune.redaction.redactor import RedactingFormatter, Redactor, environment_secrets

    class Shown(RedactingFormatter):
        def format(self, record: logging.LogRecord) -> str:
            return escaped(super().format(record))

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Shown(Redactor(environment_secrets(os.environ)), "%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler])


def put_json(document: dict[str, Any]) -> None:
    """Print one JSON object to stdout. Characters that the encoding lacks are escaped as in JSON."""
    only_ascii = not (sys.stdout.encoding or "").lower().startswith("utf")
    text = json.dumps({"schema_version": SCHEMA_VERSION} | document, ensure_ascii=only_ascii, indent=2)
    write_raw(json_escaped(text) + "\n")
