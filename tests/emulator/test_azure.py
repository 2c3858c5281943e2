"""The Azure API: the data plane by both of its clients, deployments by the management SDK."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from datetime import date
from typing import TYPE_CHECKING, Any

import openai
import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient
from azure.mgmt.cognitiveservices import models as arm
from tests.emulator.conftest import MODEL, chat_rows

from cloudtune.catalog import load
from cloudtune.testing.clock import FakeClock
from cloudtune_emulator import Emulator, Settings
from cloudtune_providers.azure_openai.backend import AzureOpenAIBackend
from cloudtune_providers.azure_openai.options import AzureOpenAIOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

ASKED: Any = [{"role": "user", "content": "question 3"}]
VERSION = "2025-04-01-preview"


class Bearer(SansIOHTTPPolicy[Any, Any]):
    """azure-core's own refuses to send a token without TLS, on loopback too."""

    def __init__(self, token: str) -> None:
        self._token = token

    def on_request(self, request: Any) -> None:
        request.http_request.headers["Authorization"] = f"Bearer {self._token}"


class Credential:
    def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        raise AssertionError("the policy above brings the token")


@pytest.fixture(params=["v1", "classic"])
def azure(request: pytest.FixtureRequest, emulator: Emulator) -> Iterator[openai.OpenAI]:
    key = emulator.settings.azure_key
    client: openai.OpenAI
    if request.param == "v1":
        client = openai.OpenAI(base_url=f"{emulator.url}/openai/v1/", api_key=key, max_retries=0)
    else:
        client = openai.AzureOpenAI(azure_endpoint=emulator.url, api_key=key, api_version=VERSION, max_retries=0)
    with client:
        yield client


def management(emulator: Emulator, token: str | None = None) -> CognitiveServicesManagementClient:
    return CognitiveServicesManagementClient(
        Credential(), emulator.settings.subscription, base_url=emulator.url, polling_interval=0,
        authentication_policy=Bearer(token or emulator.settings.azure_token), retry_total=0,
    )  # fmt: skip


def deployment(model: str, sku: str = "GlobalStandard") -> arm.Deployment:
    named = arm.DeploymentModel(format="OpenAI", name=model, version="1")
    return arm.Deployment(
        sku=arm.Sku(name=sku, capacity=1), properties=arm.DeploymentProperties(model=named), tags={"by": "test"}
    )


def train(emulator: Emulator, client: openai.OpenAI, **more: Any) -> Any:
    file = client.files.create(file=("train.jsonl", b"\xef\xbb\xbf" + chat_rows()), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=MODEL, training_file=file.id, extra_body={"trainingType": "GlobalStandard"}, **more
    )
    emulator.clock.advance(100)
    return client.fine_tuning.jobs.retrieve(job.id)


def deploy(emulator: Emulator, name: str, model: str, sku: str = "GlobalStandard") -> None:
    settings = emulator.settings
    with management(emulator) as client:
        client.deployments.begin_create_or_update(
            settings.resource_group, settings.account, name, deployment(model, sku), polling=False
        )
    emulator.clock.advance(settings.deploying_s)


def test_a_job_is_trained_deployed_asked_and_taken_down(emulator: Emulator, azure: openai.OpenAI) -> None:
    job = train(emulator, azure, suffix="mine")
    assert job.status == "succeeded"
    assert job.fine_tuned_model.startswith(f"{MODEL}.ft-")
    assert job.fine_tuned_model.endswith("-mine")
    with pytest.raises(openai.NotFoundError) as refused:
        azure.chat.completions.create(model=job.fine_tuned_model, messages=ASKED)
    assert refused.value.code == "DeploymentNotFound"
    deploy(emulator, "headlines", job.fine_tuned_model)
    answer = azure.chat.completions.create(model="headlines", messages=ASKED)
    assert answer.choices[0].message.content == "answer 3"
    assert answer.model == job.fine_tuned_model
    assert azure.responses.create(model="headlines", input="question 4").output_text == "answer 4"
    pieces = [chunk.choices[0].delta.content for chunk in azure.chat.completions.create(
        model="headlines", messages=ASKED, stream=True)]  # fmt: skip
    assert "".join(piece or "" for piece in pieces) == "answer 3"
    with pytest.raises(openai.ConflictError):
        azure.models.delete(job.fine_tuned_model)
    settings = emulator.settings
    with management(emulator) as client:
        client.deployments.begin_delete(settings.resource_group, settings.account, "headlines", polling=False)
    emulator.clock.advance(settings.deploying_s)
    with pytest.raises(openai.NotFoundError):
        azure.chat.completions.create(model="headlines", messages=ASKED)
    assert azure.models.delete(job.fine_tuned_model).deleted


