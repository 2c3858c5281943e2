"""The `World` of the back ends on AWS: boto3 over HTTP against the emulator with its script engine, S3 and IAM of moto.

`AwsWorld` has the shared parts: the account, the bucket, the role, faults and counts. Each service's world implements
how its jobs are found and advanced.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.spec import JobSpec
from cloudtune.state import JobState
from cloudtune.testing.clock import FakeClock
from cloudtune.testing.faults import FOREVER
from cloudtune.testing.world import Recipe
from cloudtune_emulator import Emulator, Settings
from cloudtune_emulator.job_timeline import Script

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cloudtune.backend import Backend
    from cloudtune.clock import Clock
    from cloudtune.state import JobRef
    from cloudtune.testing.faults import Fault
    from cloudtune.testing.world import CallName
    from cloudtune_emulator.job_timeline import JobStatus

SECRET = "emulated-0c9f5d41402abc4b2a76b9719d911017c592"
REGION = "us-east-1"
BUCKET = "cloudtune-emulated"
ROLE = "arn:aws:iam::123456789012:role/cloudtune-emulated"
NOVA = "amazon.nova-lite-v1:0:300k"
RUNS_S = 100_000.0
STOPPING_S = 2.0
_FAULTS = {"repeat": "duplicate_event", "partial": "list_lag"}


def connected(url: str, region: str) -> Any:
    """Clients whose endpoint is the emulator: its port changes from test to test, and is not part of a plan."""
    return _connected(url, region, os.environ.get("AWS_ACCESS_KEY_ID", ""))


@functools.lru_cache(maxsize=4)
def _connected(url: str, region: str, key: str) -> Any:
    # A port comes again with another emulator's keys, which the session of these clients would not read.
    from cloudtune_providers.aws.clients import Clients
    from cloudtune_providers.aws.options import AwsOptions

    return Clients(AwsOptions(region=region, endpoint_url=url))


def open_bedrock(url: str, clock: str, **options: Any) -> tuple[Backend, Clock]:
    """The recipe: a new back end object, on the clock whose hands lie in that file."""
    from cloudtune_providers.bedrock.backend import BedrockBackend
    from cloudtune_providers.bedrock.options import BedrockOptions

    hands = FakeClock(path=Path(clock))
    given = {"region": REGION, "bucket": BUCKET, "role_arn": ROLE} | options
    settings = BedrockOptions.model_validate(given)
    return BedrockBackend(settings, factory=connected(url, given["region"]).client, clock=hands), hands


class AwsWorld:
    """Most of `World`. ``options`` are the back end's."""

    api: str
    kind = "job"
    """The shelf of the emulator's store that the jobs lie on."""
    recipe_target: str
    names: Mapping[CallName, str]
    """Calls of the suite -> those of the service."""
    sdk_modules: Sequence[str] = ("boto3", "botocore")

    def __init__(self, root: Path, *, list_lag_s: float = 0.0, **options: Any) -> None:
        self.root = root
        self.secrets: Sequence[str] = (SECRET,)
        self.folders: Sequence[Path] = ()
        self.lacks: Mapping[str, str] = {}
        self.clock: Clock = FakeClock(path=root / "clock")
        self.backends = ExitStack()
        self.options = options
        self.emulator = Emulator(self.settings(), clock=self.clock).start()
        self.emulator.script = Script(running_s=RUNS_S, stopping_s=STOPPING_S)
        self.list_lag_s = list_lag_s
        if list_lag_s:
            self.emulator.faults.add("list_lag", self.names["list"], seconds=list_lag_s)
        self._before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        self._environment(self.emulator.environment())

    def _environment(self, given: Mapping[str, str]) -> None:
        """Credentials come from AWS's own chain, also in the processes that tests start; the endpoint does not."""
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        os.environ.update({k: v for k, v in given.items() if k.startswith("AWS_") and k != "AWS_ENDPOINT_URL"})

    def settings(self) -> Settings:
        return Settings(deploying_s=0.0, aws_secret=SECRET)

    @property
    def words(self) -> Iterable[str]:
        raise NotImplementedError

    def close(self) -> None:
        self.backends.close()
        self.emulator.app.deliver_delayed()  # what is still on its way holds its file open
        self.emulator.stop()
        self._environment(self._before)
        os.environ.update(self._before)

    def backend(self) -> Backend:
        made, _ = self.recipe().make()
        self.backends.callback(made.close)  # type: ignore[attr-defined]
        return made

    def recipe(self) -> Recipe:
        arguments = {"url": self.emulator.url, "clock": str(self.root / "clock")} | self.options
        return Recipe(target=self.recipe_target, arguments=arguments)

    def rows(self, name: str, rows: list[dict[str, Any]]) -> str:
        path = self.root / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    # -- jobs --------------------------------------------------------------------------------------------------------

    def job(self, ref: JobRef) -> dict[str, Any]:
        """The job's document in the emulator's store."""
        raise NotImplementedError

    def status(self, job: dict[str, Any]) -> JobStatus:
        """The state of a job."""
        return self.emulator.context.engine.status(job, self.emulator.clock.now())

    def save(self, job: dict[str, Any]) -> None:
        self.emulator.store.save(self.kind, self.api, job)

    def reach(self, ref: JobRef, state: JobState, *, message: str = "") -> None:
        clock = self.emulator.clock
        match state:
            case JobState.PREPARING | JobState.QUEUED:
                return
            case JobState.RUNNING:
                self.until(ref, "running")
                clock.advance(50.0)
            case JobState.FAILED:
                self.fail_job(ref, message)
            case JobState.CANCELLED:
                if self.status(self.job(ref)).word != "cancelled":
                    self.cancel_job(ref)
                self.settle(ref)
            case JobState.SUCCEEDED:
                self.until(ref, "running")
                clock.advance(2 * RUNS_S)
            case _:
                raise ValueError(f"a job cannot be brought to {state}")

    def settle(self, ref: JobRef) -> None:
        self.emulator.clock.advance(STOPPING_S + 1)

    def until(self, ref: JobRef, word: str) -> None:
        for _ in range(40):
            if self.status(self.job(ref)).word in (word, "running", "succeeded"):
                return
            self.emulator.clock.advance(0.5)
        raise AssertionError(f"{ref} is {self.status(self.job(ref)).word}, and not {word}")

    def cancel_job(self, ref: JobRef) -> None:
        job = self.job(ref)
        self.emulator.context.engine.act(job, "cancel", self.emulator.clock.now())
        self.save(job)

    def fail_job(self, ref: JobRef, message: str) -> None:
        job = self.job(ref)
        now = self.emulator.clock.now()
        started = self.status(job).started_at or now
        job["script"]["fail_at"] = (now - started + 1.0) / RUNS_S
        job["script"]["error_message"] = message
        self.save(job)
        self.emulator.clock.advance(2.0)

    def show(self, ref: JobRef, word: str) -> None:
        for call in (self.names["get"], self.names["list"]):
            self._forget("invented_status", call)
            self.emulator.faults.add("invented_status", call, value=word)

    # -- faults ------------------------------------------------------------------------------------------------------

    def fail(self, call: CallName, fault: Fault) -> None:
        kind = _FAULTS.get(fault.kind, fault.kind)
        times = None if fault.times >= FOREVER else fault.times
        details: dict[str, Any] = {"seconds": fault.seconds, "times": times or FOREVER}
        if kind == "server_error":
            details["status"] = 503
        if kind == "forbidden":
            details["message"] = "The caller may not do this."  # a signature's secret never travels
        self.emulator.faults.add(kind, self.names[call], **details)

    def heal(self) -> None:
        self.emulator.faults.clear()

    def _forget(self, kind: str, call: str) -> None:
        kept = [fault for fault in self.emulator.faults.armed if (fault.kind, fault.call) != (kind, call)]
        self.emulator.faults.clear()
        for fault in kept:
            self.emulator.faults.add(fault)

    # -- the vendor's own store --------------------------------------------------------------------------------------

    def held(self) -> list[tuple[str, str]]:
        """Every object in the bucket: its key, and a hash of its bytes."""
        from cloudtune_emulator.aws import buckets

        place = buckets.Place(BUCKET, "")
        context = self.emulator.context
        return [(key, hashlib.sha256(buckets.get(context, place._replace(key=key))).hexdigest())
                for key, _ in buckets.keys(context, place)]  # fmt: skip

    def begun(self) -> int:
        """Multipart uploads that were neither completed nor given up."""
        return len(self.emulator.context.aws.backend("s3").get_bucket(BUCKET).multiparts)

    def uploads(self) -> Sequence[str]:
        return [key for key, _ in self.held() if "/data/" in key]

    def jobs(self) -> Sequence[str]:
        return [job["name"] for job in self.emulator.store.all(self.kind, self.api)]

    def alive(self) -> Sequence[str]:
        """Names of the jobs that were not cancelled."""
        return [job["name"] for job in self.emulator.store.all(self.kind, self.api)
                if self.status(job).word != "cancelled"]  # fmt: skip

    def calls(self, call: CallName | None = None) -> int:
        return sum(call is None or seen["call"] == self.names[call] for seen in self.emulator.requests)

    def received(self) -> Sequence[Any]:
        acted = [seen for seen in self.emulator.requests if seen["acted"]]
        bodies: list[Any] = [seen["body"] for seen in acted if seen["call"] == self.names["create"]]
        return [_object(seen) for seen in acted if seen["call"] == "s3.PutObject"] + bodies

    def fingerprint(self) -> str:
        self.emulator.settle()
        store = self.emulator.store
        kinds = ("token", "custom_model", "custom_deployment", "provisioned", "import", "imported_model")
        held: list[Any] = [self.held(), self.begun()]
        held += [[job["id"], job["request"], job["acts"]] for job in store.all(self.kind, self.api)]
        held += [one["id"] for kind in kinds for one in store.all(kind, self.api)]
        return hashlib.sha256(msgspec.json.encode(held)).hexdigest()


