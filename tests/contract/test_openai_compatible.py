"""A service that speaks OpenAI's dialect keeps the contract, with a profile instead of code: the real SDK over HTTP."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from tests.contract.emulated import KEY, LOAD_OPENAI, EmulatedWorld

import cloudtune_providers.openai
from cloudtune.client import Client
from cloudtune.errors import ConfigError, CredentialsError, InputError, UnsupportedError
from cloudtune.moving import move
from cloudtune.registry import open_backend
from cloudtune.state import JobState
from cloudtune.testing.contract import BackendContract
from cloudtune_emulator import Settings
from cloudtune_providers.openai.backend import OpenAIBackend, connected
from cloudtune_providers.openai.options import OpenAIOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.spec import JobSpec

PROFILE = Path(cloudtune_providers.openai.__file__).with_name("services") / "nebius.json"
MODEL = "meta-llama/Meta-Llama-3.1-8B-Instruct"


class NebiusWorld(EmulatedWorld):
    """The emulator in the dialect of the profile."""

    def __init__(self, root: Path, **options: Any) -> None:
        super().__init__(root, service="nebius", **options)
        self.lacks = dict(self.lacks) | {"row_limit": "the service does not publish the limit of a row"}

    def settings(self) -> Settings:
        return Settings(api_key=KEY, service=PROFILE)

    def spec(self, variant: int = 0, **changes: Any) -> JobSpec:
        return super().spec(variant, **{"model": MODEL, **changes})


@pytest.mark.soak  # the calls are those of TestOpenAI
class TestNebius(BackendContract):
    expected_skips = 10
    warm_up = (LOAD_OPENAI,)
    snapshots = Path(__file__).parent / "snapshots"

    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[NebiusWorld]:
        world = NebiusWorld(tmp_path)
        yield world
        world.close()


def test_a_job_is_sent_as_the_profile_says(tmp_path: Path) -> None:
    world = NebiusWorld(tmp_path)
    client = Client(world.backend(), ledger=f"{tmp_path}/ledger.db", clock=world.clock)
    asked = {
        "adapter": {"type": "lora", "rank": 16}, "seed": 7, "overrides": {"openai": {"suffix": "mine"}},
        "hyperparameters": {"epochs": 2, "learning_rate": 2e-5, "max_length": 4096, "packing": False},
    }  # fmt: skip
    job = client.submit(world.spec(**asked))
    (body,) = [sent for sent in world.received() if "method" in sent]
    assert body["method"] == {"type": "supervised", "supervised": {"hyperparameters": {
        "n_epochs": 2, "learning_rate": 2e-5, "context_length": 4096, "packing": False, "lora": True, "lora_r": 16,
    }}}  # fmt: skip
    assert (body["model"], body["suffix"], body["seed"], "metadata" in body) == (MODEL, "mine", 7, False)
    world.reach(job.ref, JobState.SUCCEEDED)
    shown = job.snapshot().raw
    assert "fine_tuned_model" not in shown
    assert shown["hyperparameters"]["lora_r"] == 16
    assert job.model().id == job.checkpoints()[-1].uri  # jobs name no model there
    with pytest.raises(UnsupportedError, match=r"learning_rate_multiplier.*no such.*\n.*n_epochs must be"):
        client.plan(world.spec(
            hyperparameters={"epochs": 0.5}, overrides={"openai": {"learning_rate_multiplier": 2.0}},
        ))  # fmt: skip
    with pytest.raises(UnsupportedError, match="Nebius Token Factory does not support it"):
        client.plan(world.spec(method={"name": "dpo"}))
    client.close()
    world.close()


def test_another_service_needs_only_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.json").write_text(PROFILE.read_text().replace("NEBIUS_API_KEY", "MINE_KEY"))
    backend = OpenAIBackend(OpenAIOptions(service=str(tmp_path / "mine.json")))
    assert backend.scope() == "api.tokenfactory.nebius.com"
    (tmp_path / "bad.json").write_text('{"title": 1}')
    monkeypatch.chdir(tmp_path)
    for name, message in (("no-such", "no profile.*nebius"), (str(tmp_path / "bad.json"), "is not a profile"),
                          ("mine.json", "neither the name of a service nor an absolute path")):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            OpenAIBackend(OpenAIOptions(service=name))


@pytest.mark.parametrize(
    ("was", "now", "message"),
    [
        ('"create"},', '"created"},', "source 'created' is used but not defined"),
        ("hyperparameters.epochs", "hyperparameters.epoch", "hyperparameters.epoch is not a feature"),
        ('"adapters": {"lora"', '"adapters": {"lara"', "adapter:lara is not a feature"),
        ('{"sft": "openai"}', '{"cpt": "opnai"}', "cpt is not part of the dialect(.|\\n)*'opnai' is not a format"),
        ("NEBIUS_API_KEY", "OPENAI_API_KEY", "has the key of OpenAI"),
        ("https://api", "api", "is not the address of an API"),
    ],
)
def test_a_profile_is_checked_when_it_is_read(tmp_path: Path, was: str, now: str, message: str) -> None:
    text = PROFILE.read_text()
    assert was in text
    (tmp_path / "mine.json").write_text(text.replace(was, now))
    with pytest.raises(ConfigError, match=message):
        OpenAIBackend(OpenAIOptions(service=str(tmp_path / "mine.json")))


class Headers(BaseHTTPRequestHandler):
    """Keeps the headers of the last request."""

    seen: ClassVar[dict[str, str]] = {}

    def do_GET(self) -> None:
        type(self).seen = {name.lower(): value for name, value in self.headers.items()}
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Write nothing."""


