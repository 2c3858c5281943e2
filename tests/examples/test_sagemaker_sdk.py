"""SageMaker's own SDK before the emulator, in an environment of its own: it brings 132 distributions.

What works: ModelTrainer with its own drivers and from the hub's documents, create, describe, wait, logs; the same
interpreter holds cloudtune too, whose readings of images, documents and recipes are held against the SDK's. What does
not: several instances before the train engine (the SDK's drivers have one tree's paths in them).
"""

from __future__ import annotations

import os
import subprocess
import venv
from typing import TYPE_CHECKING

import pytest
from tests.contract.sagemaker_world import ServerlessWorld
from tests.examples.conftest import QUICKSTART

from cloudtune.client import Client
from cloudtune.state import JobState
from cloudtune_emulator import Emulator, Settings
from cloudtune_emulator.sagemaker import jobs

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = QUICKSTART.parent / "sagemaker_sdk" / "model_trainer.py"
LLAMA = "meta-textgeneration-llama-3-2-1b-instruct"
IMAGES = """
import os, sys
assert not [name for name in os.environ if name.startswith("AWS")]
from cloudtune.errors import ConfigError
from cloudtune_providers.sagemaker import images
assert images._has_sdk() and "sagemaker.core" not in sys.modules
before = dict(os.environ)
kinds = [(scope, word) for scope in ("training", "inference") for word in ("gpu", "cpu")]
kinds.append(("adapters", "gpu"))
for region in images._ACCOUNTS:
    for scope, word in kinds:
        for kind in ("", "ml.g5.2xlarge", "ml.m5.xlarge"):
            ours = images.image_uri(scope, region, kind, gpu=word == "gpu", setting="image")
            theirs = images._ask_sdk((scope, word), region, kind)
            assert ours == theirs, (region, scope, word, kind, ours, theirs)
print("equal", len(images._ACCOUNTS) * len(kinds))
for region in ("ap-southeast-4", "us-iso-east-1"):
    assert region not in images._ACCOUNTS
    print("asked", images.image_uri("training", region, "ml.g5.2xlarge", gpu=True, setting="image"))
try:
    images.image_uri("training", "moon-1", "", gpu=True, setting="image")
except ConfigError as error:
    print("refused", error)
assert dict(os.environ) == before
"""
DOCUMENTS = """
import boto3
from cloudtune.clock import SystemClock
from cloudtune_providers.aws.clients import Clients
from cloudtune_providers.jumpstart.document import Document
from cloudtune_providers.jumpstart.hub import Hub
from cloudtune_providers.jumpstart.options import PUBLIC_HUB, JumpStartOptions
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.jumpstart import JumpStartConfig
from sagemaker.core.jumpstart.document import get_hub_content_and_document
from sagemaker.train.configs import Compute
from sagemaker.train.defaults import JumpStartTrainDefaults as Theirs
session = Session(boto_session=boto3.Session(), default_bucket="cloudtune-emulated")
hub = Hub(Clients(JumpStartOptions()), PUBLIC_HUB, SystemClock(), 900.0)
compared = 0
for model in hub.models():
    config = JumpStartConfig(model_id=model, accept_eula=True)
    content, parsed = get_hub_content_and_document(jumpstart_config=config, sagemaker_session=session)
    facts = hub.facts(model, None)
    assert (facts["version"], facts["arn"]) == (content.hub_content_version, content.hub_content_arn)
    ours = Document(facts["document"])
    assert ours.trains == bool(parsed.TrainingSupported) and ours.is_gated == bool(parsed.GatedBucket)
    for kind in parsed.SupportedTrainingInstanceTypes or () if ours.trains else ():
        given = dict(jumpstart_config=config, sagemaker_session=session)
        compute = Theirs.get_compute(compute=Compute(instance_type=kind, instance_count=1), **given)
        sent = {k: str(v) for k, v in Theirs.get_hyperparameters(compute=compute, environment={}, **given).items()}
        assert ours.defaults(kind) == sent, (ours.defaults(kind), sent)
        image = Theirs.get_training_image(compute=compute, **given)
        aliases = parsed.TrainingInstanceTypeVariants.Aliases
        assert ours.image(kind) == (aliases[image[1:]] if image.startswith("$") else image)
        assert ours.environment(kind) == Theirs.get_enviornment(compute=compute, **given)
        assert ours["TrainingScriptUri"] == Theirs.get_source_code(**given).source_dir
        (weights,) = Theirs.get_model_artifact_input(compute=compute, environment={}, **given)
        assert ours.weights(kind) == weights.data_source.s3_data_source.s3_uri
        usual = Theirs.get_compute(**given)
        assert ours["DefaultTrainingInstanceType"] == usual.instance_type
        assert ours["TrainingVolumeSize"] == usual.volume_size_in_gb
        compared += 1
    known = ours.hyperparameters("")
    for entry in parsed.Hyperparameters or ():
        if not entry.Name.startswith("sagemaker_"):
            mine = known[entry.Name]
            assert (mine.type, mine.least, mine.most) == (str(entry.Type), entry.Min, entry.Max), (mine, entry)
print("equal", compared)
"""
RECIPES = """
import boto3
from cloudtune_providers.aws.clients import Clients
from cloudtune_providers.aws.options import AwsOptions
from cloudtune_providers.sagemaker.recipes import find_recipe
from cloudtune_providers.sagemaker.storage import Stores
from sagemaker.core.helper.session_helper import Session
from sagemaker.train.common_utils.finetune_utils import _get_recipe_entry_and_override_spec as theirs
session = Session(boto_session=boto3.Session(), default_bucket="cloudtune-emulated")
clients, compared = Clients(AwsOptions()), 0
for model in ("huggingface-reasoning-qwen3-8b", "openai-reasoning-gpt-oss-20b"):
    for technique, peft in (("SFT", "LORA"), ("SFT", None), ("DPO", "LORA"), ("RLVR", "LORA")):
        ours = find_recipe(clients, Stores(clients, None), hub="SageMakerPublicHub", model=model,
                           technique=technique, peft=peft)
        entry, rules = theirs(model, technique, peft or "FULL", session, platform="smtj")
        rules = {name: rule for name, rule in rules.items() if "required" in rule}
        assert (ours["recipe"], ours["parameters"]) == (entry["Name"], rules), (ours, entry, rules)
        compared += 1
print("equal", compared)
"""
CURVES = """
import os, sys
import mlflow
arn, run = sys.stdin.read().split()
mlflow.set_tracking_uri(arn)
client = mlflow.tracking.MlflowClient()
found = client.get_run(run)
print("run", found.info.status, found.info.run_name, sorted(found.data.metrics))
for point in client.get_metric_history(run, "loss"):
    print("point", point.step, point.value)
"""

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter that has the SDK and cloudtune: CLOUDTUNE_SAGEMAKER_SDK names one, else one is made."""
    if given := os.environ.get("CLOUDTUNE_SAGEMAKER_SDK"):
        return given
    folder = tmp_path_factory.mktemp("sdk")
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    wanted = [f"{QUICKSTART.parents[1]}[aws,sagemaker]", "-c", str(QUICKSTART.parents[1] / "constraints.txt")]
    subprocess.run([python, "-m", "pip", "install", "-q", *wanted], check=True)
    return python


def run(python: str, emulator: Emulator, *words: str) -> str:
    known = emulator.settings
    role = f"arn:aws:iam::{known.aws_account}:role/{known.aws_role}"
    foreign = ("AWS", "CLOUDTUNE", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    done = subprocess.run(
        [python, "-W", "ignore", str(SCRIPT), known.aws_bucket, role, *words], env=kept | emulator.environment(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


def test_its_own_program_really_runs(python: str) -> None:
    with Emulator(Settings(engine="train")) as emulator:
        assert run(python, emulator).startswith("Completed s3://cloudtune-emulated/sdk-output/sdk-")


@pytest.mark.parametrize("words", [(), (LLAMA,)])
def test_a_scripted_job_is_waited_for(python: str, words: tuple[str, ...]) -> None:
    with Emulator(scale=20) as emulator:
        assert run(python, emulator, *words).startswith("Completed s3://")
        requested = {seen["call"] for seen in emulator.requests if seen["status"] >= 400}
        assert requested <= {"logs.DescribeLogStreams"}  # there is no log before the first line


def told(python: str, program: str, environment: dict[str, str], given: str = "") -> list[str]:
    """What a program says in the SDK's interpreter, this work tree's packages before all others."""
    root = QUICKSTART.parents[1]
    roots = os.pathsep.join(str(root / name) for name in ("src", "providers", "local_backend"))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS", "CLOUDTUNE", "PYTHON"))}
    done = subprocess.run(
        [python, "-W", "ignore", "-c", program], env=kept | environment | {"PYTHONPATH": roots}, capture_output=True,
        text=True, check=False, input=given,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout.strip().splitlines()


def test_the_table_of_images_is_the_sdks_and_the_rest_is_asked_of_it(python: str) -> None:
    """Without a region in the environment."""
    own = ("equal", "asked", "refused")  # the SDK prints too
    equal, newer, apart, refused = [line for line in told(python, IMAGES, {}) if line.startswith(own)]
    assert equal == "equal 145"
    assert newer.startswith("asked 457447274322.dkr.ecr.ap-southeast-4.amazonaws.com/pytorch-training:2.9.0-gpu-py312")
    assert apart.startswith("asked 886529160074.dkr.ecr.us-iso-east-1.c2s.ic.gov/huggingface-pytorch-training:2.9.0-")
    assert "the SDK has no training image for moon-1" in refused


def test_both_read_the_same_out_of_every_document_of_the_hub(python: str) -> None:
    """What each would send: hyperparameters with their defaults by instance, image, variables, script, weights."""
    with Emulator() as emulator:
        assert told(python, DOCUMENTS, emulator.environment())[-1] == "equal 5"


def test_both_read_the_same_recipes(python: str) -> None:
    with Emulator() as emulator:
        assert told(python, RECIPES, emulator.environment())[-1] == "equal 8"


@pytest.mark.parametrize("kind", ["mlflow-app/app-X", "mlflow-tracking-server/ours"])
def test_mlflows_own_client_reads_the_same_curves(python: str, kind: str, tmp_path: Path) -> None:
    """MLflow with AWS's plugin, which signs as our reader does."""
    arn = f"arn:aws:sagemaker:us-east-1:123456789012:{kind}"
    world = ServerlessWorld(tmp_path, mlflow=arn)
    try:
        client = Client(world.backend(), ledger=f"sqlite:///{tmp_path}/ledger.db", clock=world.clock)
        job = client.submit(world.spec())
        world.reach(job.ref, JobState.SUCCEEDED)
        own = [(one.step, one.values["loss"]) for one in job.metrics() if one.split == "train"]
        there = {"SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT": world.emulator.url}
        environment = world.emulator.environment() | there
        run = jobs.run_id(world.job(job.ref))
        run_line, *points = [
            line for line in told(python, CURVES, environment, f"{arn} {run}") if line[:3] in ("run", "poi")
        ]
        assert run_line.startswith(f"run FINISHED {job.ref.id} ['grad_norm', 'learning_rate', 'loss'")
        assert points == [f"point {step} {value}" for step, value in own]
    finally:
        world.close()
