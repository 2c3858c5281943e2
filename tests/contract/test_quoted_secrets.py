"""A vendor that quotes the request's own credentials: they are shown and stored nowhere, whichever back end it is."""

from __future__ import annotations

import base64
import json
import logging
import traceback
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from tests.contract.emulated import KEY
from tests.contract.emulated_aws import SECRET
from tests.contract.test_invalid_responses import WORLDS

from cloudtune.cli.render_errors import report
from cloudtune.client import Client
from cloudtune.errors import CloudtuneError
from cloudtune.redaction.boundary import guarded
from cloudtune.redaction.redactor import MASK, RedactingFormatter, Redactor, environment_secrets
from cloudtune.state import JobState, to_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    world = WORLDS[request.param](tmp_path)
    yield world
    world.heal()
    world.close()


def quoted(secret: str) -> str:
    """The secret, in the ways in which a service may repeat it."""
    basic = base64.b64encode(f"user:{secret}".encode()).decode()
    return (
        f"no: Authorization: Bearer {secret}; api-key: {secret}; {secret.upper()}; {quote(secret, safe='')}; "
        f"Basic {basic}; {json.dumps({'secret': secret})}; AccountKey={secret}"
    )


def forms(secret: str) -> list[str]:
    return [secret.lower(), base64.b64encode(f"user:{secret}".encode()).decode()[8:-8].lower()]


def hidden_in(text: str, world: Any) -> list[str]:
    secrets = {*world.secrets, KEY, SECRET}
    return [form for secret in secrets for form in forms(secret) if form in text.lower()]


def told(error: BaseException, capsys: pytest.CaptureFixture[str]) -> str:
    """All that a person, a program or a log sees of an error."""
    for words in (["show", "-vv"], ["show", "--json", "-vv"]):
        report(error, words)
    printed = capsys.readouterr()
    whole = "".join(traceback.format_exception(error))
    causes, cause = "", error.__cause__
    while cause is not None:
        causes, cause = f"{causes}{cause!r}{cause}{vars(cause).get('args')}", cause.__cause__
    return f"{printed.out}{printed.err}{whole}{error!r}{vars(error)}{causes}"


def test_a_quoted_secret_is_shown_and_stored_nowhere(
    world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(world.backend(), ledger=f"sqlite:///{tmp_path / 'home' / 'ledger.db'}", clock=world.clock)
    secret = next(iter(world.secrets))
    message = quoted(secret)
    seen = ""
    spec = world.spec()
    for call in dict.fromkeys((world.names["upload"], world.names["create"])):
        world.emulator.faults.add("forbidden", call, message=message)
        with pytest.raises(CloudtuneError) as refused:
            client.submit(spec)
        seen += told(refused.value, capsys)
        world.heal()
    job = client.submit(spec)
    for call in ("get", "list", "cancel"):
        world.emulator.faults.add("forbidden", world.names[call], message=message, times=99)
    for ask in (job.snapshot, lambda: client.jobs(remote=True), job.cancel):
        try:
            seen += repr(ask())
        except CloudtuneError as error:
            seen += told(error, capsys)
    world.heal()
    world.reach(job.ref, JobState.RUNNING)
    world.reach(job.ref, JobState.FAILED, message=message)
    snapshot = job.snapshot()
    assert snapshot.state is JobState.FAILED
    seen += json.dumps(to_json(snapshot)) + repr(snapshot)
    if client.backend().capabilities.can("verb:events"):
        seen += repr(job.events())
    with pytest.raises(CloudtuneError) as failed:
        job.wait()
    seen += told(failed.value, capsys)
    seen += "".join(str(record.getMessage()) for record in caplog.records if record.name.startswith("cloudtune"))
    assert seen.count(MASK) > 20
    assert hidden_in(seen, world) == []
    stored = {
        str(file): file.read_bytes().decode("latin-1") for file in (tmp_path / "home").rglob("*") if file.is_file()
    }
    assert {file: found for file, text in stored.items() if (found := hidden_in(text, world))} == {}
    assert stored


def test_without_the_boundary_the_secret_is_told(world: Any) -> None:
    """The test above can fail: the SDKs' own exceptions quote the service."""
    backend = world.backend()
    world.emulator.faults.add("forbidden", "*", message=quoted(next(iter(world.secrets))), times=99)
    with pytest.raises(CloudtuneError) as refused:
        list(backend.list())
    assert hidden_in("".join(traceback.format_exception(refused.value)), world)
    with pytest.raises(CloudtuneError) as refused:
        list(guarded(backend).list())
    assert hidden_in("".join(traceback.format_exception(refused.value)), world) == []


def test_the_sdks_debug_logs_hold_no_secret(
    world: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARKED_API_KEY", next(iter(world.secrets)))
    formatter = RedactingFormatter(
        Redactor(environment_secrets({"MARKED_API_KEY": next(iter(world.secrets))})), "%(message)s"
    )
    with caplog.at_level(logging.DEBUG):
        list(guarded(world.backend()).list())
    assert caplog.records
    assert hidden_in("\n".join(map(formatter.format, caplog.records)), world) == []
