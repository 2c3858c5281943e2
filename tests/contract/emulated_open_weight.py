"""The `World` of Bedrock's jobs on open-weight models: OpenAI's SDK against the emulator, with a Bedrock API key.

AWS's own SDK is asked for the account alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.contract.emulated import EmulatedWorld
from tests.contract.emulated_aws import connected

from cloudtune.spec import JobSpec
from cloudtune.testing.clock import FakeClock
from cloudtune_emulator import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune.backend import Backend
    from cloudtune.clock import Clock
    from cloudtune.state import JobRef
    from cloudtune.testing.world import CallName

KEY = "bedrock-api-key-3c8f5d41402abc4b2a76b9719d9110"
SECRET = "emulated-1b7d5d41402abc4b2a76b9719d911017c592"
REGION = "us-west-2"
MODEL = "openai.gpt-oss-20b"
GRADER = "arn:aws:lambda:us-west-2:123456789012:function:grade"
PREFIX = "rft/"


def open_bedrock(url: str, clock: str, **options: Any) -> tuple[Backend, Clock]:
    """The recipe: a new back end object, on the clock whose hands lie in that file. No bucket, no role."""
    from cloudtune_providers.bedrock import open_weight
    from cloudtune_providers.bedrock.backend import BedrockBackend
    from cloudtune_providers.bedrock.options import BedrockOptions

    hands = FakeClock(path=Path(clock))
    settings = BedrockOptions.model_validate({"region": REGION} | options)
    made = BedrockBackend(
        settings,
        factory=connected(url, REGION).client,
        connect=lambda address: open_weight.connected(address, settings.timeout).with_options(base_url=f"{url}/v1"),
        clock=hands,
    )
    return made, hands


class OpenWeightWorld(EmulatedWorld):
    """Reinforcement on gpt-oss."""

    api = "mantle"
    recipe_target = "tests.contract.emulated_open_weight:open_bedrock"
    sdk_modules: Sequence[str] = ("boto3", "botocore", "openai")

    def __init__(self, root: Path, *, list_lag_s: float = 0.0, **options: Any) -> None:
        super().__init__(root, list_lag_s=list_lag_s, **options)
        self.secrets = (KEY, SECRET)
        self.lacks = dict(self.lacks) | {
            "paused": "such a job cannot stand still", "verb:deploy": "such a model answers at once",
        }  # fmt: skip
        self._before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        given = self.emulator.environment() | {"AWS_BEARER_TOKEN_BEDROCK": KEY}
        self._environment({k: v for k, v in given.items() if k.startswith("AWS_") and k != "AWS_ENDPOINT_URL"})

    def _environment(self, given: dict[str, str]) -> None:
        """Keys come from AWS's own places, also in the processes that tests start."""
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        os.environ.update(given)

    def settings(self) -> Settings:
        return Settings(bedrock_api_key=KEY, aws_secret=SECRET)

    def close(self) -> None:
        super().close()
        self._environment(self._before)

    def spec(self, variant: int = 0, **changes: Any) -> JobSpec:
        rows = [{"messages": [{"role": "user", "content": f"{n} + {variant}?"}], "reference_answer": {"n": str(n)}}
                for n in range(100)]  # fmt: skip
        given: dict[str, Any] = changes.pop("overrides", {})
        overrides = given | {"bedrock": {"grader": GRADER} | given.get("bedrock", {})}
        document: dict[str, Any] = {
            "name": f"small-{variant}", "model": MODEL, "method": "rft",
            "overrides": overrides, "data": {"train": self.rows(f"train-{variant}", rows)},
        }  # fmt: skip
        return JobSpec.model_validate(document | changes)

    def _job(self, ref: JobRef) -> dict[str, Any]:
        job = self.emulator.store.get(self.kind, self.api, ref.id.removeprefix(PREFIX))
        assert job is not None
        return job

    def jobs(self) -> Sequence[str]:
        return [f"{PREFIX}{job}" for job in super().jobs()]

    def alive(self) -> Sequence[str]:
        return [f"{PREFIX}{job}" for job in super().alive()]

    def calls(self, call: CallName | None = None) -> int:
        """AWS's own calls are only for the account, and are not counted."""
        seen = [one["call"] for one in self.emulator.requests]
        return sum(not one.startswith("sts.") if call is None else one == self.names[call] for one in seen)
