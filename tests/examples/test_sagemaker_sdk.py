"""SageMaker's own SDK before the emulator, in an environment of its own: it brings 132 distributions.

What works: ModelTrainer with its own drivers and from the hub's documents, create, describe, wait, logs. What does not:
several instances before the train engine (the SDK's drivers have one tree's paths in them).
"""

from __future__ import annotations

import json
import os
import subprocess
import venv

import pytest
from tests.examples.conftest import QUICKSTART

from cloudtune_local.emulator import Emulator, Settings
from cloudtune_local.emulator.sagemaker import documents

SCRIPT = QUICKSTART.parent / "sagemaker_sdk" / "model_trainer.py"
LLAMA = "meta-textgeneration-llama-3-2-1b-instruct"
PARSE = """
import json, sys
from sagemaker.core.jumpstart.models import HubContentDocument
for name, document in json.load(sys.stdin).items():
    print(name, HubContentDocument(**document).TrainingSupported)
"""

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter that has the SDK: CLOUDTUNE_SAGEMAKER_SDK names one, else one is made."""
    if given := os.environ.get("CLOUDTUNE_SAGEMAKER_SDK"):
        return given
    folder = tmp_path_factory.mktemp("sdk")
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", "sagemaker>=3,<4"], check=True)
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
        asked = {seen["call"] for seen in emulator.requests if seen["status"] >= 400}
        assert asked <= {"logs.DescribeLogStreams"}  # there is no log before the first line


def test_its_own_parser_reads_every_document_of_the_hub(python: str) -> None:
    told = json.dumps({name: documents.document(name, "us-east-1") for name in documents.names()})
    done = subprocess.run(
        [python, "-W", "ignore", "-c", PARSE], input=told, capture_output=True, text=True, check=False,
        env={**os.environ, "AWS_DEFAULT_REGION": "us-east-1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(documents.names())
