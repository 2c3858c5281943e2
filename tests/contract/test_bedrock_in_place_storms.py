"""Imports and registrations of what lies in AWS, in any weather and after any death: one of each, and nothing twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.emulated_aws import BUCKET, REGION, BedrockWorld, connected
from tests.contract.fault_schedules import MANY, calm, client_of, until_it_works
from tests.contract.sagemaker_world import open_sagemaker
from tests.contract.service_models import SHARE_SERVICE_MODELS
from tests.contract.test_bedrock_storms import FAULT_MIX, model_folder

from cloudtune.backend import Absent
from cloudtune.client import Client
from cloudtune.importing import Importing
from cloudtune.job import Job
from cloudtune.optional import InPlace
from cloudtune.runner import Runner
from cloudtune.spec import JobSpec
from cloudtune.state import JobRef, JobState
from cloudtune.testing.fork_server import ForkServer, Order, Outcome, shared_fork_server
from cloudtune_emulator.job_timeline import Script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FEW = range(4)
_SENDS = {"register": ("bedrock.CreateCustomModel",), "import": ("bedrock.CreateModelImportJob",)}
_KINDS = {"register": "custom_model", "import": "import"}
_WRITES = ("begin", "claim {}", "sending {}", "done {}")


class Stage:
    """A package of Nova's and a prefix of open weights in the account."""

    def __init__(self, root: Path) -> None:
        self.world = BedrockWorld(root)
        self.world.emulator.script = Script(running_s=1000.0)
        hands = str(root / "clock")
        backend, _ = open_sagemaker(self.world.emulator.url, hands, str(root / "home"), compute="serverless")
        client = Client(backend, ledger=f"sqlite:///{root}/ledger.db", clock=self.world.clock)
        rows = self.world.rows("rows", [{"prompt": f"{n}?", "completion": f"{n}"} for n in range(12)])
        nova = {"name": "small", "model": "nova-textgeneration-lite-v2", "adapter": "lora", "data": {"train": rows}}
        job = client.submit(JobSpec.model_validate(nova))
        self.world.clock.sleep(1_000_000.0)
        s3 = connected(self.world.emulator.url, REGION).client("s3")
        for path in model_folder(root, 1).iterdir():
            s3.put_object(Bucket=BUCKET, Key=f"weights/{path.name}", Body=path.read_bytes())
        self.source = {"register": str(job.model().raw["package"]), "import": f"s3://{BUCKET}/weights/"}

    def bring(self, what: str, name: str) -> JobRef:
        client = client_of(self.world)
        importing = Importing(Runner(client.backend("bedrock"), client.ledger, client.clock))
        return importing.submit(importing.plan(self.source[what], name=name))

    def made(self, what: str, name: str) -> list[str]:
        """Of that name, in the service's own store."""
        held = self.world.emulator.store.all(_KINDS[what], "bedrock")
        return [one["name"] for one in held if one["name"].startswith(f"{name}-")]

    def fault_mix(self, what: str, seed: int) -> None:
        """One command, typed again until it works, while requests are lost, late, doubled and refused."""
        name, held = f"{what}-{seed}", self.world.held()
        injected = FAULT_MIX.inject(self.world, seed, _SENDS[what])
        ref = until_it_works(lambda: self.bring(what, name))
        calm(self.world)
        assert self.made(what, name) == [ref.id.rpartition("/")[2]], injected
        assert self.bring(what, name) == ref
        assert self.world.held() == held, "something was uploaded"

    def storm_of_removal(self, seed: int) -> None:
        """Taken down while requests are lost: gone, and the same command registers it anew."""
        name = f"gone-{seed}"
        ref = self.bring("register", name)
        self.world.clock.sleep(1_000_000.0)
        injected = FAULT_MIX.inject(self.world, seed, ("bedrock.DeleteCustomModel",))
        until_it_works(Job(client_of(self.world), ref).delete)
        calm(self.world)
        assert self.made("register", name) == [], injected
        assert self.bring("register", name) != ref
        assert len(self.made("register", name)) == 1


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.world.close()


