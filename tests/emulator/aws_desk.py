"""boto3 as users have it, pointed at an emulator by its environment; answers are held against botocore's shapes."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from typing import TYPE_CHECKING, Any

import boto3
from botocore.client import Config
from botocore.eventstream import EventStream
from tests.emulator.access import aws_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pytest

    from cloudtune_emulator import Emulator

ONCE = Config(retries={"total_max_attempts": 1})
NOVA = "amazon.nova-lite-v1:0:300k"
CITIES = ("oslo", "rome", "lima", "delhi")


def at_home(emulator: Emulator, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a user with only the emulator, and a home in this folder."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "CLOUDTUNE_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    for name, value in emulator.environment().items():
        monkeypatch.setenv(name, value)
    for name in ("HOME", "XDG_CONFIG_HOME", "CLOUDTUNE_HOME"):
        monkeypatch.setenv(name, str(folder / "home"))


@functools.cache
def _session() -> boto3.session.Session:
    """One for all tests: it keeps the service models that it has read."""
    return boto3.session.Session()


def clients(emulator: Emulator) -> Callable[[str], Any]:
    """Makes clients as a program in the emulator's environment would."""
    environment = {name: value for name, value in emulator.environment().items() if name.startswith(("AWS_", "EMUL"))}
    for name in list(os.environ):
        if name.startswith("AWS_"):
            del os.environ[name]
    os.environ.update(environment)
    session = _session()
    made: dict[str, Any] = {}

    def client(service: str) -> Any:
        if service not in made:
            made[service] = session.client(service, config=ONCE, **aws_keys(emulator))
            made[service].meta.events.register("after-call", _validated)
        return made[service]

    return client


@contextlib.contextmanager
def desk(emulator: Emulator) -> Iterator[Callable[[str], Any]]:
    """`clients`, with the process's own environment restored afterwards."""
    before = dict(os.environ)
    try:
        yield clients(emulator)
    finally:
        os.environ.clear()
        os.environ.update(before)
        boto3.DEFAULT_SESSION = None  # its credentials were of that environment


def _validated(http_response: Any, parsed: dict[str, Any], model: Any, **_: Any) -> None:
    """Fails where an answer lacks what its shape requires, or holds a word that the shape does not know."""
    if http_response.status_code >= 300 or model.output_shape is None:
        return
    faults = list(faults_of(model.output_shape, parsed, model.name))
    shape = model.output_shape
    if http_response.headers.get("Content-Type", "").startswith("application/json") and not shape.serialization.get(
        "payload"
    ):
        sent = json.loads(http_response.content or b"{}")
        unknown = sorted(set(sent) - set(shape.members))
        faults += [f"{model.name} sent what the shape does not have: {name}" for name in unknown]
    assert not faults, faults


def faults_of(shape: Any, value: Any, where: str) -> Iterator[str]:
    """What is wrong with a parsed answer."""
    if isinstance(value, EventStream) or hasattr(value, "read"):
        return
    if shape.type_name == "structure":
        for name in shape.required_members:
            if name not in value:
                yield f"{where}.{name} is missing"
        for name, item in value.items():
            if name in shape.members and item is not None:
                yield from faults_of(shape.members[name], item, f"{where}.{name}")
    elif shape.type_name == "list":
        for index, item in enumerate(value):
            yield from faults_of(shape.member, item, f"{where}[{index}]")
    elif shape.type_name == "string":
        import re

        if shape.enum and value not in shape.enum:
            yield f"{where} is {value!r}"
        pattern = shape.metadata.get("pattern")
        if pattern and not re.fullmatch(pattern, value):
            yield f"{where} is {value!r}, which does not fit {pattern}"


def converse_rows(count: int = 12) -> bytes:
    """Rows whose answers identify their question."""
    return b"".join(
        json.dumps(
            {"schemaVersion": "bedrock-conversation-2024",
             "messages": [{"role": "user", "content": [{"text": f"question {n}"}]},
                          {"role": "assistant", "content": [{"text": f"answer {n}"}]}]}
        ).encode() + b"\n"
        for n in range(count)
    )  # fmt: skip


def asked(**changes: Any) -> dict[str, Any]:
    """A request that is good, with changes; None leaves a field out."""
    bucket = os.environ["EMULATED_BUCKET"]
    request: dict[str, Any] = {
        "jobName": "first-job", "customModelName": "first-model", "roleArn": os.environ["EMULATED_ROLE"],
        "baseModelIdentifier": NOVA, "trainingDataConfig": {"s3Uri": f"s3://{bucket}/rows.jsonl"},
        "outputDataConfig": {"s3Uri": f"s3://{bucket}/out/"}, "hyperParameters": {"epochCount": "2"},
    }  # fmt: skip
    return {name: value for name, value in (request | changes).items() if value is not None}
