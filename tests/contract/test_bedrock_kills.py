"""A run that is killed while it uploads a large model: the next one sends what is missing, and leaves nothing over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.emulated_aws import BUCKET, BedrockWorld

from cloudtune.client import Client
from cloudtune.importing import Importing
from cloudtune.runner import Runner
from cloudtune_providers.aws import parts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE_S = 60.0
_CHILD = """
import sys
from pathlib import Path
from tests.contract.emulated_aws import open_bedrock
from cloudtune.client import Client
from cloudtune.importing import Importing
from cloudtune.runner import Runner
url, clock, ledger, folder = sys.argv[1:]
backend, hands = open_bedrock(url, clock)
client = Client(backend, ledger=ledger, clock=hands)
importing = Importing(Runner(backend, client.ledger, client.clock))
print(importing.submit(importing.plan(Path(folder))))
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[BedrockWorld]:
    world = BedrockWorld(tmp_path)
    yield world
    world.close()


def large_model(root: Path, size: int) -> Path:
    """A model whose weights have that many bytes."""
    folder = root / "large"
    folder.mkdir()
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    head = json.dumps({"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for number in range(0, size, 1 << 20):
            block = number.to_bytes(8, "little") * (1 << 17)
            file.write(block[: min(1 << 20, size - number)])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    return folder


def arrived(world: BedrockWorld) -> set[int]:
    """Parts that the service holds of the one upload that was begun."""
    bucket = world.emulator.context.aws.backend("s3").get_bucket(BUCKET)
    held = list(bucket.multiparts.values())
    return set(held[0].parts) if held else set()


def sending(backend: Any) -> list[int]:
    """Part numbers that this back end sends from now on. (What a killed process sent may still be on its way.)"""
    numbers: list[int] = []
    events = backend._clients.client("s3").meta.events
    events.register("provide-client-params.s3.UploadPart", lambda params, **_: numbers.append(params["PartNumber"]))
    return numbers


def killed(world: BedrockWorld, folder: Path, after: int) -> None:
    """Submit in another process, and kill that once so many parts have arrived."""
    where = [world.emulator.url, str(world.root / "clock"), f"sqlite:///{world.root}/ledger.db", str(folder)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    child = subprocess.Popen([sys.executable, "-c", _CHILD, *where], env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE_S
    try:
        while len(arrived(world)) < after:
            assert child.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


def check(world: BedrockWorld, size: int, *kills: int) -> None:
    folder = large_model(world.root, size)
    count = len(parts.cut((folder / "model.safetensors").stat().st_size))
    for after in kills:
        killed(world, folder, after)
    held = arrived(world)
    assert kills[-1] <= len(held) <= count
    client = Client(world.backend(), ledger=f"sqlite:///{world.root}/ledger.db", clock=world.clock)
    backend = client.backend("bedrock")
    importing = Importing(Runner(backend, client.ledger, client.clock))
    later = sending(backend)
    plan = importing.plan(folder)
    ref = importing.submit(plan)
    assert not held & set(later), "a part that had arrived was sent again"
    assert len(later) <= count - len(held)
    assert world.begun() == 0
    stored = {key.rpartition("/")[2]: sha for key, sha in world.held()}
    wanted: dict[str, Any] = {
        step.request["key"].rpartition("/")[2]: step.request["sha256"] for step in plan.steps[:-1]
    }
    assert stored == wanted
    assert [one["name"] for one in world.emulator.store.all("import", "bedrock")] == [ref.id.removeprefix("import/")]


def test_a_killed_upload_goes_on_where_it_stopped(world: BedrockWorld) -> None:
    check(world, 40 << 20, 2)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_gigabyte_killed_again_and_again(world: BedrockWorld) -> None:
    check(world, 1 << 30, 10, 40, 90)
