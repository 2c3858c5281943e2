"""Lost, late, doubled and refused requests, in random order: one job, one import, one deployment, nothing left over."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.emulated_aws import BedrockWorld
from tests.contract.storms import MOST_TRIES, stubborn

from cloudtune.backend import Absent
from cloudtune.client import Client
from cloudtune.errors import TransientError
from cloudtune.importing import Importing
from cloudtune.state import JobState
from cloudtune_providers.aws import parts, s3

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FEW = range(10)
MANY = range(200)
_FAULTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("lost_reply", {}), ("reset", {}), ("error_after", {"status": 500}), ("server_error", {"status": 503}),
    ("throttle", {"seconds": 3.0}), ("late", {"seconds": 20.0}), ("late", {"requests": 1}), ("late", {"requests": 3}),
    ("twice", {}), ("delay", {"seconds": 0.01}),
)  # fmt: skip
_UPLOADS = ("s3.PutObject", "s3.CreateMultipartUpload", "s3.UploadPart", "s3.CompleteMultipartUpload")
_JOB = (*_UPLOADS, "bedrock.CreateModelCustomizationJob")
_IMPORT = (*_UPLOADS, "bedrock.CreateModelImportJob")
_DEPLOY = ("bedrock.CreateCustomModelDeployment", "bedrock.DeleteCustomModelDeployment")
_THROUGHPUT = ("bedrock.CreateProvisionedModelThroughput", "bedrock.DeleteProvisionedModelThroughput")
_READS = ("bedrock.Get*", "bedrock.List*", "s3.HeadObject", "s3.ListParts", "s3.ListMultipartUploads", "sts.*")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a kilobyte go in several parts."""
    monkeypatch.setattr(s3, "SINGLE_BYTES", 300)
    monkeypatch.setattr(parts, "PART_BYTES", 256)
    for place in ("moto.s3.models", "cloudtune_local.emulator.aws.large"):
        monkeypatch.setattr(f"{place}.S3_UPLOAD_PART_MIN_SIZE", 1)


def brew(world: BedrockWorld, seed: int, sends: tuple[str, ...]) -> list[str]:
    dice = random.Random(seed)
    told = []
    for _ in range(dice.randint(1, 5)):
        kind, details = dice.choice(_FAULTS)
        call = dice.choice(sends * 2 + _READS)
        if call in _READS and kind in ("late", "twice"):
            kind, details = "reset", {}
        world.emulator.faults.add(kind, call, after=dice.randint(0, 1), **details)
        told.append(f"{kind} {call} {details}")
    if dice.random() < 0.4:
        kind, details = dice.choice(
            (("list_lag", {"seconds": 25.0}), ("truncated_page", {}), ("clock_skew", {"seconds": 4000.0}))
        )
        world.emulator.faults.add(kind, "bedrock.List*", **details)
        told.append(f"{kind} {details}")
    return told


def until_it_works(act: Callable[[], Any]) -> Any:
    """As a person would who types the same command again until it works."""
    for _ in range(MOST_TRIES):
        try:
            return act()
        except TransientError:
            continue
    raise AssertionError(f"not done after {MOST_TRIES} tries")


def client_of(world: BedrockWorld) -> Client:
    return Client(world.backend(), ledger=f"sqlite:///{world.root}/ledger.db", clock=world.clock)


# -- jobs --------------------------------------------------------------------------------------------------------------


def job_weather(root: Path, seed: int) -> tuple[int, int, int]:
    """Jobs, files and unfinished multipart uploads in the service's own store, after one submit in that weather."""
    world = BedrockWorld(root)
    try:
        told = brew(world, seed, _JOB)
        ref = stubborn(client_of(world), world.spec())
        world.heal()
        world.emulator.app.land()
        assert list(world.jobs()) == [ref.id], told
        assert client_of(world).submit(world.spec()).ref == ref
        return len(world.jobs()), len(world.uploads()), world.begun()
    finally:
        world.close()


