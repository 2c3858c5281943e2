"""The route through a workspace: what is refused, what would be sent, what answers mean."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloudtune.client import Client
from cloudtune.errors import UnsupportedError
from cloudtune.spec import JobSpec
from cloudtune.state import JobState
from cloudtune_providers.azure_openai.backend import AzureOpenAIBackend
from cloudtune_providers.azure_openai.ml_workspace import translate
from cloudtune_providers.azure_openai.ml_workspace.connection import Run
from cloudtune_providers.azure_openai.options import AzureOpenAIOptions

MODEL = "azureml://registries/azureml-meta/models/Meta-Llama-3.1-8B-Instruct/versions/4"
PLACE = {"subscription_id": "sub", "resource_group": "group", "workspace": "lab"}


@pytest.fixture(autouse=True)
def _no_subscription(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_SUBSCRIPTION_ID", raising=False)


@pytest.fixture
def rows(tmp_path):
    for name, count in (("train", 4), ("held-out", 2)):
        lines = [json.dumps({"prompt": f"{name} {n}?", "completion": f"{n}!"}) for n in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return {"train": str(tmp_path / "train.jsonl"), "validation": str(tmp_path / "held-out.jsonl")}


def client(tmp_path, **options: Any) -> Client:
    settings = AzureOpenAIOptions.model_validate({"route": "ml_workspace"} | PLACE | options)
    return Client(AzureOpenAIBackend(settings), ledger=f"sqlite:///{tmp_path}/ledger.db")


def spec_of(rows, **changes: Any) -> JobSpec:
    return JobSpec.model_validate({"name": "headlines", "model": MODEL, "data": rows} | changes)


def refusals(client: Client, spec: JobSpec) -> dict[str, str]:
    with pytest.raises(UnsupportedError) as refused:
        client.plan(spec)
    return {str(problem.field): f"{problem.message} | {problem.fix}" for problem in refused.value.problems}


def test_all_that_is_missing_is_told_at_once(tmp_path, rows):
    spec = spec_of(
        {"train": rows["train"]}, model="gpt-4.1-mini-2025-04-14", overrides={"azure_openai": {"suffix": "x"}},
        hyperparameters={"batch_size": 4, "warmup_ratio": 0.1}, method={"name": "dpo"},
    )  # fmt: skip
    response = refusals(client(tmp_path, workspace=None, subscription_id=None), spec)
    assert set(response) == {
        "method.name", "hyperparameters.batch_size", "hyperparameters.warmup_ratio", "model", "data.validation",
        "backends.azure_openai.workspace", "backends.azure_openai.subscription_id", "overrides.azure_openai.suffix",
    }  # fmt: skip
    assert "azureml://registries/" in response["model"]
    assert "per_device_train_batch_size" in response["hyperparameters.batch_size"]
    assert "hold out a share" in response["data.validation"]


def test_the_other_route_refuses_what_is_a_workspaces(tmp_path, rows):
    options = AzureOpenAIOptions(endpoint="https://mine.openai.azure.com")
    foundry = Client(AzureOpenAIBackend(options), ledger=f"sqlite:///{tmp_path}/ledger.db")
    given = {"hyperparameters": {"lora_r": 8}, "compute": "gpus", "instance_types": ["Standard_ND96"]}
    reported = refusals(foundry, spec_of(rows, model="gpt-4.1-mini-2025-04-14", overrides={"azure_openai": given}))
    assert set(reported) == {f"overrides.azure_openai.{name}" for name in given}
    assert all("route: ml_workspace" in text for text in reported.values())


def test_the_plan_is_the_body_that_will_be_put(tmp_path, rows):
    given = {"hyperparameters": {"per_device_train_batch_size": 1, "apply_lora": True}, "compute": "gpus",
             "instance_types": ["Standard_ND96"]}  # fmt: skip
    requested = {"epochs": 3, "learning_rate": 2e-5}
    plan = client(tmp_path).plan(
        spec_of(rows, tags={"team": "red"}, hyperparameters=requested, overrides={"azure_openai": given})
    )
    assert [step.id for step in plan.steps] == [
        "encode_train", "upload_train", "encode_validation", "upload_validation", "create",
    ]  # fmt: skip
    assert {step.once for step in plan.steps if step.kind != "encode"} == {"atomic"}
    body = plan.steps[-1].request["body"]["properties"]
    assert body["fineTuningDetails"]["hyperParameters"] == {
        "num_train_epochs": "3", "learning_rate": "2e-05", "per_device_train_batch_size": "1", "apply_lora": "true",
    }  # fmt: skip
    assert (body["computeId"], body["resources"]) == ("gpus", {"instanceTypes": ["Standard_ND96"]})
    assert body["tags"] == {"team": "red", "cloudtune_token": plan.token, "cloudtune_name": "headlines"}
    assert plan.scope == "sub/group/lab"
    assert plan.token[:10] in plan.steps[-1].request["name"]
    assert plan.data.splits["train"].rows == 4, "a workspace has no least number of rows"


def test_names_of_blobs_are_made_of_the_rows(tmp_path, rows):
    def blobs(**changes: Any) -> list[str]:
        plan = client(tmp_path).plan(spec_of(rows, **changes))
        return [step.request["blob"] for step in plan.steps if step.kind == "upload"]

    assert blobs() == blobs(name="another", hyperparameters={"epochs": 2})
    assert len(set(blobs())) == 2


@pytest.mark.parametrize(("word", "state"), [
    ("NotResponding", JobState.RUNNING), ("Finalizing", JobState.RUNNING), ("canceled", JobState.CANCELLED),
    ("CancelRequested", JobState.CANCELLING), ("Unknown", JobState.UNKNOWN), ("", JobState.UNKNOWN),
])  # fmt: skip
def test_words(word: str, state: JobState) -> None:
    assert translate.state_of(word) is state


def test_answers_may_leave_out_anything() -> None:
    seen = translate.to_snapshot({"name": "job-1", "properties": {"status": "Failed"}}, "s", Run())
    assert (seen.state, seen.name, seen.model, seen.created_at) == (JobState.FAILED, "job-1", "", None)
    assert seen.problem is not None
    assert "did not give a reason" in seen.problem.message
    assert translate.to_snapshot({"name": "job-1"}, "s").state is JobState.UNKNOWN
