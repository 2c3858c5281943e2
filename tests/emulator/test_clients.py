"""The AWS CLI and curl work with nothing but the printed environment, keys included."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from cloudtune_emulator import Emulator, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def served() -> Iterator[Emulator]:
    with Emulator(Settings(aws_account="810987654321")) as emulator:
        yield emulator


def run(emulator: Emulator, folder: Path, script: str, **more: str) -> str:
    """Run a shell script in the environment that the emulator prints, and no other."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "PYENV_VERSION")}
    environment = kept | emulator.environment() | {"NO_PROXY": "*"} | more
    done = subprocess.run(
        ["sh", "-euc", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.mark.skipif(shutil.which("aws") is None, reason="the AWS CLI is not installed")
def test_the_aws_cli_works_with_the_environment(served: Emulator, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(data := os.urandom(9 << 20))
    said = run(served, tmp_path, """
        aws sts get-caller-identity --query Account --output text
        aws s3 cp --quiet big "s3://$EMULATED_BUCKET/a b/big"
        aws s3 cp --quiet "s3://$EMULATED_BUCKET/a b/big" back
        aws sagemaker list-training-jobs --query 'length(TrainingJobSummaries)'
        aws bedrock list-custom-models --query 'length(modelSummaries)'
        AWS_SECRET_ACCESS_KEY=other aws s3 ls 2>&1 || true
    """)  # fmt: skip
    assert said.split()[:3] == ["810987654321", "0", "0"]
    assert "SignatureDoesNotMatch" in said
    assert (tmp_path / "back").read_bytes() == data


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_works_with_the_environment(served: Emulator, tmp_path: Path) -> None:
    said = run(served, tmp_path, """
        get() { curl -sS -o body -w '%{http_code} ' "$@"; }
        key="Authorization: Bearer $OPENAI_API_KEY"
        get -H "$key" "$OPENAI_BASE_URL/models"
        get -H "api-key: $AZURE_OPENAI_API_KEY" "$AZURE_OPENAI_ENDPOINT/openai/v1/models"
        get -H "Authorization: Bearer $CLOUDTUNE_EMULATOR_ADMIN_TOKEN" "$AWS_ENDPOINT_URL/_emulator/store"
        signed="--user $AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY --aws-sigv4"
        get $signed aws:amz:us-east-1:sts -d 'Action=GetCallerIdentity&Version=2011-06-15' "$AWS_ENDPOINT_URL/"
        get $signed aws:amz:us-east-1:bedrock "$AWS_ENDPOINT_URL/foundation-models"
        hash="x-amz-content-sha256: UNSIGNED-PAYLOAD"
        get $signed aws:amz:us-east-1:s3 -H "$hash" -T body "$AWS_ENDPOINT_URL/$EMULATED_BUCKET/models.json"
        get $signed aws:amz:us-east-1:s3 -H "$hash" "$AWS_ENDPOINT_URL/$EMULATED_BUCKET/models.json"
        get "$AWS_ENDPOINT_URL/$EMULATED_BUCKET/models.json"
        get "$AWS_ENDPOINT_URL/_emulator/store"
        get "$OPENAI_BASE_URL/models"
    """)  # fmt: skip
    assert said.split() == ["200"] * 7 + ["403", "401", "401"]


def test_the_environment_names_every_credential_once(served: Emulator) -> None:
    reported: dict[str, Any] = served.environment()
    assert json.loads(json.dumps(reported)) == reported
    assert len({reported[name] for name in reported if name.endswith(("_KEY", "_TOKEN", "_KEY_ID"))}) == 6
