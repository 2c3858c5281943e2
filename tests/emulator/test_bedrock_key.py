"""The emulator's Bedrock API key: where it is printed, and that setting it has no side effects."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import openai
import pytest
from tests.emulator.aws_desk import asked, converse_rows, desk

from cloudtune_emulator import Emulator, Settings
from cloudtune_providers.bedrock.backend import BedrockBackend
from cloudtune_providers.bedrock.options import BedrockOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "AWS_BEARER_TOKEN_BEDROCK"
ROWS = b'{"messages": [{"role": "user", "content": "1+1?"}], "answer": "2"}\n' * 12
GRADER = {"type": "lambda", "lambda": {"function": "arn:aws:lambda:us-west-2:123456789012:function:grade"}}
METHOD: Any = {"type": "reinforcement", "reinforcement": {"grader": GRADER}}


@pytest.fixture
def environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
    boto3.DEFAULT_SESSION = None


def tuned(url: str, key: str) -> str:
    """Make a job by OpenAI's SDK."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
        file = client.files.create(file=("rows.jsonl", ROWS), purpose="fine-tune").id
        return client.fine_tuning.jobs.create(
            model="openai.gpt-oss-20b", training_file=file, extra_body={"method": METHOD}
        ).id


def test_over_tls_it_is_among_the_environment_and_every_client_works_with_it(environment: None) -> None:
    with Emulator(Settings(), tls=True) as emulator:
        given = emulator.environment()
        assert given[KEY] == emulator.settings.bedrock_api_key
        assert not emulator.remarks()
        os.environ.update(given)
        job = tuned(emulator.url, given[KEY])
        with desk(emulator) as client:
            client("s3").put_object(Bucket=os.environ["EMULATED_BUCKET"], Key="rows.jsonl", Body=converse_rows())
            client("bedrock").create_model_customization_job(**asked())
        os.environ.update(given)
        # A key tells no region, and so the back end signs: what it sees is its own region's.
        east, west = (BedrockBackend(BedrockOptions(region=region)) for region in ("us-east-1", "us-west-2"))
        assert [one.ref.id for one in east.list()] == ["first-job"]
        assert [one.ref.id for one in west.list()] == [f"rft/{job}"]
        signed = [one for one in emulator.requests if one["call"] == "bedrock.ListModelCustomizationJobs"]
        assert len(signed) == 2


def test_without_tls_it_is_a_remark_since_boto3_would_fail_with_it(environment: None) -> None:
    with Emulator(Settings()) as emulator:
        given = emulator.environment()
        assert KEY not in given
        (remark,) = emulator.remarks()
        key = re.match(rf"{KEY}=(\S+) ", remark)
        assert key is not None
        os.environ.update(given)
        assert boto3.client("bedrock").list_foundation_models()["modelSummaries"]
        job = tuned(emulator.url, key[1])
        os.environ[KEY] = key[1]
        west = BedrockBackend(BedrockOptions(region="us-west-2"))
        assert [one.ref.id for one in west.list()] == [f"rft/{job}"]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_the_command_tells_it(tls: bool, tmp_path: Path) -> None:
    start = [str(Path(sys.executable).with_name("cloudtune")), "emulate", "--port", "0", *(["--tls"] if tls else [])]
    with subprocess.Popen(start, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        wanted = f"export {KEY}=" if tls else f"# {KEY}="
        lines = []
        for line in server.stdout:
            lines.append(line)
            if line.startswith(wanted):
                break
        server.send_signal(signal.SIGTERM)
        lines += server.stdout.readlines()
    assert sum(KEY in line for line in lines) == 1
    assert all(line.startswith(("export ", "# ")) for line in lines), lines