@pytest.mark.parametrize("what", ["register", "import"])
def test_one_of_each_in_changing_weather(stage: Stage, what: str) -> None:
    for seed in FEW:
        stage.fault_mix(what, seed)


def test_gone_once_it_is_removed(stage: Stage) -> None:
    for seed in FEW[:2]:
        stage.storm_of_removal(seed)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("what", ["register", "import"])
def test_one_of_each_in_any_weather(stage: Stage, what: str) -> None:
    for seed in MANY:
        stage.fault_mix(what, seed)
    print(f"\n{len(MANY)} storms over {what}: one after each, and nothing uploaded")


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_gone_in_any_weather(stage: Stage) -> None:
    for seed in MANY:
        stage.storm_of_removal(seed)


def test_whoever_does_not_look_first_is_saved_by_the_token(stage: Stage) -> None:
    """The same token twice is one model, though the first answer was lost."""
    backend: Any = stage.world.backend()
    backend.find = lambda step, intent: Absent()
    stage.world.emulator.faults.add("lost_reply", "bedrock.CreateCustomModel")
    client = Client(backend, ledger=f"sqlite:///{stage.world.root}/ledger.db", clock=stage.world.clock)
    importing = Importing(Runner(backend, client.ledger, client.clock))
    found = importing.locate(stage.source["register"])
    assert isinstance(found, InPlace)
    ref = importing.submit(importing.plan(found, name="blind"))
    assert stage.made("register", "blind") == [ref.id.rpartition("/")[2]]
    sent = [seen for seen in stage.world.emulator.requests if seen["call"] == "bedrock.CreateCustomModel"]
    assert len(sent) == 2


@pytest.fixture
def fork_server() -> ForkServer:
    return shared_fork_server((SHARE_SERVICE_MODELS,))


def test_killed_around_the_send_while_its_reply_is_lost(stage: Stage, fork_server: ForkServer) -> None:
    """The points at which somebody may have made the model, and nobody has been told of it."""
    trace = run(stage, fork_server, "register", "whole").trace
    points = ["ledger after sending register", "step after register", "ledger before done register"]
    for point in points:
        assert killed(stage, fork_server, "register", "lost_reply", 1 + trace.index(point)) == point


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("wrong", ["nothing", "lost_reply"])
@pytest.mark.parametrize("what", ["register", "import"])
def test_killed_at_every_failpoint(stage: Stage, fork_server: ForkServer, what: str, wrong: str) -> None:
    """Before and after every ledger write and the send."""
    whole = run(stage, fork_server, what, "whole")
    tried = {killed(stage, fork_server, what, wrong, number) for number in range(1, 1 + len(whole.trace))}
    assert tried == set(whole.trace)
    expected = {f"ledger {when} {write.format(what)}" for when in ("before", "after") for write in _WRITES}
    assert expected | {f"step before {what}", f"step after {what}"} <= tried


def killed(stage: Stage, fork_server: ForkServer, what: str, wrong: str, number: int) -> str:
    """The failpoint at which a process died; another one went on, and follows the one thing that was made."""
    world, name = stage.world, f"{wrong.replace('_', '-')}-{number}"
    if wrong != "nothing":
        world.emulator.faults.add(wrong, _SENDS[what][0])
    first = run(stage, fork_server, what, name, kill_at=number)
    assert first.killed
    assert len(stage.made(what, name)) <= 1
    second = run(stage, fork_server, what, name)
    world.heal()
    assert second.error is None, second.error
    ref = JobRef.parse(second.result)
    assert stage.made(what, name) == [ref.id.rpartition("/")[2]]
    assert Job(client_of(world), ref).state is JobState.RUNNING
    return first.trace[-1]


def run(stage: Stage, fork_server: ForkServer, what: str, name: str, **more: Any) -> Outcome:
    """The command in a process of its own."""
    ledger = f"sqlite:///{stage.world.root}/ledger.db"
    given = {"recipe": stage.world.recipe(), "ledger": ledger, "ref": stage.source[what], "options": {"name": name}}
    return fork_server.run(Order(do="import", **given, **more))