def test_words_and_fields_of_its_own(emulator: Emulator, azure: openai.OpenAI) -> None:
    file = azure.files.create(file=("train.jsonl", chat_rows()), purpose="fine-tune")
    job: Any = azure.fine_tuning.jobs.create(model=MODEL, training_file=file.id, metadata={"key": "1"}, suffix="s")
    assert job.status == "pending"
    assert job.organization_id is None
    assert job.metadata is None
    assert not hasattr(job, "user_provided_suffix")
    assert [one.id for one in azure.fine_tuning.jobs.list(metadata={"key": "2"})] == [job.id]


def test_a_new_file_is_pending() -> None:
    with Emulator(Settings(processing_s=5), scale=0) as emulator:
        endpoint = f"{emulator.url}/openai/v1/"
        with openai.OpenAI(base_url=endpoint, api_key=emulator.settings.azure_key) as client:
            file = client.files.create(file=("train.jsonl", chat_rows()), purpose="fine-tune")
            assert str(file.status) == "pending"
            with pytest.raises(openai.BadRequestError, match="not ready"):
                client.fine_tuning.jobs.create(model=MODEL, training_file=file.id)
            emulator.clock.advance(5)
            assert client.files.retrieve(file.id).status == "processed"


@pytest.mark.parametrize("suffix", ["with.dot", "x" * 19])
def test_a_bad_suffix_is_refused(azure: openai.OpenAI, suffix: str) -> None:
    with pytest.raises(openai.BadRequestError, match="suffix"):
        azure.fine_tuning.jobs.create(model=MODEL, training_file="file-x", suffix=suffix)


def test_apis_do_not_see_each_other(emulator: Emulator, azure: openai.OpenAI, client: openai.OpenAI) -> None:
    theirs = azure.files.create(file=("train.jsonl", chat_rows()), purpose="fine-tune").id
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(theirs)


def test_wrong_keys_and_a_missing_version(emulator: Emulator) -> None:
    options: dict[str, Any] = {"azure_endpoint": emulator.url, "max_retries": 0}
    wrong = openai.AzureOpenAI(**options, api_key="no", api_version=VERSION)
    entra = openai.AzureOpenAI(**options, azure_ad_token=emulator.settings.azure_token, api_version=VERSION)
    with wrong, entra:
        with pytest.raises(openai.AuthenticationError):
            wrong.models.list()
        assert entra.models.list().data
        with pytest.raises(openai.NotFoundError):
            entra.get("/models", cast_to=object, options={"params": {"api-version": ""}})


def test_the_sdk_waits_for_a_deployment_and_for_its_end() -> None:
    # Real time, ten times as fast: the poller of azure-core sleeps by itself.
    with Emulator(Settings(deploying_s=10), scale=10) as emulator, management(emulator) as client:
        where = (emulator.settings.resource_group, emulator.settings.account)
        made = client.deployments.begin_create_or_update(*where, "base", deployment(MODEL)).result(30)
        assert made.properties is not None
        assert made.properties.provisioning_state == "Succeeded"
        assert made.tags == {"by": "test"}
        assert [one.name for one in client.deployments.list(*where)] == ["base"]
        client.deployments.begin_delete(*where, "base").wait(30)
        assert emulator.census()["deployments"] == 0
        with pytest.raises(ResourceNotFoundError):
            client.deployments.get(*where, "base")
        client.deployments.begin_delete(*where, "base").wait(30)


def test_the_management_plane_refuses(emulator: Emulator) -> None:
    where = (emulator.settings.resource_group, emulator.settings.account)
    with management(emulator, emulator.settings.azure_key) as keyed, pytest.raises(ClientAuthenticationError):
        keyed.deployments.get(*where, "x")
    with management(emulator) as client:
        with pytest.raises(ResourceNotFoundError):
            client.deployments.get("elsewhere", where[1], "x")
        with pytest.raises(HttpResponseError) as refused:
            client.deployments.begin_create_or_update(*where, "x", deployment("no-such-model"))
        assert refused.value.error is not None
        assert refused.value.error.code == "DeploymentModelNotSupported"
        with pytest.raises(HttpResponseError, match="sku"):
            client.deployments.begin_create_or_update(*where, "x", deployment(MODEL, "Gold"))