@pytest.mark.parametrize("seed", FEW)
def test_one_submit_makes_one_job_and_one_file(tmp_path: Path, seed: int) -> None:
    assert job_weather(tmp_path, seed)[:2] == (1, 1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_never_two_jobs_in_any_weather(tmp_path: Path) -> None:
    left = []
    for seed in MANY:
        root = tmp_path / str(seed)
        root.mkdir()
        left.append(job_weather(root, seed))
    assert {one[:2] for one in left} == {(1, 1)}
    late = sum(begun for _, _, begun in left)
    print(f"\n{len(left)} storms: one job and one file after each; {late} multipart uploads that landed late are left")


def test_whoever_does_not_look_first_is_saved_by_the_token(tmp_path: Path) -> None:
    """The vendor's own word holds too: the same token twice is one job."""
    world = BedrockWorld(tmp_path)
    try:
        backend = world.backend()
        backend.find = lambda step, intent: Absent()  # type: ignore[method-assign]
        world.emulator.faults.add("lost_reply", "bedrock.CreateModelCustomizationJob")
        ref = stubborn(Client(backend, ledger=f"sqlite:///{tmp_path}/l.db", clock=world.clock), world.spec())
        assert world.calls("create") == 2
        assert list(world.jobs()) == [ref.id]
    finally:
        world.close()


# -- deployments -------------------------------------------------------------------------------------------------------


def tuned(world: BedrockWorld) -> Any:
    job = client_of(world).submit(world.spec())
    world.reach(job.ref, JobState.SUCCEEDED)
    return job.result()


def standing(world: BedrockWorld) -> list[str]:
    store = world.emulator.store
    return [one["name"] for kind in ("custom_deployment", "provisioned") for one in store.all(kind, "bedrock")]


def deploy_weather(world: BedrockWorld, model: Any, seed: int) -> None:
    is_provisioned = seed % 3 == 2
    told = brew(world, seed, _THROUGHPUT if is_provisioned else _DEPLOY)
    options = {"kind": "provisioned", "agree": True} if is_provisioned else {}
    made = until_it_works(lambda: client_of(world).deploy(model, **options))
    world.heal()
    world.emulator.app.land()
    assert standing(world) == [made.id.removeprefix("provisioned/")], told
    brew(world, seed + 1000, _THROUGHPUT if is_provisioned else _DEPLOY)
    until_it_works(lambda: client_of(world).remove(made))
    world.heal()
    world.emulator.app.land()
    assert standing(world) == [], told


def test_one_deployment_and_none_after(tmp_path: Path) -> None:
    world = BedrockWorld(tmp_path)
    try:
        model = tuned(world)
        for seed in FEW:
            deploy_weather(world, model, seed)
    finally:
        world.close()


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_one_deployment_in_any_weather(tmp_path: Path) -> None:
    world = BedrockWorld(tmp_path)
    try:
        model = tuned(world)
        for seed in MANY:
            deploy_weather(world, model, seed)
    finally:
        world.close()


# -- imports -----------------------------------------------------------------------------------------------------------


def model_folder(root: Path, seed: int) -> Path:
    """A model's files, as small as they can be."""
    folder = root / f"model-{seed}"
    folder.mkdir()
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    weights = random.Random(seed).randbytes(800)
    head = json.dumps({"w": {"dtype": "F32", "shape": [200], "data_offsets": [0, 800]}}).encode()
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + weights)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


def import_weather(world: BedrockWorld, seed: int) -> None:
    folder = model_folder(world.root, seed)
    told = brew(world, seed, _IMPORT)

    def bring() -> Any:
        client = client_of(world)
        importing = Importing(client.backend("bedrock"), client.ledger, client.clock)
        return importing.submit(importing.plan(folder))

    before = {one["name"] for one in world.emulator.store.all("import", "bedrock")}
    ref = until_it_works(bring)
    world.heal()
    world.emulator.app.land()
    made = {one["name"] for one in world.emulator.store.all("import", "bedrock")} - before
    assert made == {ref.id.removeprefix("import/")}, told
    assert bring() == ref


def test_one_import(tmp_path: Path) -> None:
    world = BedrockWorld(tmp_path)
    try:
        for seed in FEW:
            import_weather(world, seed)
    finally:
        world.close()


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_one_import_in_any_weather(tmp_path: Path) -> None:
    world = BedrockWorld(tmp_path)
    try:
        for seed in MANY:
            import_weather(world, seed)
    finally:
        world.close()
