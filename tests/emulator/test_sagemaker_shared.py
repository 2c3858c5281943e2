"""Before the train engine: adapters that share a base model, each answering for itself; answers that come in pieces."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from cloudtune import Client, GenerateOptions
from cloudtune.errors import Conflict, InvalidRequest, Unavailable, UnsupportedError
from cloudtune.registry import open_backend
from cloudtune.state import TunedModel
from cloudtune_emulator import Emulator, Settings
from cloudtune_trainer.generate import Model
from cloudtune_trainer.tiny import write_tiny_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ASKED = GenerateOptions(max_tokens=24)
PROMPT = "Where do the rivers meet?"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base model, and folders of two adapters of it, as the trainer leaves them; each speaks in its own way."""
    root = tmp_path_factory.mktemp("shelf")
    write_tiny_model(root / "base")
    for number, name in enumerate(("one", "two")):
        torch.manual_seed(number)
        network = AutoModelForCausalLM.from_pretrained(root / "base")
        config = LoraConfig(r=8, target_modules=["q_proj", "v_proj", "o_proj"], init_lora_weights=False, lora_alpha=64)
        get_peft_model(network, config).save_pretrained(root / name)
        AutoTokenizer.from_pretrained(root / "base").save_pretrained(root / name)
        note = {"base": {"source": "folder", "path": str(root / "base"), "revision": None}, "adapter": "lora",
                "base_folder": str(root / "base"), "merged": False, "method": "sft", "version": 1}  # fmt: skip
        (root / name / "tuned.json").write_text(json.dumps(note))
    return root


@pytest.fixture(scope="module")
def emulator(shelf: Path) -> Iterator[Emulator]:
    with Emulator(Settings(engine="train", deploying_s=0.0)) as emulator, pytest.MonkeyPatch.context() as patch:
        for name, value in emulator.environment().items():
            patch.setenv(name, value)
        s3, bucket = boto3.client("s3"), emulator.settings.aws_bucket
        for path in sorted((shelf / "base").iterdir()):
            s3.put_object(Bucket=bucket, Key=f"models/tiny/{path.name}", Body=path.read_bytes())
        for name in ("one", "two"):
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w:gz") as archive:
                archive.add(shelf / name, arcname=".")
            s3.put_object(Bucket=bucket, Key=f"jobs/{name}/model.tar.gz", Body=packed.getvalue())
        yield emulator


@pytest.fixture
def client(emulator: Emulator, tmp_path: Path) -> Client:
    known = emulator.settings
    role = f"arn:aws:iam::{known.aws_account}:role/{known.aws_role}"
    given = {"bucket": known.aws_bucket, "role_arn": role, "root": str(tmp_path / "here")}
    return Client(open_backend("sagemaker", given), ledger=f"sqlite:///{tmp_path}/ledger.db")


def model(client: Client, emulator: Emulator, name: str, **changed: Any) -> TunedModel:
    bucket = f"s3://{emulator.settings.aws_bucket}"
    given = {"uri": f"{bucket}/jobs/{name}/model.tar.gz", "adapter": "lora", "base": "the/tiny",
             "raw": {"base": {"s3": f"{bucket}/models/tiny/", "below": ""}}}  # fmt: skip
    scope = client.backend()._clients.scope()  # type: ignore[attr-defined]
    return TunedModel(id=name, backend="sagemaker", scope=scope, **given | changed)


def said(client: Client, model: TunedModel, **more: Any) -> str:
    options = GenerateOptions(max_tokens=24, **more)
    *pieces, whole = client.backend().generate(model, [PROMPT], options)  # type: ignore[attr-defined]
    assert whole.text == "".join(piece.text for piece in pieces) or not pieces
    assert len(pieces) > 3 or not options.stream
    return str(whole.text)


def alone(shelf: Path, name: str, *, base: bool = False) -> str:
    """What the model says that is loaded by itself."""
    return next(Model.open(shelf / name, base=base).generate([PROMPT], max_tokens=24)).text


