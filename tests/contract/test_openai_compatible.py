"""A service that speaks OpenAI's dialect keeps the contract, with a profile instead of code: the real SDK over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.emulated import KEY, LOAD_ENCODING, EmulatedWorld

import cloudtune_providers.openai
from cloudtune.client import Client
from cloudtune.errors import ConfigError, CredentialsError, InputError, UnsupportedError
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
    warm_up = (LOAD_ENCODING,)
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


def test_another_service_needs_only_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(PROFILE.read_text().replace("NEBIUS_API_KEY", "MINE_KEY"))
    backend = OpenAIBackend(OpenAIOptions(service=str(tmp_path / "mine.json")))
    assert backend.scope() == "api.tokenfactory.nebius.com"
    (tmp_path / "bad.json").write_text('{"title": 1}')
    for name, message in (("no-such", "no profile.*nebius"), (str(tmp_path / "bad.json"), "is not a profile")):
        with pytest.raises(ConfigError, match=message):
            OpenAIBackend(OpenAIOptions(service=name))


def test_a_key_is_sent_only_to_its_own_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://elsewhere.example/v1")
    monkeypatch.delenv("NEBIUS_API_KEY", raising=False)
    with pytest.raises(CredentialsError, match="NEBIUS_API_KEY"):
        connected(OpenAIOptions(service="nebius"))
    monkeypatch.setenv("NEBIUS_API_KEY", "of-nebius")
    client = connected(OpenAIOptions(service="nebius"))
    assert (client.api_key, str(client.base_url)) == ("of-nebius", "https://api.tokenfactory.nebius.com/v1/")


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
    assert found.spec.overrides == {"openai": {"suffix": "mine"}}
    assert client.plan(found.spec).dropped == ()
    client.close()
    world.close()
