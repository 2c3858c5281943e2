"""The worlds of the back ends whose jobs are SageMaker's training jobs: boto3 over HTTP against the emulator."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from tests.contract.emulated_aws import BUCKET, REGION, ROLE, STOPPING_S, AwsWorld, chat, connected

from cloudtune.spec import JobSpec
from cloudtune.state import JobState
from cloudtune.testing.clock import FakeClock
from cloudtune_emulator.http import Call
from cloudtune_emulator.job_timeline import Script
from cloudtune_emulator.sagemaker import resources

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cloudtune.backend import Backend
    from cloudtune.clock import Clock
    from cloudtune.state import JobRef
    from cloudtune.testing.world import CallName

SHELF = f"sagemaker/{REGION}"
RUNS_S = 40_000.0
"""Less than the day after which a job is stopped unless it says otherwise."""


class TrainingWorld(AwsWorld):
    """Jobs that SageMaker's API moves. Subclasses name the back end and its specs."""

    api = SHELF
    kind = "training_job"
    names: Mapping[CallName, str] = {
        "upload": "s3.PutObject", "create": "sagemaker.CreateTrainingJob", "get": "sagemaker.DescribeTrainingJob",
        "list": "sagemaker.ListTrainingJobs", "events": "logs.FilterLogEvents", "cancel": "sagemaker.StopTrainingJob",
    }  # fmt: skip

    def __init__(self, root: Path, **more: Any) -> None:
        super().__init__(root, **more)
        self.emulator.script = Script(running_s=RUNS_S, stopping_s=STOPPING_S)
        self.lacks = {
            "paused": "training jobs cannot be paused",
            "row_limit": "the service documents no limit of tokens in a row",
        }

    @property
    def words(self) -> Iterable[str]:
        from botocore.session import get_session

        return tuple(get_session().get_service_model("sagemaker").shape_for("TrainingJobStatus").enum)

    # -- jobs --------------------------------------------------------------------------------------------------------

    def job(self, ref: JobRef) -> dict[str, Any]:
        found = self.emulator.store.get(self.kind, self.api, ref.id)
        assert found is not None
        return found

    def standing(self, ref: JobRef) -> tuple[str, str]:
        """Status and secondary status."""
        context = self.emulator.context
        now = context.sagemaker.seen(context, self.job(ref), self.emulator.clock.now()).now
        return now.status, now.secondary

    def reach(self, ref: JobRef, state: JobState, *, message: str = "") -> None:
        clock = self.emulator.clock
        match state:
            case JobState.PREPARING | JobState.QUEUED:
                return
            case JobState.RUNNING:
                self.training(ref)
                clock.advance(50.0)
            case JobState.FAILED:
                self.fail_job(ref, message)
            case JobState.CANCELLED:
                if self.standing(ref)[0] == "InProgress":
                    self.cancel_job(ref)
                self.settle(ref)
            case JobState.EXPIRED:
                self.change(ref, request={"StoppingCondition": {"MaxRuntimeInSeconds": 10}})
                clock.advance(10 + 2 * STOPPING_S)
            case JobState.SUCCEEDED:
                self.training(ref)
                clock.advance(2 * RUNS_S)
            case _:
                raise ValueError(f"a job cannot be brought to {state}")

    def training(self, ref: JobRef) -> None:
        """Until it trains."""
        for _ in range(60):
            if self.standing(ref)[1] in ("Training", "Completed"):
                return
            self.emulator.clock.advance(0.5)
        raise AssertionError(f"{ref} is {self.standing(ref)}")

    def cancel_job(self, ref: JobRef) -> None:
        job = self.job(ref)
        self.emulator.context.sagemaker.stop(self.emulator.context, job, self.emulator.clock.now())
        self.save(job)

    def fail_job(self, ref: JobRef, message: str) -> None:
        self.training(ref)
        job, now = self.job(ref), self.emulator.clock.now()
        seen = self.emulator.context.sagemaker.seen(self.emulator.context, job, now)
        script = {"fail_at": (now - (seen.started or now) + 1.0) / RUNS_S, "error_code": "AlgorithmError"}
        self.change(ref, script=script | {"error_message": message})
        self.emulator.clock.advance(2.0)

    def change(self, ref: JobRef, **parts: dict[str, Any]) -> None:
        """Write into the job's document."""
        job = self.job(ref)
        for part, values in parts.items():
            job[part] |= values
        self.save(job)

    # -- the vendor's own store --------------------------------------------------------------------------------------

    def jobs(self) -> Sequence[str]:
        return [job["id"] for job in self.emulator.store.all(self.kind, self.api)]

    def alive(self) -> Sequence[str]:
        context, now = self.emulator.context, self.emulator.clock.now()
        held = self.emulator.store.all(self.kind, self.api)
        return [job["id"] for job in held if context.sagemaker.seen(context, job, now).now.status != "Stopped"]

    def endpoints(self) -> dict[str, int]:
        """How many models, configurations and endpoints there are."""
        call = Call(api="sagemaker", name="count", region=REGION, now=self.emulator.clock.now())
        kinds = ("sm_model", "sm_config", "sm_endpoint")
        return {kind: len(resources.standing(self.emulator.context, call, kind)) for kind in kinds}

    def received(self) -> Sequence[Any]:
        acted = [seen for seen in self.emulator.requests if seen["acted"]]
        bodies: list[Any] = [seen["body"] for seen in acted if seen["call"] == self.names["create"]]
        return [self.object(seen["body"]) for seen in acted if seen["call"] == "s3.PutObject"] + bodies

    def object(self, reported: Mapping[str, Any]) -> dict[str, Any]:
        """An object's request in the form of a plan's step."""
        sha256 = base64.b64decode(reported["x-amz-checksum-sha256"]).hex()
        return {"call": "s3.put_object", "bucket": reported["Bucket"], "key": reported["Key"], "path": "here",
                "sha256": sha256, "bytes": reported["bytes"]}  # fmt: skip

    def fingerprint(self) -> str:
        self.emulator.settle()
        store = self.emulator.store
        held: list[Any] = [self.held(), self.begun()]
        held += [[job["id"], job["request"], job["acts"]] for job in store.all(self.kind, self.api)]
        kinds = ("sm_model", "sm_config", "sm_endpoint", "sm_component", "package_group", "package", "tags")
        held += [one["id"] for kind in kinds for one in store.all(kind, self.api)]
        return hashlib.sha256(msgspec.json.encode(held)).hexdigest()


