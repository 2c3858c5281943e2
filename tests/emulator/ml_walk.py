"""What a user of azure-ai-ml does. A module of its own: importing the SDK takes seconds and warns a lot."""

from __future__ import annotations

import json
import os
import urllib.request
from typing import Any

from azure.ai.ml import MLClient
from azure.ai.ml.finetuning import create_finetuning_job
from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError


class Credential:
    def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        return AccessToken(os.environ["CLOUDTUNE_BACKENDS__AZURE_OPENAI__MANAGEMENT_TOKEN"], 4102444800)


def advance(seconds: float) -> None:
    body = json.dumps({"advance": seconds}).encode()
    headers = {"Authorization": f"Bearer {os.environ['CLOUDTUNE_EMULATOR_ADMIN_TOKEN']}"}
    request = urllib.request.Request(f"{os.environ['EMULATOR']}/_emulator/clock", body, headers)
    urllib.request.urlopen(request).close()


def job(name: str, epochs: str = "1") -> Any:
    return create_finetuning_job(
        model="azureml://registries/azureml-meta/models/Meta-Llama-3.1-8B/versions/1", task="ChatCompletion",
        training_data="https://acct.blob.core.windows.net/c/train.jsonl",
        validation_data="https://acct.blob.core.windows.net/c/val.jsonl",
        hyperparameters={"num_train_epochs": epochs}, name=name, output_model_name_prefix="ct", tags={"key": "1"},
        experiment_name="e",
    )  # fmt: skip


def walk() -> dict[str, Any]:
    """Run jobs against the emulator of the environment, and return what the SDK shows of them."""
    client = MLClient(
        Credential(), "00000000-0000-0000-0000-000000000000", "emulated", "ws", enable_telemetry=False, retry_total=0
    )
    seen = [client.jobs.create_or_update(job("one")).status]
    client.jobs.create_or_update(job("one"))
    for seconds in (1, 1, 1, 1, 1, 30, 25, 5):  # each phase of the script, and both sides of its ends
        advance(seconds)
        status = client.jobs.get("one").status
        if status != seen[-1]:
            seen.append(status)
    client.jobs.create_or_update(job("two"))
    client.jobs.begin_cancel("two").wait(10)
    errors = []
    for act in (lambda: client.jobs.get("none"), lambda: client.jobs.create_or_update(job("one", "2"))):
        try:
            act()
        except ResourceNotFoundError:
            errors.append(404)
        except HttpResponseError as error:
            errors.append(error.status_code or 0)
    found: dict[str, Any] = {"seen": seen, "two": client.jobs.get("two").status, "errors": errors}
    found["listed"] = [one.name for one in client.jobs.list()]
    client.jobs.begin_delete("two").wait(10)
    return found
