"""What proxies and captive portals answer instead of a vendor: every call of every back end takes it in its stride.

The request was acted on, and the answer is a page, nothing, half an object, or JSON of another shape, with status 200.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.emulated import AzureWorld, EmulatedWorld
from tests.contract.emulated_aws import BedrockWorld
from tests.contract.emulated_open_weight import OpenWeightWorld
from tests.contract.emulated_sagemaker import JumpStartWorld
from tests.contract.emulated_workspace import WorkspaceWorld
from tests.contract.sagemaker_world import SageMakerWorld, ServerlessWorld

from cloudtune.client import Client
from cloudtune.errors import CloudtuneError, JobNotFound, TransientError, UnsupportedError
from cloudtune.hosting import hosts
from cloudtune.optional import Host, Preflight
from cloudtune.registry import BUILT_IN
from cloudtune.state import JobState
from cloudtune_emulator.faults import UNREADABLE, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

INSTANCE = "arn:aws:sagemaker:us-east-1:123456789012:mlflow-app/app-X"


def _sagemaker(root: Path) -> SageMakerWorld:
    trained = root / "trained"
    for name in ("model/adapter_config.json", "checkpoints/step-1/model.safetensors"):
        (trained / name).parent.mkdir(parents=True, exist_ok=True)
        (trained / name).write_text("{}")
    return SageMakerWorld(root, trained)


WORLDS: dict[str, Callable[[Path], Any]] = {
    "openai": EmulatedWorld,
    "azure_openai": AzureWorld,
    "azure_openai, workspace": WorkspaceWorld,
    "bedrock": BedrockWorld,
    "bedrock, open weight": OpenWeightWorld,
    "sagemaker": _sagemaker,
    "sagemaker, serverless": lambda root: ServerlessWorld(root, mlflow=INSTANCE),
    "jumpstart": JumpStartWorld,
}


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    world = WORLDS[request.param](tmp_path)
    yield world
    world.heal()
    world.close()


@pytest.fixture
def client(world: Any, tmp_path: Path) -> Client:
    return Client(world.backend(), ledger=f"sqlite:///{tmp_path / 'ledger.db'}", clock=world.clock)


def insist(reported: list[CloudtuneError], call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call until there is an answer: somebody who runs the command again."""
    for _ in range(40):
        try:
            found = call(*arguments, **options)
            return list(found) if hasattr(found, "__next__") else found
        except TransientError as error:
            reported.append(error)
    raise AssertionError(f"no end of it: {reported[-1]!r}")


def life(world: Any, client: Client) -> list[CloudtuneError]:
    """Everything that can be done with a job and its model. The errors on the way, all of them passing ones."""
    reported: list[CloudtuneError] = []
    spec = world.spec()
    backend = client.backend()
    if isinstance(backend, Preflight):
        list(backend.preflight(spec))
    job = insist(reported, client.submit, spec)
    world.reach(job.ref, JobState.RUNNING)
    can = backend.capabilities.can
    for verb, call in (
        ("verb:events", job.events),
        ("verb:metrics", job.metrics),
        ("verb:checkpoints", job.checkpoints),
    ):
        if can(verb):
            insist(reported, call)
    insist(reported, client.jobs, remote=True)
    other = insist(reported, client.submit, world.spec(1))
    insist(reported, other.cancel)
    world.reach(job.ref, JobState.SUCCEEDED)
    assert insist(reported, job.snapshot).state is JobState.SUCCEEDED
    for verb, call in (
        ("verb:events", job.events),
        ("verb:metrics", job.metrics),
        ("verb:checkpoints", job.checkpoints),
    ):
        if can(verb):
            insist(reported, call)
    model = insist(reported, job.model)
    if hosts(backend) and can("verb:deploy"):
        with suppress(UnsupportedError):
            deployment = insist(reported, client.deploy, model)
            insist(reported, client.deployments)
            insist(reported, job.generate, ["2 + 3?"])
            insist(reported, client.remove, deployment)
    elif isinstance(backend, Host) and can("verb:generate"):
        insist(reported, job.generate, ["2 + 3?"])
    insist(reported, job.delete if can("verb:delete") else job.clear)
    return reported


def kinds(*quick: str) -> list[Any]:
    """All kinds of answers; those that are not quick only in soak."""
    return [pytest.param(kind, marks=() if kind in quick else pytest.mark.soak) for kind in UNREADABLE]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", kinds("page"))
def test_one_job_though_each_call_is_answered_by_another_once(
    world: Any, client: Client, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: set[str] = set()

    def take(call: str) -> Fault | None:
        if call in met:
            return None
        met.add(call)
        return Fault(kind="unreadable", value=kind)

    monkeypatch.setattr(world.emulator.faults, "take", take)
    response = life(world, client)
    assert len(met) >= 6, met
    assert all(seen["status"] < 500 for seen in world.emulator.requests), "the emulator itself did not fail"
    assert len(world.jobs()) <= 2, "the job and the one that was cancelled"
    assert {error.exit_code for error in response} <= {6}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", kinds("object"))
def test_an_answer_that_is_none_is_told_clearly(world: Any, client: Client, kind: str) -> None:
    spec, backend = world.spec(), client.backend()
    job = client.submit(spec)
    world.reach(job.ref, JobState.SUCCEEDED)
    model = job.model()
    calls: dict[str, Callable[[], Any]] = {
        "submit": lambda: client.submit(world.spec(1)), "snapshot": job.snapshot, "cancel": job.cancel,
        "events": job.events, "metrics": job.metrics, "checkpoints": job.checkpoints, "model": job.model,
        "list": lambda: list(backend.list()), "resolve": lambda: backend.resolve(spec),
        "deploy": lambda: client.deploy(model), "deployments": lambda: client.deployments(backend=backend.name),
        "generate": lambda: list(job.generate(["2 + 3?"])), "delete": job.delete, "clear": job.clear,
    }  # fmt: skip
    world.emulator.faults.add("unreadable", "*", value=kind, times=100_000)
    codes: dict[str, tuple[int, str]] = {}
    for name, call in calls.items():
        try:
            call()
        except (UnsupportedError, JobNotFound):
            continue
        except CloudtuneError as error:
            codes[name] = (error.exit_code, f"{type(error).__name__}: {error}")
    assert [f"{name}: {code}" for name, code in codes.items() if code[0] != 6] == []
    assert codes["snapshot"][1].startswith("InvalidResponse")
    world.heal()
    assert len(world.jobs()) <= 2
    client.submit(world.spec(1))
    assert len(world.jobs()) == 2, "the second was made once, whatever was answered"


def test_every_remote_back_end_is_here() -> None:
    without_http = {"local", "ray", "slurm", "ssh"}  # tests/clusters has the wrong answers of programs
    assert {name.partition(",")[0] for name in WORLDS} == BUILT_IN.keys() - without_http