# -- JumpStart ---------------------------------------------------------------------------------------------------------

LLAMA = "meta-textgeneration-llama-3-2-1b-instruct"
FALCON = "huggingface-llm-falcon-7b-bf16"


def open_jumpstart(url: str, clock: str, **options: Any) -> tuple[Backend, Clock]:
    """The recipe: a new back end object, on the clock whose hands lie in that file."""
    from cloudtune_providers.jumpstart.backend import JumpStartBackend
    from cloudtune_providers.jumpstart.options import JumpStartOptions

    hands = FakeClock(path=Path(clock))
    given = {"region": REGION, "bucket": BUCKET, "role_arn": ROLE, "base_endpoint": "the-base", "accept_eula": [LLAMA]}
    given |= options
    settings = JumpStartOptions.model_validate(given)
    return JumpStartBackend(settings, factory=connected(url, given["region"]).client, clock=hands), hands


class JumpStartWorld(TrainingWorld):
    """A gated model whose terms the settings accept. The base model stands on an endpoint already, as by a person."""

    recipe_target = "tests.contract.emulated_sagemaker:open_jumpstart"

    def __init__(self, root: Path, **more: Any) -> None:
        super().__init__(root, **more)
        store, made = self.emulator.store, {"created": 0.0, "changed": 0.0, "deleting": None, "counts": {}}
        variant = {"VariantName": "AllTraffic", "ModelName": "the-base", "InstanceType": "ml.g5.2xlarge"}
        container = {"PrimaryContainer": {"Image": "an/image:1"}}
        for kind, request in (
            ("sm_model", container), ("sm_config", {"ProductionVariants": [variant]}), ("sm_endpoint", {}),
        ):  # fmt: skip
            arn = f"arn:aws:sagemaker:{REGION}:123456789012:{kind.removeprefix('sm_')}/the-base"
            thing = {"id": "the-base", "arn": arn, "request": request, "config": "the-base"} | made
            store.add(kind, self.api, thing)
            store.add("tags", self.api, {"id": arn, "tags": {}})

    def uploads(self) -> Sequence[str]:
        return [key for key, _ in self.held() if "/jumpstart/" in key]

    def spec(self, variant: int = 0, **changes: Any) -> JobSpec:
        method = changes.get("method", {}).get("name", "sft")
        rows: list[dict[str, Any]] = [chat(n, variant) for n in range(12)]
        if method == "cpt":
            rows = [{"text": f"{n} and {variant} are {n + variant}."} for n in range(12)]
        document: dict[str, Any] = {"name": f"small-{variant}", "model": LLAMA}
        document["data"] = {"train": self.rows(f"train-{method}-{variant}", rows)}
        return JobSpec.model_validate(document | changes)
