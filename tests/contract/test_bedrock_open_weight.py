"""The contract, by Bedrock's jobs on open-weight models; and what they have that other jobs of Bedrock have not."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.clauses import rarely
from tests.contract.emulated_open_weight import GRADER, KEY, MODEL, PREFIX, OpenWeightWorld
from tests.contract.fault_schedules import DIALECT, DIALECT_SENDS, JobStorms, blind, client_of, stubborn
from tests.contract.service_models import SHARE_SERVICE_MODELS

from cloudtune.client import Client
from cloudtune.errors import BackendNotInstalled, CredentialsError, UnsupportedError
from cloudtune.optional import GenerateOptions, Preflight
from cloudtune.state import JobState
from cloudtune.testing.clock import FakeClock
from cloudtune.testing.contract import BackendContract
from cloudtune_providers.aws.clients import Clients
from cloudtune_providers.bedrock import open_weight
from cloudtune_providers.bedrock.backend import BedrockBackend
from cloudtune_providers.bedrock.options import BedrockOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloudtune.backend import Backend


@pytest.fixture
def world(tmp_path: Path) -> Iterator[OpenWeightWorld]:
    world = OpenWeightWorld(tmp_path)
    yield world
    world.close()


@pytest.fixture
def client(world: OpenWeightWorld) -> Client:
    return client_of(world)


class TestOpenWeight(BackendContract):
    expected_skips = 10
    warm_up = (SHARE_SERVICE_MODELS,)
    snapshots = Path(__file__).parent / "snapshots"

    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[OpenWeightWorld]:
        world = OpenWeightWorld(tmp_path)
        yield world
        world.close()

    def test_14_nothing_is_ignored(self, world: OpenWeightWorld, backend: Backend) -> None:  # type: ignore[override]
        """14: what this route takes of the back end's features and overrides changes the request; the rest is refused.

        What is refused of them stands in the unit tests of the rules.
        """
        client = client_of(world)
        plain = client.plan(world.spec()).steps
        given = {"bedrock": {"batch_size": 32}}, {"bedrock": {"learning_rate_multiplier": 0.5}}
        requested: list[dict[str, Any]] = [{"overrides": one} for one in given]
        requested += [{"hyperparameters": {"epochs": 3}}, {"tags": {"team": "blue"}}]
        for changes in requested:
            assert client.plan(world.spec(**changes)).steps != plain, changes
            (value,) = (next(iter(one.values())) for one in (changes.get("overrides", {}).get("bedrock") or
                        changes.get("hyperparameters") or changes["tags"],))  # fmt: skip
            assert json.dumps(value) in json.dumps(_body(client.plan(world.spec(**changes))))

    def test_21_changed_fields_are_reported(  # type: ignore[override]
        self, world: OpenWeightWorld, client: Client
    ) -> None:
        """21: there is no field that is not sent: all go to the grader."""
        job = client.submit(world.spec())
        file = world._job(job.ref)["request"]["training_file"]
        sent = [json.loads(line) for line in world.emulator.store.content(file).read_text().splitlines()]
        assert sent == [json.loads(line) for line in Path(str(world.spec().data.train.path)).read_text().splitlines()]


# Words, waiting and reasons (6, 9, 10) are read by the code that reads OpenAI's jobs, which `TestOpenAI` holds to them.
# The client, and the choice of this API by a job's ID, are Bedrock's own.
_SHARED = ("06", "09", "10")
rarely(TestOpenWeight, tuple(f"{number:02}" for number in range(22) if f"{number:02}" not in _SHARED))


def _body(plan: Any) -> Any:
    return next(step.request["body"] for step in plan.steps if step.id == "create")


# -- what the request says ---------------------------------------------------------------------------------------------


def test_the_job_has_the_grader_the_token_and_no_suffix(world: OpenWeightWorld, client: Client) -> None:
    spec = world.spec(tags={"team": "blue"}, hyperparameters={"epochs": 2}, overrides={"bedrock": {"batch_size": 16}})
    job = client.submit(spec)
    assert job.ref.id.startswith(PREFIX)
    body = world._job(job.ref)["request"]
    grader = {"type": "lambda", "lambda": {"function": GRADER}}
    config = {"grader": grader, "hyperparameters": {"n_epochs": 2, "batch_size": 16}}
    assert body["method"] == {"type": "reinforcement", "reinforcement": config}
    token = client.plan(spec).token
    assert body["metadata"] == {"team": "blue", "cloudtune_token": token, "cloudtune_name": "small-0"}
    assert "suffix" not in body
    assert job.snapshot().name == "small-0"
    assert [one.ref for one in client.backend("bedrock").list()] == [job.ref]


def test_a_job_to_its_checkpoints_events_and_answers(world: OpenWeightWorld, client: Client) -> None:
    job = client.submit(world.spec())
    world.reach(job.ref, JobState.SUCCEEDED)
    events = list(job.events())
    assert events
    assert not any(event.observed for event in events)
    assert any(metric.split == "train" for metric in job.metrics())
    model = job.model()
    assert (model.base, model.needs_deploy) == (MODEL, False)
    kept = job.checkpoints()
    assert kept
    assert kept[-1].uri
    for base in (False, True):
        (answer,) = job.generate(["1 + 1?"], GenerateOptions(max_tokens=8, base=base))
        assert answer.text
        assert answer.model == (MODEL if base else model.id)
    with pytest.raises(UnsupportedError, match="need no deployment"):
        job.deploy()
    job.clear()
    assert not world.uploads()
    assert job.state is JobState.SUCCEEDED


# -- keys, packages, other jobs ----------------------------------------------------------------------------------------


def test_without_a_key_it_is_said_and_no_other_vendors_is_sent(
    world: OpenWeightWorld, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another-vendors")
    client.plan(world.spec())
    with pytest.raises(CredentialsError, match="no Bedrock API key") as refused:
        client.submit(world.spec())
    assert "AWS_BEARER_TOKEN_BEDROCK" in str(refused.value.hint)
    assert not world.calls()
    assert list(client.backend("bedrock").list()) == []  # jobs of other kinds are listed without


def test_another_vendors_organization_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-mine")
    made = open_weight.connected("https://bedrock-mantle.us-west-2.api.aws/v1", 5.0).with_options(max_retries=0)
    sent = {name.lower() for name, value in made.default_headers.items() if isinstance(value, str)}
    assert not sent & {"openai-organization", "openai-project"}


def test_openais_sdk_is_needed_by_this_route_alone(
    world: OpenWeightWorld, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "openai" else there(name, *more)
    )
    with pytest.raises(BackendNotInstalled, match="openai") as refused:
        client.plan(world.spec())
    assert "aws,openai]" in str(refused.value.hint)
    assert list(client.backend("bedrock").list()) == []


def test_the_endpoint_in_the_environment_leads_both_sdks(
    world: OpenWeightWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is injected: what `cloudtune emulate` prints is enough, the key beside it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", world.emulator.url)
    backend = BedrockBackend(BedrockOptions(region="us-west-2"), clock=world.clock)
    client = Client(backend, ledger=f"sqlite:///{world.root}/ledger.db", clock=world.clock)
    job = client.submit(world.spec())
    assert list(world.jobs()) == [job.ref.id]
    assert [one.ref for one in backend.list()] == [job.ref]
    assert world.emulator.url.removeprefix("http://") in job.ref.scope


def test_the_regions_own_address_unless_told_otherwise() -> None:
    sts = type("Sts", (), {"meta": type("Meta", (), {"region_name": "us-west-2", "endpoint_url": ""})()})()
    for given, wanted in (
        ({}, "https://bedrock-mantle.us-west-2.api.aws/v1"),
        ({"endpoint_url": "http://localhost:1"}, "http://localhost:1/v1"),
        ({"open_weight_url": "https://proxy/openai/v1/"}, "https://proxy/openai/v1"),
    ):
        options = BedrockOptions.model_validate(given)
        route = open_weight.OpenWeight(Clients(options, lambda service: sts), options, FakeClock())
        assert route.address() == wanted


def test_doctor_looks_at_the_key(world: OpenWeightWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    def verdicts() -> dict[str, str]:
        backend = world.backend()
        assert isinstance(backend, Preflight)
        return {check.what: check.verdict for check in backend.preflight(world.spec())}

    good = {"identity": "good", "region": "good", "API key": "good"}
    assert verdicts() == good
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-api-key-of-nobody")
    assert verdicts() == good | {"API key": "denied"}
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK")
    assert verdicts() == good | {"API key": "denied"}


# -- storms ------------------------------------------------------------------------------------------------------------


class TestStorms(JobStorms):
    """Jobs count that are not cancelled; files when the submit has ended."""

    fault_mix = DIALECT
    sends = DIALECT_SENDS
    seeds = range(6)
    counts_again = False
    world = OpenWeightWorld

    def alive(self, world: OpenWeightWorld) -> Sequence[str]:
        return world.alive()


@pytest.mark.parametrize("call", DIALECT_SENDS)
@pytest.mark.parametrize("kind", ["lost_reply", "twice"])
def test_a_lost_or_doubled_send_is_found_before_a_second_try(
    world: OpenWeightWorld, client: Client, call: str, kind: str
) -> None:
    world.emulator.faults.add(kind, call)
    ref = stubborn(client, world.spec())
    assert list(world.alive()) == [ref.id]
    assert len(world.uploads()) == 1


@pytest.mark.parametrize("call", DIALECT_SENDS)
def test_whoever_does_not_look_first_makes_two(world: OpenWeightWorld, call: str) -> None:
    """The counting can fail: a back end that never finds anything is caught by a single lost reply."""
    blind(world, call)
    made = world.jobs() if call == "jobs.create" else [f for f in world.emulator.requests if f["call"] == call]
    assert len(made) == 2
