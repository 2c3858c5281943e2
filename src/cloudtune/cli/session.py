"""What one call of a command needs: configuration, client, and the two voices: results on stdout, talk on stderr."""

from __future__ import annotations

import json
import os
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cloudtune.cli.terminal import escaped, json_escaped, write, write_raw

if TYPE_CHECKING:
    from cloudtune.client import Client
    from cloudtune.config.config import Config
    from cloudtune.document.specfile import SpecFile
    from cloudtune.job import Job

SCHEMA_VERSION = 1
"""Of the JSON that the commands print."""


class Session:
    """One call of a command."""

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

            warnings.simplefilter("ignore")  # warnings of other packages' code are no news to who runs a command
        if verbose:
            _log_to_stderr(debug=verbose > 1)

    # -- what there is to work with --------------------------------------------------------------------------------

    @cached_property
    def config(self) -> Config:
        """The configuration, with what the command line said on top."""
        from cloudtune.config.config import load_config

        return load_config(profile=self._profile, flags={"backend": self.backend, "ledger": self._ledger})

    @cached_property
    def client(self) -> Client:
        """The way into the library."""
        from cloudtune.client import Client

        return Client(config=self.config)

    def close(self) -> None:
        """Close the client's connections, if it was used."""
        if "client" in vars(self):
            self.client.close()

    def open_spec(self, path: str, sets: tuple[str, ...], unsupported: str | None) -> SpecFile:
        """The spec file, with what the command line changes in it."""
        from cloudtune.document.specfile import open_spec

        return open_spec(path, (*sets, *((f"unsupported={unsupported}",) if unsupported else ())))

    def job(self, ref: str) -> Job:
        """The job that a person named. An empty word, as an unset variable leaves it, names none."""
        if not ref.strip():
            from cloudtune.errors import InputError

            raise InputError("no job is named", hint="`cloudtune jobs` lists them")
        return self.client.attach(ref)

    # -- speaking --------------------------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        """Whether to draw: somebody looks at the terminal and wants to be talked to."""
        return sys.stderr.isatty() and not self.quiet and not self.json

    def say(self, text: str = "", *, even_quiet: bool = False) -> None:
        """Talk, on stderr."""
        if self.quiet < (2 if even_quiet else 1):
            write(text, err=True)

    def put(self, text: str, *, end: str = "\n") -> None:
        """A result, on stdout, at once; nothing under ``--json``, where one object is all there is."""
        if not self.json:
            write(text, end=end)

    def answer(self, text: str, *, end: str = "\n") -> None:
        """What a model said, on stdout: as it came in a file or a pipe, escaped on a terminal."""
        if not self.json:
            write(text, end=end) if sys.stdout.isatty() else write_raw(text + end)

    def result(self, document: dict[str, Any]) -> None:
        """The one JSON object of the command, if JSON was asked for."""
        if self.json:
            put_json(document)


def _log_to_stderr(*, debug: bool) -> None:
    """Show log records. Those of the SDKs quote whole requests, with their credentials."""
    import logging

    from cloudtune.redaction.redactor import RedactingFormatter, Redactor, environment_secrets

    class Shown(RedactingFormatter):
        def format(self, record: logging.LogRecord) -> str:
            return escaped(super().format(record))

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Shown(Redactor(environment_secrets(os.environ)), "%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler])


def put_json(document: dict[str, Any]) -> None:
    """One JSON object on stdout; in an encoding that knows few letters, the others are escaped as JSON does."""
    only_ascii = not (sys.stdout.encoding or "").lower().startswith("utf")
    text = json.dumps({"schema_version": SCHEMA_VERSION} | document, ensure_ascii=only_ascii, indent=2)
    write_raw(json_escaped(text) + "\n")