def test_adapters_share_a_base_and_answer_each_for_itself(client: Client, emulator: Emulator, shelf: Path) -> None:
    one, two = model(client, emulator, "one"), model(client, emulator, "two")
    plan = client.plan_deploy(one, onto="shared", name="first")
    container = plan.steps[0].request["body"]["PrimaryContainer"]
    assert "djl-inference" in container["Image"]
    reported = next(one for one in plan.settings if one.field == "image")
    assert (reported.value, "AWS's LMI" in reported.source) == (container["Image"], True)
    assert container["Environment"]["OPTION_ENABLE_LORA"] == "true"
    first = client.deploy(plan)
    second = client.deploy(two, onto="shared", name="second")
    standing = {one.id: one for one in client.deployments()}
    assert {name: one.model for name, one in standing.items()} == {
        "shared": "the/tiny", "first": "one", "second": "two",
    }  # fmt: skip
    assert (first.hourly_cost_usd, standing["shared"].hourly_cost_usd) == (0.0, 1.4084)
    assert emulator.store.count("sm_endpoint") == 1

    texts = {name: alone(shelf, name) for name in ("one", "two")} | {"base": alone(shelf, "one", base=True)}
    assert len(set(texts.values())) == 3, "the control: they can be told apart"
    for _ in range(2):  # back and forth
        assert said(client, one) == texts["one"]
        assert said(client, two, stream=True) == texts["two"]
        assert said(client, two, base=True) == texts["base"]

    with pytest.raises(InvalidRequest, match=r"first, second are on shared"):
        client.remove(standing["shared"])
    client.remove(first)
    assert said(client, two) == texts["two"]
    with pytest.raises(InvalidRequest, match="no active endpoint"):
        said(client, model(client, emulator, "one", needs_deploy=True))
    client.remove(second)
    client.remove(standing["shared"])
    assert client.deployments() == []
    kinds = ("sm_model", "sm_config", "sm_endpoint", "sm_component")
    left = [one for kind in kinds for one in emulator.store.all(kind) if one.get("deleting") is None]
    assert left == []


def test_another_base_is_a_conflict_and_what_is_no_adapter_is_refused(client: Client, emulator: Emulator) -> None:
    client.deploy(model(client, emulator, "one"), onto="taken")
    bucket = f"s3://{emulator.settings.aws_bucket}"
    other = model(client, emulator, "two", raw={"base": {"s3": f"{bucket}/models/other/", "below": ""}})
    with pytest.raises(Conflict, match="cloudtune did not create it for this model"):
        client.plan_deploy(other, onto="taken")
        client.deploy(other, onto="taken")
    refused = {"full": "only LoRA adapters", "uri": "not an archive in S3", "base": "neither in an S3 folder"}
    wrong = (("full", {"adapter": "full"}), ("uri", {"uri": f"{bucket}/folder/"}), ("base", {"raw": {}, "base": "b"}))
    for case, changed in wrong:
        with pytest.raises(UnsupportedError, match=refused[case]):
            client.plan_deploy(model(client, emulator, "two", **changed), onto="taken")
    with pytest.raises(UnsupportedError, match="has no GPU"):
        client.plan_deploy(model(client, emulator, "two"), onto="taken", instance_type="ml.m5.xlarge")
    for one in sorted(client.deployments(), key=lambda one: one.id == "taken"):
        client.remove(one)


def test_a_model_of_its_own_endpoint_answers_in_pieces(client: Client, emulator: Emulator, shelf: Path) -> None:
    """The archive's own server, with the base model that is mounted beside it."""
    two = model(client, emulator, "two")
    deployment = client.deploy(two)
    assert said(client, two, stream=True) == alone(shelf, "two") == said(client, two)
    assert said(client, two, base=True, stream=True) == alone(shelf, "two", base=True)
    drawn = {"temperature": 0.8, "top_p": 0.9, "seed": 11}
    assert said(client, two, stream=True, **drawn) == said(client, two, **drawn)
    client.remove(deployment)


def test_a_stream_that_breaks_off_is_told(client: Client, emulator: Emulator) -> None:
    """What was heard until then has been told in pieces; there is no whole answer."""
    one = model(client, emulator, "one")
    client.deploy(one, onto="shared-again")
    emulator.faults.add("cut_answer", "sagemaker.InvokeEndpointWithResponseStream", requests=3)
    heard = []
    with pytest.raises(Unavailable, match="interrupted"):
        for piece in client.backend().generate(one, [PROMPT], GenerateOptions(max_tokens=24, stream=True)):  # type: ignore[attr-defined]
            assert piece.partial
            heard.append(piece.text)
    assert 1 < len(heard) <= 3, "some events held the first half of a character"
    assert said(client, one, stream=True).startswith("".join(heard))
    for deployment in sorted(client.deployments(), key=lambda one: one.id == "shared-again"):
        client.remove(deployment)
