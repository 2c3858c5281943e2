"""Credentials are random, kept with the store, and needed for everything; other machines need TLS and a key."""

from __future__ import annotations

import json
import re
import stat
from typing import TYPE_CHECKING

import msgspec
import pytest

from cloudtune.errors import ConfigError
from cloudtune_emulator import Emulator, Settings
from cloudtune_emulator.credentials import FILE, GENERATORS
from cloudtune_emulator.server import check_exposure

if TYPE_CHECKING:
    from pathlib import Path

KEY = "sk-of-my-own-0123456789"


def credentials(settings: Settings) -> dict[str, str]:
    return {name: getattr(settings, name) for name in GENERATORS}


def test_no_credential_has_a_default() -> None:
    fields = {field.name: field.default for field in msgspec.structs.fields(Settings)}
    secret = {name for name in fields if name.endswith(("_key", "_token", "_secret"))}
    assert secret == set(GENERATORS)
    assert {fields[name] for name in secret} == {""}


def test_every_start_has_credentials_of_its_own() -> None:
    with Emulator() as one, Emulator() as other:
        first, second = credentials(one.settings), credentials(other.settings)
        environment = one.environment() | {"remarks": " ".join(one.remarks())}
    values = [*first.values(), *second.values()]
    assert len(set(values)) == len(values)
    assert min(map(len, values)) >= 20
    for name, value in first.items():
        assert any(value in reported for reported in environment.values()), name


def test_given_credentials_win() -> None:
    with Emulator(Settings(api_key=KEY)) as emulator:
        assert emulator.settings.api_key == emulator.environment()["OPENAI_API_KEY"] == KEY
        assert emulator.settings.azure_key


def test_a_store_keeps_generated_credentials(tmp_path: Path) -> None:
    found = []
    for given in ({}, {"api_key": KEY}, {}):
        with Emulator(Settings(store=tmp_path / "store", **given)) as emulator:
            found.append(credentials(emulator.settings))
    assert found[0] == found[2]
    assert found[1] == found[0] | {"api_key": KEY}
    path = tmp_path / "store" / FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KEY not in path.read_text()


@pytest.mark.parametrize("damage", ["readable", "link", "not json", "not text"])
def test_a_bad_credentials_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / FILE
    if damage == "link":
        (tmp_path / "other").write_text("{}")
        path.symlink_to(tmp_path / "other")
    else:
        path.write_text({"not json": "{", "not text": json.dumps({"api_key": 1})}.get(damage, "{}"))
        path.chmod(0o644 if damage == "readable" else 0o600)
    with pytest.raises(ConfigError, match=FILE):
        Emulator(Settings(store=tmp_path))


@pytest.mark.parametrize("engine", ["script", "train"])
@pytest.mark.parametrize(
    ("allowed", "tls", "key", "missing"),
    [
        (False, False, "", "--beyond-loopback, --tls, --api-key"), (False, True, KEY, "add --beyond-loopback$"),
        (True, False, KEY, "add --tls$"), (True, True, "", "add --api-key"), (True, True, "short", "add --api-key"),
        (True, False, "", "add --tls, --api-key"),
    ],
)  # fmt: skip
def test_other_machines_need_tls_and_a_key(engine: str, allowed: bool, tls: bool, key: str, missing: str) -> None:
    settings = Settings(engine=engine, api_key=key)  # type: ignore[arg-type]
    for host in ("0.0.0.0", "::", "10.0.0.1", "emulator.example"):
        with pytest.raises(ConfigError) as refused:
            Emulator(settings, host=host, beyond_loopback=allowed, tls=tls)
        assert refused.match("other machines can connect to")
        assert re.search(missing, str(refused.value)), str(refused.value)


def test_with_tls_and_a_key_other_machines_are_allowed() -> None:
    check_exposure("0.0.0.0", Settings(api_key=KEY), allowed=True, tls=True)
