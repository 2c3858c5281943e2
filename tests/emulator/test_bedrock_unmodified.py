"""A tutorial's script in a separate process: only the environment points it at the emulator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from tests.emulator.access import aws_keys

from cloudtune_emulator import Emulator, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UPLOAD = """
import os, sys, time
import boto3
bucket, role = os.environ["EMULATED_BUCKET"], os.environ["EMULATED_ROLE"]
boto3.client("s3").upload_file(sys.argv[1], bucket, "titulares.jsonl")
bedrock = boto3.client("bedrock")
"""
AS_WRITTEN = """
bedrock.create_model_customization_job(
    jobName="titulares-job", customModelName="titulares", roleArn=role,
    baseModelIdentifier="anthropic.claude-3-haiku-20240307-v1:0",
    trainingDataConfig={"s3Uri": f"s3://{bucket}/titulares.jsonl"},
    outputDataConfig={"s3Uri": f"s3://{bucket}/salida/"},
    hyperParameters={"epochCount": "3", "batchSize": "8", "learningRate": "0.00001"},
)
"""
WITH_A_LIVE_MODEL = """
def create():
    return bedrock.create_model_customization_job(
        jobName="titulares-job", customModelName="titulares", roleArn=role, clientRequestToken="titulares-1",
        baseModelIdentifier="amazon.nova-lite-v1:0:300k", customizationType="FINE_TUNING",
        trainingDataConfig={"s3Uri": f"s3://{bucket}/titulares.jsonl"},
        outputDataConfig={"s3Uri": f"s3://{bucket}/salida/"},
        hyperParameters={"epochCount": "3", "learningRate": "0.00001", "learningRateWarmupSteps": "5"},
    )["jobArn"]

arn = create()
assert create() == arn
print(len(bedrock.list_model_customization_jobs()["modelCustomizationJobSummaries"]))
while (job := bedrock.get_model_customization_job(jobIdentifier=arn))["status"] == "InProgress":
    time.sleep(0.1)
print(job["status"])
deployment = bedrock.create_custom_model_deployment(modelDeploymentName="titulares", modelArn=job["outputModelArn"])
deployment = deployment["customModelDeploymentArn"]
while bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=deployment)["status"] != "Active":
    time.sleep(0.1)
asked = [{"role": "user", "content": [{"text": "Titular: La bolsa de Bogotá sube por tercer día"}]}]
answer = boto3.client("bedrock-runtime").converse(modelId=deployment, messages=asked)
print(answer["output"]["message"]["content"][0]["text"])
bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=deployment)
bedrock.delete_custom_model(modelIdentifier=job["outputModelArn"])
for entry in boto3.client("s3").list_objects_v2(Bucket=bucket)["Contents"]:
    boto3.client("s3").delete_object(Bucket=bucket, Key=entry["Key"])
print(len(bedrock.list_custom_models()["modelSummaries"]))
"""
HEADLINES = {"La bolsa de Bogotá sube por tercer día": "economía", "El Real Madrid gana en el último minuto": "deporte",
             "Descubren una nueva especie de rana en el Amazonas": "ciencia", "El congreso aprueba el presupuesto":
             "política"}  # fmt: skip


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Twelve rows in Spanish, in the form of Nova's."""
    path = tmp_path / "titulares.jsonl"
    lines = [
        {"schemaVersion": "bedrock-conversation-2024", "system": [{"text": "Clasifica el titular."}],
         "messages": [{"role": "user", "content": [{"text": f"Titular: {headline}"}]},
                      {"role": "assistant", "content": [{"text": topic}]}]}
        for headline, topic in HEADLINES.items()
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines * 3), encoding="utf-8")
    return path


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(Settings(deploying_s=30), scale=100) as emulator:
        yield emulator


def run(emulator: Emulator, rows: Path, script: str) -> subprocess.CompletedProcess[str]:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(rows)], env=outside | emulator.environment(),
        capture_output=True, text=True, check=False, timeout=90,
    )  # fmt: skip


def test_as_written_it_is_refused_as_the_service_does_today(emulator: Emulator, rows: Path) -> None:
    done = run(emulator, rows, UPLOAD + AS_WRITTEN)
    assert done.returncode != 0
    words = done.stderr.splitlines()[-1]
    assert "ValidationException" in words
    assert "anthropic.claude-3-haiku-20240307-v1:0 has reached the end of its life" in words
    assert "learningRate is not supported" in words
    assert emulator.census()["jobs"] == 0


def test_with_a_live_model_and_its_own_parameters_it_completes(emulator: Emulator, rows: Path) -> None:
    done = run(emulator, rows, UPLOAD + WITH_A_LIVE_MODEL)
    assert done.stdout.split() == ["1", "Completed", "economía", "0"], done.stderr
    census: dict[str, Any] = emulator.census()
    assert census["jobs"] == 1
    assert census["deployments"] == 0
    there = boto3.client("s3", endpoint_url=emulator.url, region_name="us-east-1", **aws_keys(emulator))
    assert "Contents" not in there.list_objects_v2(Bucket=emulator.settings.aws_bucket)
