"""Jobs on instances that leave their model as files: imported into Bedrock from there, fetched, served, removed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.emulated_aws import BUCKET, open_bedrock
from tests.contract.fault_schedules import client_of
from tests.contract.sagemaker_world import SageMakerWorld
from tests.contract.test_bedrock_storms import model_folder

from cloudtune.errors import ArchiveError, BackendError, SpecError
from cloudtune.importing import Importing
from cloudtune.job import Job
from cloudtune.optional import Elsewhere, GenerateOptions, InPlace
from cloudtune.runner import Runner
from cloudtune.state import JobState
from cloudtune_emulator.aws import buckets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Unpacked(SageMakerWorld):
    """What the jobs leave is put there by the tests."""

    def _leave(self, ref: Any, state: JobState) -> None:
        self.emulator.settle()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Unpacked]:
    world = Unpacked(tmp_path, tmp_path / "untrained")
    yield world
    world.close()


def trained(world: Unpacked, folder: Path, adapter: str) -> Job:
    """A job that has left those files."""
    spec = world.spec(adapter=adapter, overrides={"sagemaker": {"unpacked": True}})
    job = client_of(world).submit(spec)
    body = world.job(job.ref)["request"]
    assert body["OutputDataConfig"]["CompressionType"] == "NONE"
    world.reach(job.ref, JobState.SUCCEEDED)
    place = buckets.parse(world.job(job.ref)["artefact"])
    for path in folder.iterdir():
        buckets.put(world.emulator.context, place.under(path.name), path.read_bytes())
    return job


def importing(world: Unpacked) -> Importing:
    backend, clock = open_bedrock(world.emulator.url, str(world.root / "clock"))
    client = client_of(world)
    return Importing(Runner(backend, client.ledger, clock))


def test_whole_weights_are_imported_from_where_the_job_left_them(world: Unpacked) -> None:
    job = trained(world, model_folder(world.root, 1), "full")
    held, model = world.held(), job.model()
    assert str(model.uri) == f"s3://{BUCKET}/cloudtune/jobs/{job.ref.id}/output/model/"
    bring = importing(world)
    found = bring.locate(model)
    assert isinstance(found, InPlace)
    plan = bring.plan(found)
    assert [problem.code for problem in plan.warnings] == ["in_place"]
    ref = bring.submit(plan)
    assert ref.id.startswith("import/")
    assert world.held() == held
    job.delete()
    assert not [key for key, _ in world.held() if job.ref.id in key]


def test_an_adapter_is_fetched_and_merged_here(world: Unpacked, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    base = {"source": "hub", "path": world.spec().model_for("sagemaker"), "revision": None}
    (folder / "adapter_config.json").write_text("{}")
    note = {"base": base, "base_folder": "", "adapter": "lora", "merged": False, "method": "sft"}
    (folder / "tuned.json").write_text(json.dumps(note))
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    job = trained(world, folder, "lora")
    found = importing(world).locate(job.model())
    assert isinstance(found, Elsewhere)
    assert "adapter" in found.reason
    written = job.export(tmp_path / "out")
    assert {path.name for path in written} >= {"adapter_config.json", "adapter_model.safetensors"}


def test_an_endpoint_is_told_of_the_folder(world: Unpacked) -> None:
    job = trained(world, model_folder(world.root, 1), "full")
    body = client_of(world).plan_deploy(job.model()).steps[0].request["body"]
    source = body["PrimaryContainer"]["ModelDataSource"]["S3DataSource"]
    assert source == {"S3Uri": job.model().uri, "S3DataType": "S3Prefix", "CompressionType": "None"}


def test_a_rehearsal_packs_what_it_leaves(world: Unpacked) -> None:
    world.options |= {"compute": "local"}
    with pytest.raises(SpecError, match="local test runs always pack"):
        client_of(world).plan(world.spec(overrides={"sagemaker": {"unpacked": True}}))


def note(world: Unpacked, **changes: Any) -> str:
    """What the trainer writes beside a model of all weights; here it asks for trust, too."""
    base = {"source": "hub", "path": world.spec().model_for("sagemaker"), "revision": None}
    found = {"base": base, "base_folder": "", "adapter": "full", "merged": True, "method": "sft"}
    return json.dumps(found | {"trust_remote_code": True} | changes)


def test_code_in_a_downloaded_model_runs_only_if_a_person_says_so(world: Unpacked, tmp_path: Path) -> None:
    from cloudtune_trainer.tiny import write_tiny_model

    folder, marker = write_tiny_model(tmp_path / "model"), tmp_path / "ran"
    (folder / "planted.py").write_text(
        f"open({str(marker)!r}, 'w').close()\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class C(LlamaConfig):\n    model_type = 'planted'\n"
        "class M(LlamaForCausalLM):\n    config_class = C\n"
    )
    own = {"model_type": "planted", "auto_map": {"AutoConfig": "planted.C", "AutoModelForCausalLM": "planted.M"}}
    (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | own))
    (folder / "tuned.json").write_text(note(world))
    job = trained(world, folder, "full")
    few = GenerateOptions(max_tokens=1)
    with pytest.raises(BackendError, match="code"):
        list(job.generate(["hello"], few))
    assert not marker.exists()
    deployed = client_of(world).plan_deploy(job.model()).steps[0].request["body"]["PrimaryContainer"]
    assert "CLOUDTUNE_TRUST_REMOTE_CODE" not in deployed.get("Environment", {})
    assert len(list(job.generate(["hello"], few, trust_remote_code=True))) == 1
    assert marker.exists()
    plan = client_of(world).plan_deploy(job.model(trust_remote_code=True))
    assert plan.steps[0].request["body"]["PrimaryContainer"]["Environment"]["CLOUDTUNE_TRUST_REMOTE_CODE"] == "1"


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"base": 1}', '{"base": {"source": "x"}}', "[" * 100_000, "different base"]
)
def test_a_changed_note_is_refused(world: Unpacked, tmp_path: Path, text: str) -> None:
    folder = model_folder(world.root, 1)
    if text == "different base":
        text = note(world, base={"source": "folder", "path": str(tmp_path), "revision": None})
    (folder / "tuned.json").write_text(text)
    job = trained(world, folder, "full")
    for use in (lambda: list(job.generate(["hello"])), lambda: job.export(tmp_path / "out")):
        with pytest.raises(ArchiveError, match=r"tuned\.json"):
            use()
    assert not (tmp_path / "out").exists()