def test_put_overwrites_whatever_stands_there(emulator: Emulator) -> None:
    deploy(emulator, "x", MODEL)
    other = "gpt-4o-mini-2024-07-18"
    deploy(emulator, "x", other)
    with management(emulator) as client:
        found = client.deployments.get(emulator.settings.resource_group, emulator.settings.account, "x")
    assert found.properties is not None
    assert found.properties.model is not None
    assert found.properties.model.name == other
    assert emulator.census()["deployments"] == 1


@pytest.mark.parametrize(("sku", "asked_after", "stands"), [
    ("GlobalStandard", (14, 14), True), ("GlobalStandard", (15,), False), ("DeveloperTier", (0.5, 0.6), False),
])  # fmt: skip
def test_idle_and_developer_deployments_go_away(sku: str, asked_after: tuple[float, ...], stands: bool) -> None:
    clock = FakeClock()
    with Emulator(clock=clock) as emulator:
        key = emulator.settings.azure_key
        with openai.OpenAI(base_url=f"{emulator.url}/openai/v1/", api_key=key, max_retries=0) as client:
            job = train(emulator, client)
            deploy(emulator, "x", job.fine_tuned_model, sku)
            for days in asked_after[:-1]:
                clock.advance(days * 86400)
                client.chat.completions.create(model="x", messages=ASKED)
            clock.advance(asked_after[-1] * 86400)
            try:
                client.chat.completions.create(model="x", messages=ASKED)
                found = True
            except openai.NotFoundError:
                found = False
    assert found is stands


def test_workspace_jobs_by_azure_ai_ml(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"EMULATOR": emulator.url, **emulator.environment()}.items():
        monkeypatch.setenv(name, value)
    with warnings.catch_warnings(action="ignore"):  # the SDK's own
        from tests.emulator.ml_walk import walk

        found = walk()
    assert found["seen"] == ["NotStarted", "Preparing", "Queued", "Running", "Completed"]
    assert found["two"] == "Canceled"
    assert found["errors"] == [404, 409]
    assert found["listed"] == ["two", "one"]
    assert emulator.census()["workspace_jobs"] == 1


def test_with_tls_azure_core_sends_its_token_unasked() -> None:
    """No policy of our own: the SDK as users have it, and a certificate that only the environment names."""
    walk = """
import os
from azure.core.credentials import AccessToken
from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient
import openai
class Credential:
    def get_token(self, *scopes, **kwargs):
        return AccessToken(os.environ["CLOUDTUNE_BACKENDS__AZURE_OPENAI__MANAGEMENT_TOKEN"], 4102444800)
client = CognitiveServicesManagementClient(
    Credential(), os.environ["AZURE_SUBSCRIPTION_ID"], base_url=os.environ["AZURE_OPENAI_ENDPOINT"])
made = client.deployments.begin_create_or_update("emulated", "emulated", "base", {
    "sku": {"name": "Standard", "capacity": 1},
    "properties": {"model": {"format": "OpenAI", "name": "gpt-4.1-mini-2025-04-14", "version": "1"}}}).result(30)
asked = [{"role": "user", "content": "hello"}]
print(made.properties.provisioning_state)
print(openai.AzureOpenAI().chat.completions.create(model="base", messages=asked).choices[0].message.content)
"""
    with Emulator(Settings(deploying_s=0), tls=True) as emulator:
        assert emulator.url.startswith("https://")
        emulator.faults.add("lost_reply", "chat.create")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("AZURE", "OPENAI"))}
        done = subprocess.run(
            [sys.executable, "-c", walk], env=environment | emulator.environment(), capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        untrusting = subprocess.run(
            [sys.executable, "-c", f"import urllib.request; urllib.request.urlopen('{emulator.url}/_emulator/store')"],
            env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.stdout.splitlines() == ["Succeeded", f"{MODEL} received: hello"], done.stderr[-3000:]
    assert "CERTIFICATE_VERIFY_FAILED" in untrusting.stderr


def test_the_models_of_the_account_refresh_the_catalog(emulator: Emulator) -> None:
    settings = emulator.settings
    options = AzureOpenAIOptions(
        endpoint=emulator.url,
        subscription_id=settings.subscription,
        resource_group=settings.resource_group,
        account=settings.account,
    )
    backend = AzureOpenAIBackend(options, manage=lambda _: management(emulator))
    found = backend.read_catalog(date(2026, 11, 29))
    known = load("azure_openai")
    assert {(one.id, one.methods, one.no_new_jobs_from) for one in found.models} == {
        (one.id, one.methods, one.no_new_jobs_from) for one in known.models
    }