def test_the_account_of_openai_is_not_sent_to_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    import openai

    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-mine")
    monkeypatch.setenv("NEBIUS_API_KEY", "of-nebius")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    with HTTPServer(("127.0.0.1", 0), Headers) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        for service, sent in (("nebius", (None, None)), (None, ("org-mine", "proj-mine"))):
            options = OpenAIOptions(service=service, base_url=f"http://127.0.0.1:{server.server_port}/v1")
            with connected(options) as client, pytest.raises(openai.NotFoundError):
                client.models.list()
            assert (Headers.seen.get("openai-organization"), Headers.seen.get("openai-project")) == sent
        server.shutdown()
        thread.join()
    assert OpenAIOptions(service="nebius").scope() == "api.tokenfactory.nebius.com"


def test_a_key_is_sent_only_to_its_own_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://elsewhere.example/v1")
    monkeypatch.delenv("NEBIUS_API_KEY", raising=False)
    with pytest.raises(CredentialsError, match="NEBIUS_API_KEY"):
        connected(OpenAIOptions(service="nebius"))
    monkeypatch.setenv("NEBIUS_API_KEY", "of-nebius")
    client = connected(OpenAIOptions(service="nebius"))
    assert (client.api_key, str(client.base_url)) == ("of-nebius", "https://api.tokenfactory.nebius.com/v1/")
    of_openai = OpenAIOptions(service="nebius", api_key="sk-of-openai")  # a configuration for OpenAI
    assert connected(of_openai).api_key == "of-nebius"
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Key: secret")
    with pytest.raises(CredentialsError, match="OPENAI_CUSTOM_HEADERS"):
        connected(of_openai)
    monkeypatch.delenv("NEBIUS_API_KEY")
    with pytest.raises(CredentialsError, match="the key of OpenAI is not sent to Nebius"):
        connected(of_openai)


def test_a_spec_for_openai_moves_to_a_service(tmp_path: Path) -> None:
    world = NebiusWorld(tmp_path)
    client = Client(ledger=f"{tmp_path}/ledger.db", clock=world.clock)
    client._open["openai"] = world.backend()  # as the configuration opens it
    given = {"learning_rate_multiplier": 2.0, "n_epochs": 3, "suffix": "mine"}
    spec = world.spec(model="gpt-4.1-mini-2025-04-14", backend="openai", tags={"a": "b"}, overrides={"openai": given})
    with pytest.raises(InputError, match="--model"):
        client.move(spec, "openai")
    found = client.move(spec, "openai", model=MODEL)
    assert {one.field: one.kind for one in found.changes} == {
        "model": "changed", "overrides.openai.n_epochs": "moved", "tags.a": "lost",
        "overrides.openai.learning_rate_multiplier": "lost",
    }  # fmt: skip
    assert (found.source, found.target, found.titles) == ("openai", "openai", ("openai", "Nebius Token Factory"))
    assert found.spec.overrides == {"openai": {"suffix": "mine"}}
    azure = open_backend("azure_openai", {"endpoint": "https://mine.openai.azure.com"})
    with pytest.raises(InputError, match="no model of Nebius Token Factory is known to replace gpt-4"):
        move(spec, azure, world.backend())  # OpenAI's catalog has it, the service does not
    assert client.plan(found.spec).dropped == ()
    client.close()
    world.close()
