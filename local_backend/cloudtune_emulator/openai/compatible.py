"""A service that speaks OpenAI's dialect, with its own models, hyperparameters and quirks, from its profile.

The profile is the JSON file of the ``openai`` back end (``cloudtune_providers.openai.service``), read here on its own.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.catalog import Catalog
from cloudtune.errors import ConfigError
from cloudtune.files.regular_file import read_regular
from cloudtune_emulator.http import ApiError

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtune_emulator.context import EmulatorContext

_LARGEST_BYTES = 1 << 20
_KINDS = {"sft": "supervised", "dpo": "dpo", "rft": "reinforcement"}
_COUNTED = ("hyperparameters.epochs", "hyperparameters.batch_size")
_OWN_FIELDS = ("fine_tuned_model", "metadata", "user_provided_suffix")


class Profile(msgspec.Struct, frozen=True):
    """The parts of a profile that decide about requests."""

    parameters: dict[str, str]
    adapters: dict[str, dict[str, Any]]
    metadata: bool
    catalog: Catalog

    def tunable(self) -> dict[str, frozenset[str]]:
        """Its models, and with which methods they can be tuned."""
        return {model.id: frozenset(_KINDS[name] for name in model.methods) for model in self.catalog.models}

    def refuse(self, body: dict[str, Any]) -> None:
        """Refuse fields of OpenAI's request that it does not have. Raises ApiError."""
        if "metadata" in body and not self.metadata:
            raise ApiError(422, "Extra inputs are not permitted: metadata", param="metadata")

    def check(self, hyperparameters: dict[str, Any]) -> None:
        """Refuse unknown hyperparameters, and values out of range. Raises ApiError."""
        known = {*self.parameters.values(), *(name for one in self.adapters.values() for name in one)}
        for name, value in hyperparameters.items():
            entry = self.catalog.range(name)
            fault = "is not known" if name not in known else entry.fault(value) if entry is not None else None
            if fault:
                raise ApiError(422, f"{name} {fault}", param=f"hyperparameters.{name}")

    def local(self, hyperparameters: dict[str, Any]) -> dict[str, Any]:
        """What a local run takes over: hyperparameters and LoRA settings by the names of a spec."""
        found: dict[str, dict[str, Any]] = {"hyperparameters": {}, "adapter": {}}
        for field, name in self.parameters.items():
            part, _, key = field.partition(".")
            if name in hyperparameters and field not in _COUNTED:
                found[part][key] = hyperparameters[name]
        return {"local": found["hyperparameters"], "lora": found["adapter"]}

    def view(self, shown: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
        """The job object: the hyperparameters are those of the request, and fields that it lacks are left out."""
        left = {name: value for name, value in shown.items() if self.metadata or name not in _OWN_FIELDS}
        given = {name: value for name, value in given.items() if name in self.parameters.values()}
        kind = shown["method"]["type"]
        own = {"hyperparameters": given, "suffix": shown["user_provided_suffix"]}
        return left | own | {"method": {"type": kind, kind: {"hyperparameters": given}}}


def profile_of(context: EmulatorContext, api: str) -> Profile | None:
    """The profile in whose dialect the API is served; None = the vendor's own."""
    path = context.settings.service
    return None if path is None or api != "openai" else _read(path)


@cache
def _read(path: Path) -> Profile:
    try:
        return msgspec.json.decode(read_regular(path, _LARGEST_BYTES), type=Profile)
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{path} is not a profile of a service: {error}") from error
