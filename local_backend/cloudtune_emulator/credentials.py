"""The credentials of one emulator: random at every start, unless they are given or saved with the store.

Each key is at least 128 bits from the operating system's random source. With a store, generated credentials are saved
in ``credentials.json`` there (mode 0600), so that clients keep working after a restart.
"""

from __future__ import annotations

import base64
import os
import secrets
from typing import TYPE_CHECKING

import msgspec

from cloudtune.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from cloudtune_emulator.settings import Settings

FILE = "credentials.json"


def _access_key_id() -> str:
    """20 characters of ``A-Z2-7``, as in AWS's keys."""
    return "AKIA" + base64.b32encode(secrets.token_bytes(10)).decode()


GENERATORS: Mapping[str, Callable[[], str]] = {
    "api_key": lambda: f"sk-emulator-{secrets.token_urlsafe(32)}",
    "azure_key": lambda: secrets.token_hex(32),
    "azure_token": lambda: secrets.token_urlsafe(32),
    "aws_key": _access_key_id,
    "aws_secret": lambda: secrets.token_urlsafe(30),
    "bedrock_api_key": lambda: f"bedrock-api-key-{secrets.token_urlsafe(32)}",
    "admin_token": lambda: secrets.token_urlsafe(32),
}
"""Field of the settings -> the generator of its value. Access key ids have 80 random bits; their secrets have 240."""


def complete(settings: Settings) -> Settings:
    """Return the settings with a value for every credential.

    Given values override saved ones, and saved ones override new ones. Only generated values are written. Raises
    ConfigError if the file in the store cannot be used.
    """
    kept = {} if settings.store is None else _read(settings.store / FILE)
    generated = {name: kept.get(name) or make() for name, make in GENERATORS.items()}
    if settings.store is not None and generated != kept:
        _write(settings.store / FILE, generated)
    missing = {name: value for name, value in generated.items() if not getattr(settings, name)}
    return msgspec.structs.replace(settings, **missing)


def _read(path: Path) -> dict[str, str]:
    try:
        # Group and others must have no access: anyone who can read the file can use the emulator.
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.geteuid() or status.st_mode & 0o077:
                hint = f"delete {path}; the emulator generates new credentials"
                raise ConfigError(f"{path} belongs to or is readable by another user", hint=hint)
            return msgspec.json.decode(file.read(), type=dict[str, str])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        hint = f"delete {path}; the emulator generates new credentials"
        raise ConfigError(f"the emulator's credentials in {path} cannot be read: {error}", hint=hint) from error


def _write(path: Path, credentials: Mapping[str, str]) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(msgspec.json.encode(credentials))
    draft.replace(path)
