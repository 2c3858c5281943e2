"""The `World` of the OpenAI-compatible back ends: the real SDK over HTTP against the emulator with its script engine.

The emulator lives in the test process, on a clock that all processes of the test share.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from cloudtune.spec import JobSpec
from cloudtune.state import JobState
from cloudtune.testing.clock import FakeClock
from cloudtune.testing.faults import FOREVER
from cloudtune.testing.world import Recipe
from cloudtune_emulator import Emulator, Settings
from cloudtune_emulator.job_timeline import Script
from cloudtune_providers.openai_dialect.tokens import OpenAITokens

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloudtune.backend import Backend
    from cloudtune.clock import Clock
    from cloudtune.state import JobRef
    from cloudtune.testing.faults import Fault
    from cloudtune.testing.world import CallName
    from cloudtune_emulator.job_timeline import JobStatus

KEY = "sk-emulated-5d41402abc4b2a76b9719d911017c592"
MODEL = "gpt-4.1-mini-2025-04-14"
RUNS_S = 100_000.0
PAUSING_S = 2.0
_CALLS: dict[CallName, str] = {
    "upload": "files.create", "create": "jobs.create", "get": "jobs.get", "list": "jobs.list",
    "events": "jobs.events", "cancel": "jobs.cancel",
}  # fmt: skip
_FAULTS = {"repeat": "duplicate_event", "partial": "list_lag"}


LOAD_OPENAI = f"{__name__}:load_openai"


def load_openai() -> None:
    """Import the SDK and read the tokenizer's files, which takes seconds."""
    import openai.resources.fine_tuning  # noqa: F401

    OpenAITokens("o200k_base").count([])


def open_openai(url: str, clock: str, **options: Any) -> tuple[Backend, Clock]:
    """The recipe: a new back end object, on the clock whose hands lie in that file.

    The port changes from test to test, and stands neither in the scope nor in the snapshot: the client is injected.
    """
    from cloudtune_providers.openai.backend import OpenAIBackend, connected
    from cloudtune_providers.openai.options import OpenAIOptions

    hands = FakeClock(path=Path(clock))
    settings = OpenAIOptions.model_validate({"api_key": KEY, "base_url": "http://localhost/v1"} | options)
    return OpenAIBackend(
        settings, connect=lambda o: connected(o).with_options(base_url=f"{url}/v1"), clock=hands
    ), hands


