"""The command line on models that lie in AWS: handed to Bedrock by their address, asked there, and removed."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING

import boto3
import pytest
from tests.contract.test_bedrock_storms import model_folder
from tests.emulator.aws_desk import CITIES, at_home
from tests.emulator.test_bedrock_commands import LEARNING, Desk

from cloudtune_emulator import Emulator, Settings
from cloudtune_emulator.job_timeline import Script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def at(emulator: Emulator, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk whose sagemaker back end trains serverless."""
    at_home(emulator, folder, monkeypatch)
    monkeypatch.setenv("CLOUDTUNE_BACKENDS__SAGEMAKER__COMPUTE", "serverless")
    monkeypatch.chdir(folder)
    return Desk(folder, emulator)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    with Emulator(Settings(deploying_s=0.0), scale=1000) as emulator:
        emulator.script = Script(running_s=100.0)
        yield at(emulator, tmp_path, monkeypatch)


def put(desk: Desk, folder: Path, below: str) -> str:
    bucket = desk.emulator.settings.aws_bucket
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        boto3.client("s3").upload_file(str(path), bucket, f"{below}{path.name}")
    return f"s3://{bucket}/{below}"


def of_nova(address: str) -> str:
    """The ARN of a package with those weights, said to be of Nova: nobody has Nova's own here."""
    source = {"S3Uri": address, "S3DataType": "S3Prefix", "CompressionType": "None"}
    base = {"HubContentName": "nova-textgeneration-lite-v2", "HubContentVersion": "1.0.0"}
    container = {"ModelDataSource": {"S3DataSource": source}, "Image": "an/image:1", "BaseModel": base}
    response = boto3.client("sagemaker").create_model_package(
        ModelPackageName="as-nova", InferenceSpecification={"Containers": [container]}
    )
    return str(response["ModelPackageArn"])


def puts(emulator: Emulator) -> int:
    return sum(seen["call"] in ("s3.PutObject", "s3.CreateMultipartUpload") for seen in emulator.requests)


def test_what_a_sagemaker_job_made_of_nova_is_registered(desk: Desk) -> None:
    (desk.folder / "nova.yaml").write_text(
        "name: mine\nmodel: nova-textgeneration-lite-v2\ndata: {train: rows.jsonl}\nadapter: lora\n"
    )
    job = desk.run("run", "nova.yaml", "--backend", "sagemaker", "--yes").stdout.split()[0]
    before = puts(desk.emulator)
    reported = desk.run("import", job, "--to", "bedrock", code=7).stderr
    assert "register arn:aws:sagemaker:us-east-1:123456789012:model-package/" in reported
    assert "CreateCustomModel references SageMaker's model of amazon.nova-2-lite-v1:0" in reported
    assert desk.emulator.store.all("custom_model", "bedrock") == []
    made = desk.run("import", job, "--to", "bedrock", "--yes")
    ref = made.stdout.split()[0]
    assert ":registration/mine-" in ref
    assert f"cloudtune deploy {ref}" in made.stderr
    assert desk.run("import", job, "--to", "bedrock", "--yes").stdout.split()[0] == ref
    assert puts(desk.emulator) == before
    assert not list((desk.folder / "home").rglob("exports/*"))
    name = desk.run("deploy", ref, "--yes").stdout.strip()
    assert desk.run("generate", ref, "hello").stdout.strip()
    assert [one["id"] for one in desk.json("deployments", "--backend", "bedrock")["deployments"]] == [name]
    assert "cloudtune undeploy" in desk.run("delete", ref, "--yes", code=1).stderr
    desk.run("undeploy", name, "--backend", "bedrock", "--yes")
    desk.run("delete", ref, "--yes")
    assert desk.emulator.store.all("custom_model", "bedrock") == []
    assert desk.json("show", job)["state"] == "succeeded"


def test_addresses_are_imported_or_told_why_not(desk: Desk) -> None:
    address = put(desk, model_folder(desk.folder, 1), "brought/weights/")
    before = puts(desk.emulator)
    reported = desk.run("import", address, "--to", "bedrock", "--name", "brought", code=7).stderr
    assert "CreateModelImportJob references the 4 files in place: nothing is downloaded or uploaded" in reported
    ref = desk.run("import", address, "--to", "bedrock", "--name", "brought", "--yes").stdout.split()[0]
    assert ":import/brought-" in ref
    assert puts(desk.emulator) == before
    wrong = desk.run("import", f"{address}model.tar.gz", "--to", "bedrock", "--yes", code=2).stderr
    assert "is an archive" in wrong
    assert "unpack it" in wrong
    assert (
        "cannot import from this address"
        in desk.run("import", "https://a.com/x", "--to", "bedrock", "--yes", code=2).stderr
    )


