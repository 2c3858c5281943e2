"""The scripted back end's settings, and what a spec may say in its own words."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, PositiveFloat, SecretStr

from cloudtune.config.option_types import Credential, Safe, WrittenPath
from cloudtune.testing.vendor import Personality


class ScriptedOptions(BaseModel):
    """Where the vendor's store lies, and the key to it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    store: WrittenPath[Path | None] = None
    """A file that several processes may share; without one the vendor lives in this process's memory."""
    personality: Safe[Personality] = "token"
    api_key: Credential[SecretStr] = SecretStr("scripted-key")
    needs: Safe[str] = ""
    """A module that it pretends to need, to see what happens where that is not installed."""


class ScriptedOverrides(BaseModel):
    """What the vendor takes in its own words."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate_multiplier: PositiveFloat | None = None
    lane: str | None = None
