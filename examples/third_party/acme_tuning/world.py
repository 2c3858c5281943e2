"""Acme's service as the contract suite sees it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from acme_tuning.backend import AcmeBackend, AcmeOptions
from cloudtune.clock import SystemClock
from cloudtune.testing import FakeClock, Recipe, ScriptedVendor
from cloudtune.testing.scripted_world import KEY, ScriptedWorld

if TYPE_CHECKING:
    from cloudtune.backend import Backend
    from cloudtune.clock import Clock
    from cloudtune.spec import JobSpec


class AcmeWorld(ScriptedWorld):
    """Implements `World`."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.lacks = {"sdk": "the service is called without a package of its own", "paused": "no job can be paused"}

    def recipe(self, **options: Any) -> Recipe:
        """See `World`."""
        return Recipe(target="acme_tuning.world:open_acme", arguments={"root": str(self.root), **options})

    def spec(self, variant: int = 0, **changes: Any) -> JobSpec:
        """See `World`."""
        return super().spec(variant, **({"model": "acme-small-1"} | changes))


def open_acme(root: str, *, real_time: bool = False) -> tuple[Backend, Clock]:
    """The back end over the service whose store lies in that folder, and the clock that lies beside it."""
    clock: Clock = SystemClock() if real_time else FakeClock(path=Path(root) / "clock")
    store = Path(root) / "vendor.db"
    vendor = ScriptedVendor(store, clock=clock, api_key=KEY)
    return AcmeBackend(AcmeOptions(store=store, api_key=SecretStr(KEY)), vendor=vendor), clock