class EmulatedWorld:
    """Implements `World`. ``options`` are the back end's."""

    api = "openai"
    kind = "job"
    """The shelf of the emulator's store that jobs lie on."""
    names: Mapping[CallName, str] = _CALLS
    recipe_target = "tests.contract.emulated:open_openai"
    sdk_modules: Sequence[str] = ("openai",)

    def __init__(self, root: Path, *, list_lag_s: float = 0.0, **options: Any) -> None:
        from openai.types.fine_tuning import FineTuningJob  # here, since a child may have to do without it

        self.root = root
        self.secrets: Sequence[str] = (KEY,)
        self.words = (*get_args(FineTuningJob.model_fields["status"].annotation), "paused", "pausing")
        self.folders: Sequence[Path] = ()
        self.lacks: Mapping[str, str] = {"expired": "the service stops no job by a limit"}
        self.clock: Clock = FakeClock(path=root / "clock")
        self.backends = ExitStack()
        self.options = options
        self.emulator = Emulator(self.settings(), clock=self.clock).start()
        self.emulator.script = Script(running_s=RUNS_S, pausing_s=PAUSING_S)
        self.list_lag_s = list_lag_s
        if list_lag_s:
            for call in ("jobs.list", "files.list"):
                self.emulator.faults.add("list_lag", call, seconds=list_lag_s)

    def settings(self) -> Settings:
        return Settings(api_key=KEY, azure_key=KEY)

    def close(self) -> None:
        self.backends.close()
        self.emulator.app.deliver_delayed()  # what is still on its way holds its file open
        self.emulator.stop()

    def backend(self) -> Backend:
        made, _ = self.recipe().make()
        self.backends.callback(made.close)  # type: ignore[attr-defined]
        return made

    def recipe(self) -> Recipe:
        arguments = {"url": self.emulator.url, "clock": str(self.root / "clock")} | self.options
        return Recipe(target=self.recipe_target, arguments=arguments)

    # -- jobs ------------------------------------------------------------------------------------------------------

    def spec(self, variant: int = 0, **changes: Any) -> JobSpec:
        method = changes.get("method", {}).get("name", "sft")
        rows = [_ROWS.get(method, _chat)(n, variant) for n in range(12)]
        document: dict[str, Any] = {"name": f"small-{variant}", "model": MODEL}
        document["data"] = {"train": self.rows(f"train-{method}-{variant}", rows)}
        return JobSpec.model_validate(document | changes)

    def too_long(self) -> tuple[JobSpec, int]:
        rows = [{"prompt": f"{n}?", "completion": "word " * (70_000 if n == 3 else 5)} for n in range(12)]
        return self.spec(name="long", data={"train": self.rows("long", rows)}), 4

    def rows(self, name: str, rows: list[dict[str, Any]]) -> str:
        path = self.root / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    def reach(self, ref: JobRef, state: JobState, *, message: str = "") -> None:
        clock = self.emulator.clock
        match state:
            case JobState.PREPARING:
                return
            case JobState.QUEUED:
                self._until(ref, "queued")
            case JobState.RUNNING:
                if self._word(ref) in ("pausing", "paused"):
                    self._act(ref, "resume")
                self._until(ref, "running")
                clock.advance(50.0)
            case JobState.PAUSED:
                if self._word(ref) not in ("pausing", "paused"):
                    self._act(ref, "pause")
                self.settle(ref)
            case JobState.FAILED:
                self._fail(ref, message)
            case JobState.CANCELLED:
                if self._word(ref) != "cancelled":
                    self._act(ref, "cancel")
            case JobState.SUCCEEDED:
                self._until(ref, "running")
                clock.advance(2 * RUNS_S)
            case _:
                raise ValueError(f"a job cannot be brought to {state}")

    def settle(self, ref: JobRef) -> None:
        self.emulator.clock.advance(PAUSING_S + 1)

    def _job(self, ref: JobRef) -> dict[str, Any]:
        job = self.emulator.store.get(self.kind, self.api, ref.id)
        assert job is not None
        return job

    def _word(self, ref: JobRef) -> str:
        return self.status(self._job(ref)).word

    def status(self, job: dict[str, Any]) -> JobStatus:
        return self.emulator.context.engine.status(job, self.emulator.clock.now())

    def _until(self, ref: JobRef, word: str) -> None:
        for _ in range(20):
            if self._word(ref) in (word, "running", "succeeded"):
                return
            self.emulator.clock.advance(0.5)
        raise AssertionError(f"{ref} is {self._word(ref)}, and not {word}")

    def _act(self, ref: JobRef, kind: str) -> None:
        job = self._job(ref)
        self.emulator.context.engine.act(job, kind, self.emulator.clock.now())
        self.emulator.store.save(self.kind, self.api, job)

    def _fail(self, ref: JobRef, message: str) -> None:
        job = self._job(ref)
        now = self.emulator.clock.now()
        started = self.status(job).started_at or now
        job["script"]["fail_at"] = (now - started + 1.0) / RUNS_S
        job["script"]["error_message"] = message
        self.emulator.store.save(self.kind, self.api, job)
        self.emulator.clock.advance(2.0)

    def show(self, ref: JobRef, word: str) -> None:
        self._forget("invented_status")
        self.emulator.faults.add("invented_status", self.names["get"], value=word)

    # -- faults ----------------------------------------------------------------------------------------------------

    def fail(self, call: CallName, fault: Fault) -> None:
        kind = _FAULTS.get(fault.kind, fault.kind)
        times = None if fault.times >= FOREVER else fault.times
        details: dict[str, Any] = {"seconds": fault.seconds, "times": times or FOREVER}
        if kind == "server_error":
            details["status"] = 503
        if kind == "forbidden":
            details["message"] = f"The key {self.secrets[0]} may not do this."
        self.emulator.faults.add(kind, self.names[call], **details)

    def heal(self) -> None:
        self.emulator.faults.clear()

    def _forget(self, kind: str) -> None:
        kept = [fault for fault in self.emulator.faults.armed if fault.kind != kind]
        self.emulator.faults.clear()
        for fault in kept:
            self.emulator.faults.add(fault)

    # -- the vendor's own store ------------------------------------------------------------------------------------

    def jobs(self) -> Sequence[str]:
        return [job["id"] for job in self.emulator.store.all(self.kind, self.api)]

    def alive(self) -> Sequence[str]:
        """Ids of the jobs that were not cancelled."""
        jobs = self.emulator.store.all(self.kind, self.api)
        return [job["id"] for job in jobs if self.status(job).word != "cancelled"]

    def uploads(self) -> Sequence[str]:
        files = self.emulator.store.all("file", self.api)
        return [file["id"] for file in files if file["purpose"] == "fine-tune"]

    def calls(self, call: CallName | None = None) -> int:
        return sum(call is None or seen["call"] == self.names[call] for seen in self.emulator.requests)

    def received(self) -> Sequence[Any]:
        wanted = (self.names["create"], "files.create", "uploads.create")
        acted = [seen for seen in self.emulator.requests if seen["acted"] and seen["call"] in wanted]
        names = [{"filename": seen["files"]["file"]} if seen["files"] else {} for seen in acted]
        return [seen["body"] | name for seen, name in zip(acted, names, strict=True)]

    def fingerprint(self) -> str:
        held: list[Any] = [self.uploads()]
        held += [[job["id"], job["request"], job["acts"]] for job in self.emulator.store.all("job", self.api)]
        held += [kept["id"] for kind in ("upload", "deployment") for kept in self.emulator.store.all(kind, self.api)]
        return hashlib.sha256(msgspec.json.encode(held)).hexdigest()


