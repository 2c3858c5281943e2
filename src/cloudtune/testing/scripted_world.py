"""The scripted vendor for the contract suite, and an example of a `World`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from cloudtune.clock import SystemClock
from cloudtune.spec import JobSpec
from cloudtune.state import JobState
from cloudtune.testing.clock import FakeClock
from cloudtune.testing.job_timeline import Script, Word
from cloudtune.testing.scripted import ScriptedBackend
from cloudtune.testing.scripted_options import ScriptedOptions
from cloudtune.testing.translation import ROW_LIMIT_CHARS
from cloudtune.testing.vendor import Personality, ScriptedVendor
from cloudtune.testing.world import Recipe, named

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloudtune.backend import Backend
    from cloudtune.clock import Clock
    from cloudtune.state import JobRef
    from cloudtune.testing.faults import Fault
    from cloudtune.testing.world import CallName

KEY = "sk-scripted-5d41402abc4b2a76"
_CALLS: dict[str, tuple[str, ...]] = {
    "upload": ("put_file", "post_file", "put_part", "begin_upload", "finish_upload"),
    "create": ("create_job",),
    "get": ("get_job",),
    "list": ("list_jobs",),
    "events": ("list_events",),
    "cancel": ("cancel_job",),
}
_SLOW = Script(queue_s=3600, prepare_s=3600, step_s=60)
"""Nothing happens to a job but what the test makes happen, however long a submission has to wait for a list."""
_UPLOAD = {"token": "put_file", "unique_names": "finish_upload", "neither": "post_file"}


def open_scripted(root: str, *, real_time: bool = False, backend: str = "", **options: Any) -> tuple[Backend, Clock]:
    """The recipe: the back end over the vendor with its store in that folder, and the clock beside it.

    ``backend`` names another class to use, as ``module:Class``.
    """
    clock: Clock = SystemClock() if real_time else FakeClock(path=Path(root) / "clock")
    vendor = ScriptedVendor(Path(root) / "vendor.db", clock=clock, api_key=KEY)
    cls: type[ScriptedBackend] = named(backend) if backend else ScriptedBackend
    return cls(ScriptedOptions(api_key=SecretStr(KEY), **options), vendor=vendor), clock


class ScriptedWorld:
    """Implements `World`. ``vendor`` has keyword arguments of `ScriptedVendor`."""

    def __init__(
        self,
        root: Path,
        personality: Personality = "token",
        *,
        real_time: bool = False,
        backend: str = "",
        **vendor: Any,
    ) -> None:
        self.root = root
        self.secrets = (KEY,)
        self.words = tuple(Word)
        self.sdk_modules = ("wave",)  # any module that nothing else here needs
        self.folders: tuple[Path, ...] = ()
        self.lacks: Mapping[str, str] = {}
        self._real_time, self._backend = real_time, backend
        self.clock: Clock = SystemClock() if real_time else FakeClock(path=root / "clock")
        path = root / "vendor.db"
        self.vendor = ScriptedVendor(path, personality=personality, clock=self.clock, api_key=KEY, **vendor)
        self.vendor.follow(_SLOW)
        self.list_lag_s = self.vendor.list_lag_s

    def backend(self) -> Backend:
        """See `World`."""
        return self.recipe().make()[0]

    def recipe(self, **options: Any) -> Recipe:
        """See `World`."""
        options |= {"root": str(self.root), "real_time": self._real_time, "backend": self._backend, "needs": "wave"}
        return Recipe(target="cloudtune.testing.scripted_world:open_scripted", arguments=options)

    def spec(self, variant: int = 0, **changes: Any) -> JobSpec:
        """See `World`."""
        rows = [{"prompt": f"What is {n} plus {variant}?", "completion": f"{n + variant}"} for n in range(12)]
        held_out = [{"prompt": f"And {n} times {variant}?", "completion": f"{n * variant}"} for n in range(3)]
        document: dict[str, Any] = {"name": f"small-{variant}", "model": "tiny-1"}
        document["data"] = {"train": self._rows(f"train-{variant}", rows)}
        if changes.pop("with_validation", False):
            document["data"]["validation"] = {"path": self._rows(f"validation-{variant}", held_out)}
        return JobSpec.model_validate(document | changes)

    def too_long(self) -> tuple[JobSpec, int]:
        """See `World`."""
        rows = [{"prompt": f"{n}?", "completion": "x" * (ROW_LIMIT_CHARS + 1 if n == 3 else 5)} for n in range(6)]
        return self.spec(name="long", data={"train": self._rows("long", rows)}), 4

    def _rows(self, name: str, rows: list[dict[str, Any]]) -> str:
        path = self.root / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    def reach(self, ref: JobRef, state: JobState, *, message: str = "") -> None:
        """See `World`."""
        start = _SLOW.queue_s + _SLOW.prepare_s if self.vendor.status(ref.id).started_at is None else 0.0
        match state:
            case JobState.QUEUED:
                return
            case JobState.PREPARING:
                self.vendor.advance(ref.id, _SLOW.queue_s + 1)
            case JobState.RUNNING:
                self.vendor.advance(ref.id, start + 3 * _SLOW.step_s)
            case JobState.PAUSED:
                self.reach(ref, JobState.RUNNING)
                self.vendor.act(ref.id, "pause")
            case JobState.FAILED:
                self.vendor.act(ref.id, "fail", message)
            case JobState.EXPIRED:
                self.vendor.act(ref.id, "expire", message)
            case JobState.CANCELLED:
                if self.vendor.status(ref.id).word != "Stopping":
                    self.vendor.act(ref.id, "cancel")
                self.clock.sleep(3.0)
            case JobState.SUCCEEDED:
                self.vendor.advance(ref.id, start + (_SLOW.steps + 1) * _SLOW.step_s)
            case _:
                raise ValueError(f"a job cannot be brought to {state}")

    def settle(self, ref: JobRef) -> None:
        """See `World`."""
        self.clock.sleep(_SLOW.stop_s + 1)

    def show(self, ref: JobRef, word: str) -> None:
        """See `World`."""
        self.vendor.show(ref.id, word)

    def fail(self, call: CallName, fault: Fault) -> None:
        """See `World`. For an upload in parts, the request that completes the file fails."""
        self.vendor.fail(_UPLOAD[self.vendor.personality] if call == "upload" else _CALLS[call][0], fault)

    def heal(self) -> None:
        """See `World`."""
        self.vendor.heal()

    def jobs(self) -> Sequence[str]:
        """See `World`."""
        return self.vendor.jobs()

    def uploads(self) -> Sequence[str]:
        """See `World`."""
        return self.vendor.files()

    def calls(self, call: CallName | None = None) -> int:
        """See `World`."""
        return sum(self.vendor.calls(name) for name in (_CALLS[call] if call else ("*",)))

    def received(self) -> Sequence[Any]:
        """See `World`."""
        return [body for name in ("create_job", "put_file", "post_file") for body in self.vendor.received(name)]

    def fingerprint(self) -> str:
        """See `World`."""
        return self.vendor.fingerprint()
