"""The scripted back end's settings, and its overrides in a spec."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, PositiveFloat, SecretStr

from cloudtune.config.option_types import Credential, Safe, WrittenPath
from cloudtune.testing.vendor import Personality


class ScriptedOptions(BaseModel):
    """The vendor's store, and the key to it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    store: WrittenPath[Path | None] = None
    """A file that several processes can share; without one the vendor is in this process's memory."""
    personality: Safe[Personality] = "token"
    api_key: Credential[SecretStr] = SecretStr("scripted-key")
    usd_per_hour: Safe[PositiveFloat | None] = None
    """The price of an hour of training. A job that reaches its limit of cost is stopped, and keeps its checkpoints."""
    needs: Safe[str] = ""
    """A module that it pretends to require, for tests of a missing module."""


class ScriptedOverrides(BaseModel):
    """The overrides of a spec."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate_multiplier: PositiveFloat | None = None
    lane: str | None = None