def _object(seen: Mapping[str, Any]) -> dict[str, Any]:
    """An object's request in the form of a plan's step, without the path on this machine."""
    reported = seen["body"]
    below, sha256, name = reported["Key"].rsplit("/", 2)
    assert bytes.fromhex(sha256) == base64.b64decode(reported["x-amz-checksum-sha256"])
    return {
        "call": "s3.put_object", "bucket": reported["Bucket"], "below": below, "name": name, "path": "here",
        "sha256": sha256, "bytes": reported["bytes"],
    }  # fmt: skip


def chat(n: int, variant: int) -> dict[str, Any]:
    return {"prompt": f"What is {n} plus {variant}?", "completion": f"{n + variant}"}


class BedrockWorld(AwsWorld):
    """Customization jobs on Nova."""

    api = "bedrock"
    recipe_target = "tests.contract.emulated_aws:open_bedrock"
    names: Mapping[CallName, str] = {
        "upload": "s3.PutObject", "create": "bedrock.CreateModelCustomizationJob",
        "get": "bedrock.GetModelCustomizationJob", "list": "bedrock.ListModelCustomizationJobs",
        "events": "bedrock.none", "cancel": "bedrock.StopModelCustomizationJob",
    }  # fmt: skip

    def __init__(self, root: Path, **more: Any) -> None:
        super().__init__(root, **more)
        self.lacks = {
            "expired": "the service stops no job by a limit", "paused": "Bedrock jobs cannot be paused",
        }  # fmt: skip

    @property
    def words(self) -> Iterable[str]:
        from botocore.session import get_session

        return tuple(get_session().get_service_model("bedrock").shape_for("ModelCustomizationJobStatus").enum)

    def spec(self, variant: int = 0, **changes: Any) -> JobSpec:
        method = changes.get("method", {}).get("name", "sft")
        rows = [chat(n, variant) for n in range(12)]
        document: dict[str, Any] = {"name": f"small-{variant}", "model": NOVA}
        if method == "rft":
            rows = [{"messages": [{"role": "user", "content": f"{n} + {variant}?"}], "reference_answer": {"n": str(n)}}
                    for n in range(100)]  # fmt: skip
            grader = "arn:aws:lambda:us-east-1:123456789012:function:grade"
            document |= {"model": "amazon.nova-2-lite-v1:0:256k", "overrides": {"bedrock": {"grader": grader}}}
        if method == "distill":
            rows = [{"prompt": f"{n} + {variant}?"} for n in range(95)] + [chat(n, variant) for n in range(5)]
            document["overrides"] = {"bedrock": {"teacher": "amazon.nova-pro-v1:0"}}
        document["data"] = {"train": self.rows(f"train-{method}-{variant}", rows)}
        return JobSpec.model_validate(document | changes)

    def too_long(self) -> tuple[JobSpec, int]:
        rows = [{"prompt": f"{n}?", "completion": "word " * (70_000 if n == 3 else 5)} for n in range(12)]
        return self.spec(name="long", data={"train": self.rows("long", rows)}), 4

    def job(self, ref: JobRef) -> dict[str, Any]:
        found = next(job for job in self.emulator.store.all("job", "bedrock") if job["name"] == ref.id)
        assert isinstance(found, dict)
        return found