def _chat(n: int, variant: int) -> dict[str, Any]:
    return {"prompt": f"What is {n} plus {variant}?", "completion": f"{n + variant}"}


def _pair(n: int, variant: int) -> dict[str, Any]:
    return {"prompt": f"What is {n} plus {variant}?", "chosen": f"{n + variant}", "rejected": f"{n - variant - 1}"}


_ROWS = {"sft": _chat, "dpo": _pair}


# -- Azure -----------------------------------------------------------------------------------------------------------

TOKEN = "entra-7f1c2d3e4b5a69788796a5b4c3d2e1f0"
VERSION = "2025-04-01-preview"


def open_azure(url: str, clock: str, **options: Any) -> tuple[Backend, Clock]:
    """The recipe: as `open_openai`, with both planes at the emulator."""
    from cloudtune_providers.azure_openai.backend import AzureOpenAIBackend
    from cloudtune_providers.azure_openai.options import AzureOpenAIOptions
    from cloudtune_providers.azure_openai.signing import connected

    hands = FakeClock(path=Path(clock))
    given = {"api_key": KEY, "endpoint": "http://localhost", "management_url": url, "management_token": TOKEN} | _PLACE
    settings = AzureOpenAIOptions.model_validate(given | options)
    there = settings.model_copy(update={"endpoint": url})
    return AzureOpenAIBackend(settings, connect=lambda _: connected(there), clock=hands), hands


_PLACE = {
    "subscription_id": "00000000-0000-0000-0000-000000000000", "resource_group": "emulated", "account": "emulated",
    "base_deployment": "the-base", "training_type": "Standard",
}  # fmt: skip


class AzureWorld(EmulatedWorld):
    """The Azure API. The base model is deployed already, as by a person in the portal."""

    api = "azure"
    recipe_target = "tests.contract.emulated:open_azure"
    sdk_modules: Sequence[str] = ("openai", "azure")
    deploying_s = 0.0

    def __init__(self, root: Path, **more: Any) -> None:
        super().__init__(root, **more)
        self.secrets = (KEY, TOKEN)
        self.lacks = {**self.lacks, "row_limit": "Microsoft documents no limit of tokens in a row"}
        self.words = (*self.words, "pending", "notRunning", "resuming", "canceled")
        model = {"format": "OpenAI", "name": MODEL, "version": "1"}
        self.emulator.store.add(
            "deployment", self.api,
            {"id": "the-base", "created": 0, "used": 0, "deleting": None, "sku": {"name": "Standard"}, "tags": None,
             "model": model, "properties": {"model": model}},
        )  # fmt: skip

    def spec(self, variant: int = 0, **changes: Any) -> JobSpec:
        if changes.get("method", {}).get("name") != "rft" or "data" in changes:
            return super().spec(variant, **changes)
        rows = [{"messages": [{"role": "user", "content": f"{n} + {variant}?"}], "answer": str(n)} for n in range(12)]
        data = {"train": self.rows(f"items-{variant}", rows), "validation": self.rows("held-out", rows[:3])}
        grader = {"type": "string_check", "name": "same", "operation": "eq", "input": "{{sample.output_text}}",
                  "reference": "{{item.answer}}"}  # fmt: skip
        more = {"model": "o4-mini-2025-04-16", "data": data, "overrides": {"azure_openai": {"grader": grader}}}
        return super().spec(variant, **more | changes)

    def settings(self) -> Settings:
        return Settings(azure_key=KEY, azure_token=TOKEN, deploying_s=self.deploying_s)