def test_a_jobs_archive_is_brought_here_and_the_plan_says_why(desk: Desk) -> None:
    """JumpStart packs what it made: that is fetched, unpacked and uploaded, as ever."""
    (desk.folder / "jump.yaml").write_text(
        "name: packed\nmodel: meta-textgeneration-llama-3-2-1b-instruct\ndata: {train: rows.jsonl}\n"
        "overrides: {jumpstart: {accept_eula: true, hyperparameters: {merge_weights: 'True'}}}\n"
    )
    job = desk.run("run", "jump.yaml", "--backend", "jumpstart", "--yes").stdout.split()[0]
    name, packed = job.rpartition(":")[2], io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:  # a scripted job has no weights of its own
        archive.add(model_folder(desk.folder, 1), arcname=".")
    bucket = desk.emulator.context.aws.backend("s3").get_bucket(desk.emulator.settings.aws_bucket)
    (key,) = [key for key in bucket.keys if key.endswith(f"{name}/output/model.tar.gz")]
    boto3.client("s3").put_object(Bucket=desk.emulator.settings.aws_bucket, Key=key, Body=packed.getvalue())
    brought = desk.run("import", job, "--to", "bedrock", "--yes")
    assert f"the weights are exported and uploaded: s3://{bucket.name}/{key} is an archive" in brought.stderr
    assert "upload model.safetensors" in brought.stderr
    assert ":import/packed-" in brought.stdout


@pytest.mark.timeout(400)
def test_what_was_learnt_answers_from_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained, merged, left in S3: imported by its address and registered by its package, it says the same words."""
    with Emulator(Settings(engine="train", deploying_s=0.0)) as emulator:
        desk = at(emulator, tmp_path, monkeypatch)
        (tmp_path / "tiny.json").write_text(json.dumps({"model": {"hidden_size": 64, "intermediate_size": 128}}))
        rows = [{"prompt": f"Code of {city}?", "completion": f"Code {city[:2].upper()}."} for city in CITIES]
        (tmp_path / "codes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 10))
        (tmp_path / "local.yaml").write_text(LEARNING)
        local = desk.run("run", "local.yaml", "--backend", "local", "--yes").stdout.split()[0]
        desk.run("export", local, str(tmp_path / "merged"), "--merged")
        address = put(desk, tmp_path / "merged", "weights/")
        before = puts(emulator)
        imported = desk.run("import", address, "--to", "bedrock", "--yes").stdout.split()[0]
        registered = desk.run("import", of_nova(address), "--to", "bedrock", "--yes").stdout.split()[0]
        assert puts(emulator) == before
        desk.run("deploy", registered, "--yes")
        requested = [f"Code of {city}?" for city in CITIES[:2]]
        said = [[desk.run("generate", job, prompt).stdout.strip() for prompt in requested]
                for job in (local, imported, registered)]  # fmt: skip
        assert said[0] == said[1] == said[2]
        assert all(text.startswith("Code ") for text in said[0]), "it has learnt nothing that could be compared"


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_what_an_instance_has_learnt_is_imported_from_where_it_left_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped trainer runs as SageMaker's job and leaves whole weights unpacked; Bedrock answers from them."""
    with Emulator(Settings(engine="train", deploying_s=0.0)) as emulator:
        desk = at(emulator, tmp_path, monkeypatch)
        monkeypatch.setenv("CLOUDTUNE_BACKENDS__SAGEMAKER__COMPUTE", "instances")
        (tmp_path / "tiny.json").write_text(json.dumps({"model": {"hidden_size": 64, "intermediate_size": 128}}))
        rows = [{"prompt": f"Code of {city}?", "completion": f"Code {city[:2].upper()}."} for city in CITIES]
        (tmp_path / "codes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 20))
        full = LEARNING.replace("{type: lora, rank: 8, targets: all-linear}", "full").replace("1.0e-2", "2.0e-3")
        full = full.replace("epochs: 4", "epochs: 12")
        (tmp_path / "whole.yaml").write_text(f"{full}overrides: {{sagemaker: {{unpacked: true}}}}\n")
        job = desk.run("run", "whole.yaml", "--backend", "sagemaker", "--yes").stdout.split()[0]
        before = puts(emulator)
        brought = desk.run("import", job, "--to", "bedrock", "--yes")
        assert "nothing is downloaded or uploaded" in brought.stderr
        assert puts(emulator) == before
        requested = [f"Code of {city}?" for city in CITIES[:2]]
        said = [[desk.run("generate", one, prompt).stdout.strip() for prompt in requested]
                for one in (job, brought.stdout.split()[0])]  # fmt: skip
        assert said[0] == said[1] == [f"Code {city[:2].upper()}." for city in CITIES[:2]]
