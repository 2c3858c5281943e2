"""Lost, late, doubled and refused requests, in random order: one job, one import, one deployment, nothing left over."""

from __future__ import annotations

import json
import random
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.emulated_aws import BedrockWorld
from tests.contract.fault_schedules import (
    FaultMix,
    HostStorms,
    JobStorms,
    OneWorldStorms,
    blind,
    calm,
    client_of,
    until_it_works,
)

from cloudtune.importing import Importing
from cloudtune.runner import Runner
from cloudtune_providers.aws import parts, s3

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cloudtune.state import Deployment, JobRef

_UPLOADS = ("s3.PutObject", "s3.CreateMultipartUpload", "s3.UploadPart", "s3.CompleteMultipartUpload")
_JOB = (*_UPLOADS, "bedrock.CreateModelCustomizationJob")
_IMPORT = (*_UPLOADS, "bedrock.CreateModelImportJob")
_DEPLOY = ("bedrock.CreateCustomModelDeployment", "bedrock.DeleteCustomModelDeployment")
_THROUGHPUT = ("bedrock.CreateProvisionedModelThroughput", "bedrock.DeleteProvisionedModelThroughput")
FAULT_MIX = FaultMix(
    reads=("bedrock.Get*", "bedrock.List*", "s3.HeadObject", "s3.ListParts", "s3.ListMultipartUploads", "sts.*"),
    conditions=(
        ("list_lag", "bedrock.List*", {"seconds": 25.0}), ("truncated_page", "bedrock.List*", {}),
        ("clock_skew", "bedrock.List*", {"seconds": 4000.0}),
    ),
)  # fmt: skip
inject = FAULT_MIX.inject


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a kilobyte go in several parts."""
    monkeypatch.setattr(s3, "SINGLE_BYTES", 300)
    monkeypatch.setattr(parts, "PART_BYTES", 256)
    for place in ("moto.s3.models", "cloudtune_emulator.aws.multipart_backend"):
        monkeypatch.setattr(f"{place}.S3_UPLOAD_PART_MIN_SIZE", 1)


# -- jobs --------------------------------------------------------------------------------------------------------------


class TestJobs(JobStorms):
    fault_mix = FAULT_MIX
    sends = _JOB
    world = BedrockWorld

    def test_whoever_does_not_look_first_is_saved_by_the_token(self, tmp_path: Path) -> None:
        """The vendor's own word holds too: the same token twice is one job."""
        with closing(self.world(tmp_path)) as world:
            ref = blind(world, "bedrock.CreateModelCustomizationJob")
            assert world.calls("create") == 2
            assert list(world.jobs()) == [ref.id]


# -- deployments -------------------------------------------------------------------------------------------------------


def standing(world: BedrockWorld) -> list[str]:
    store = world.emulator.store
    return [one["name"] for kind in ("custom_deployment", "provisioned") for one in store.all(kind, "bedrock")]


class TestDeployments(HostStorms):
    """On demand, and every third with its own throughput."""

    fault_mix = FAULT_MIX
    world = BedrockWorld

    def sends(self, seed: int) -> tuple[Sequence[str], Sequence[str]]:
        both = _THROUGHPUT if seed % 3 == 2 else _DEPLOY
        return both, both

    def options(self, seed: int) -> dict[str, Any]:
        return {"kind": "provisioned", "agree": True} if seed % 3 == 2 else {}

    def standing(self, world: BedrockWorld) -> list[str]:
        return standing(world)

    def joined(self, before: list[str], made: Deployment) -> list[str]:
        return [*before, made.id.removeprefix("provisioned/")]


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


class TestImports(OneWorldStorms):
    fault_mix = FAULT_MIX
    world = BedrockWorld

    def storm(self, world: BedrockWorld, prepared: None, seed: int) -> None:
        folder = model_folder(world.root, seed)
        injected = self.fault_mix.inject(world, seed, _IMPORT)
        before = imports(world)
        ref = until_it_works(lambda: brought(world, folder))
        calm(world)
        assert imports(world) - before == {ref.id.removeprefix("import/")}, injected
        assert brought(world, folder) == ref


def imports(world: BedrockWorld) -> set[str]:
    return {one["name"] for one in world.emulator.store.all("import", "bedrock")}


def brought(world: BedrockWorld, folder: Path) -> JobRef:
    client = client_of(world)
    importing = Importing(Runner(client.backend("bedrock"), client.ledger, client.clock))
    return importing.submit(importing.plan(folder))
