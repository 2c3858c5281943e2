"""What JumpStart's documents decide, and what is refused, over the wire against the emulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.emulated_sagemaker import FALCON, LLAMA, JumpStartWorld

from cloudtune.client import Client
from cloudtune.errors import (
    Conflict,
    DataError,
    InputError,
    InvalidRequest,
    JobExpired,
    SpecError,
    UnsupportedError,
)
from cloudtune.state import JobState
from cloudtune_emulator.aws import buckets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.plan import Plan


@pytest.fixture
def world(tmp_path: Path) -> Iterator[JumpStartWorld]:
    world = JumpStartWorld(tmp_path)
    yield world
    world.close()


def client_of(world: JumpStartWorld, **options: Any) -> Client:
    world.options |= options
    return Client(world.backend(), ledger=f"sqlite:///{world.root}/ledger.db", clock=world.clock)


def body_of(plan: Plan) -> dict[str, Any]:
    body = plan.steps[-1].request["body"]
    assert isinstance(body, dict)
    return body


def told(plan: Plan, field: str) -> tuple[Any, str]:
    return next((one.value, one.source) for one in plan.settings if one.field == field)


def refusals(world: JumpStartWorld, **changes: Any) -> dict[str, str]:
    with pytest.raises(InputError) as refused:
        client_of(world).plan(world.spec(**changes))
    return {str(problem.field): f"{problem.message} ({problem.fix})" for problem in refused.value.problems}


def overrides(**given: Any) -> dict[str, Any]:
    return {"overrides": {"jumpstart": given}}


def test_the_document_fills_the_request(world: JumpStartWorld) -> None:
    body = body_of(client_of(world).plan(world.spec()))
    given = body["HyperParameters"]
    assert given["sagemaker_program"] == "transfer_learning.py"
    assert given["sagemaker_submit_directory"].startswith("s3://jumpstart-cache-prod-us-east-1/")
    assert (given["chat_dataset"], given["instruction_tuned"]) == ("True", "False")
    # The variant of the instance's family says otherwise than the model's own default.
    assert (given["int8_quantization"], given["per_device_train_batch_size"], given["lora_r"]) == ("True", "1", "8")
    assert all(isinstance(value, str) for value in given.values())
    assert body["AlgorithmSpecification"]["TrainingImage"].startswith("763104351884.dkr.ecr.us-east-1")
    assert body["Environment"]["SELF_DESTRUCT"] == "no"
    assert body["EnableNetworkIsolation"] is True
    channels = {channel["ChannelName"]: channel["DataSource"]["S3DataSource"] for channel in body["InputDataConfig"]}
    assert channels["model"]["ModelAccessConfig"] == {"AcceptEula": True}
    assert channels["training"]["S3Uri"].startswith("s3://cloudtune-emulated/cloudtune/jumpstart/")


def test_there_is_always_a_training_channel(world: JumpStartWorld) -> None:
    """Without one the script would learn AWS's own default rows."""
    for changes in ({}, {"method": {"name": "cpt"}}, {"model": FALCON}):
        names = [one["ChannelName"] for one in body_of(client_of(world).plan(world.spec(**changes)))["InputDataConfig"]]
        assert names.count("training") == 1


def test_the_longest_time_is_a_day_and_not_an_hour(world: JumpStartWorld) -> None:
    plan = client_of(world).plan(world.spec())
    assert body_of(plan)["StoppingCondition"] == {"MaxRuntimeInSeconds": 86400}
    value, why = told(plan, "MaxRuntimeInSeconds")
    assert value == 86400
    assert "one hour" in why
    limited = client_of(world).plan(world.spec(limits={"max_time": "2h"}))
    assert body_of(limited)["StoppingCondition"] == {"MaxRuntimeInSeconds": 7200}
    assert told(limited, "MaxRuntimeInSeconds") == (7200, "derived: limits.max_time")


def test_terms_are_accepted_explicitly(world: JumpStartWorld) -> None:
    client = client_of(world, accept_eula=[])
    with pytest.raises(UnsupportedError, match="terms") as refused:
        client.plan(world.spec())
    assert [problem.field for problem in refused.value.problems] == ["overrides.jumpstart.accept_eula"]
    client.plan(world.spec(**overrides(accept_eula=True)))
    client.plan(world.spec(model=FALCON))
    world.options["accept_eula"] = [LLAMA]
    with pytest.raises(UnsupportedError, match="terms"):
        client_of(world).plan(world.spec(**overrides(accept_eula=False)))


def test_everything_that_the_document_forbids_is_told_at_once(world: JumpStartWorld) -> None:
    found = refusals(
        world, hyperparameters={"epochs": 2000.0, "batch_size": 6, "learning_rate": 3.0},
        **overrides(instance_type="ml.g5.12xlarge", config="fast", template={"prompt": "x", "completion": "y"},
                    hyperparameters={"lora_rr": 3, "enable_fsdp": "perhaps"}),
    )  # fmt: skip
    assert "between 1 and 1000" in found["hyperparameters.epochs"]
    assert "4 GPUs" in found["hyperparameters.batch_size"]
    assert "between 1e-08 and 1" in found["hyperparameters.learning_rate"]
    assert "did you mean 'lora_r'" in found["overrides.jumpstart.hyperparameters.lora_rr"]
    assert "True, False" in found["overrides.jumpstart.hyperparameters.enable_fsdp"]
    assert "fast" in found["overrides.jumpstart.config"]
    assert "instruction layout" in found["overrides.jumpstart.template"]
    found = refusals(world, **overrides(instance_type="ml.m5.large"))
    assert "ml.g5.2xlarge" in found["overrides.jumpstart.instance_type"]


def test_a_batch_is_shared_out_among_the_gpus(world: JumpStartWorld) -> None:
    given = {"hyperparameters": {"batch_size": 16}, **overrides(instance_type="ml.g5.12xlarge", instance_count=2)}
    body = body_of(client_of(world).plan(world.spec(**given)))
    assert body["HyperParameters"]["per_device_train_batch_size"] == "2"
    assert body["ResourceConfig"]["InstanceCount"] == 2


def test_an_unknown_model_is_told_with_its_neighbours(world: JumpStartWorld) -> None:
    found = refusals(world, model="meta-textgeneration-llama-3-2-1b-instrukt")
    assert f"did you mean {LLAMA}" in found["model"]
    assert "newest" in refusals(world, **overrides(model_version="9.9.9"))["overrides.jumpstart.model_version"]
    assert "is not trainable" in refusals(world, model="openai-reasoning-gpt-oss-20b")["model"]


def test_the_document_is_read_once_and_dated(world: JumpStartWorld) -> None:
    client = client_of(world)
    first, second = client.plan(world.spec()), client.plan(world.spec())
    requested = [seen for seen in world.emulator.requests if seen["call"] == "sagemaker.DescribeHubContent"]
    assert len(requested) == 1
    assert first == second
    assert first.resolved.at == world.clock.now()
    assert len(first.resolved.facts["sha256"]) == 64
    world.clock.sleep(1000)
    assert client.plan(world.spec()).resolved.at == world.clock.now()


def contents(world: JumpStartWorld) -> dict[str, bytes]:
    """What was uploaded, by the last part of its key."""
    place = buckets.Place("cloudtune-emulated", "")
    return {
        key.rpartition("/")[2]: buckets.get(world.emulator.context, place._replace(key=key))
        for key in world.uploads()
    }  # fmt: skip


def test_dialogs(world: JumpStartWorld) -> None:
    client_of(world).submit(world.spec())
    (row, *_) = contents(world)["rows.jsonl"].splitlines()
    assert [turn["role"] for turn in json.loads(row)["dialog"]] == ["user", "assistant"]


def test_instructions_with_their_template(world: JumpStartWorld) -> None:
    template = {"prompt": "Q: {instruction}\nA: ", "completion": "{response}"}
    job = client_of(world).submit(world.spec(**overrides(layout="instruction", template=template)))
    held = contents(world)
    assert json.loads(held["template.json"]) == template
    (row, *_) = held["rows.jsonl"].splitlines()
    assert json.loads(row) == {"instruction": "What is 0 plus 0?", "context": "", "response": "0"}
    world.reach(job.ref, JobState.SUCCEEDED)
    job.deploy()
    list(job.generate(["What is 2 plus 0?"]))
    request = [seen["body"] for seen in world.emulator.requests if seen["call"] == "sagemaker.InvokeEndpoint"]
    assert request[-1]["inputs"] == "Q: What is 2 plus 0?\nA: "


def test_rows_that_do_not_fit_the_layout_are_found_by_plan(world: JumpStartWorld) -> None:
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant", "user", "assistant")]
    rows = world.rows("turns", [{"messages": turns}] * 10)
    client_of(world).plan(world.spec(data={"train": rows}))
    with pytest.raises(DataError):
        client_of(world).plan(world.spec(data={"train": rows}, **overrides(layout="instruction")))


def test_plain_text(world: JumpStartWorld) -> None:
    plan = client_of(world).plan(world.spec(method={"name": "cpt"}))
    given = body_of(plan)["HyperParameters"]
    assert (given["chat_dataset"], given["instruction_tuned"]) == ("False", "False")
    client_of(world).submit(plan)
    (row, *_) = contents(world)["rows.json"].splitlines()
    assert json.loads(row) == {"text": "0 and 0 are 0."}


def test_what_lies_among_the_rows_is_not_learnt(world: JumpStartWorld) -> None:
    plan = client_of(world).plan(world.spec())
    folder = next(step for step in plan.steps if step.id == "folder_train").request["prefix"]
    buckets.put(world.emulator.context, buckets.Place("cloudtune-emulated", f"{folder}stranger.jsonl"), b"{}\n")
    with pytest.raises(Conflict, match="would be trained on"):
        client_of(world).submit(plan)
    assert not world.jobs()


def test_the_script_holds_rows_out_unless_it_is_given_some(world: JumpStartWorld) -> None:
    codes = [problem.code for problem in client_of(world).plan(world.spec()).warnings]
    assert "held_out" in codes
    rows = world.spec().data.train.path
    with_both = client_of(world).plan(world.spec(data={"train": rows, "validation": world.spec(3).data.train.path}))
    assert "held_out" not in [problem.code for problem in with_both.warnings]
    names = [one["ChannelName"] for one in body_of(with_both)["InputDataConfig"]]
    assert names == ["training", "validation", "model"]


def test_spot_networks_and_keys_are_sent(world: JumpStartWorld) -> None:
    plan = client_of(
        world, spot=True, spot_wait=600, keep_alive=300, subnets=["subnet-1"], security_groups=["sg-1"],
        kms_key="alias/mine", tags={"team": "red"},
    ).plan(world.spec())  # fmt: skip
    body = body_of(plan)
    assert body["EnableManagedSpotTraining"] is True
    assert body["StoppingCondition"] == {"MaxRuntimeInSeconds": 86400, "MaxWaitTimeInSeconds": 87000}
    assert body["VpcConfig"] == {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    assert body["OutputDataConfig"]["KmsKeyId"] == body["ResourceConfig"]["VolumeKmsKeyId"] == "alias/mine"
    assert body["ResourceConfig"]["KeepAlivePeriodInSeconds"] == 300
    assert plan.cost is not None
    assert plan.cost.billed_after_s == 300
    assert {"Key": "team", "Value": "red"} in body["Tags"]
    assert "spot" in [problem.code for problem in plan.warnings]


def test_a_name_that_a_stranger_has_taken_is_a_conflict(world: JumpStartWorld) -> None:
    client = client_of(world)
    job = client.submit(world.spec())
    store = world.emulator.store
    held = store.all("tags", world.api)
    mine = next(one for one in held if one["id"].endswith(job.ref.id))
    store.save("tags", world.api, mine | {"tags": {}})
    other = Client(world.backend(), ledger=f"sqlite:///{world.root}/other.db", clock=world.clock)
    with pytest.raises(Conflict):
        other.submit(world.spec())
    assert len(world.jobs()) == 1


def test_many_jobs_are_asked_for_in_few_calls(world: JumpStartWorld) -> None:
    client, backend = client_of(world), world.backend()
    refs = [client.submit(world.spec(n)).ref for n in range(5)]
    assert len(backend.get_many(refs)) == 5  # type: ignore[attr-defined]
    before = world.calls()
    assert len(backend.get_many(refs)) == 5  # type: ignore[attr-defined]
    assert world.calls() - before == 1  # nothing has moved: the list tells all


def test_a_job_over_its_time_keeps_its_model(world: JumpStartWorld) -> None:
    job = client_of(world).submit(world.spec(limits={"max_time": 100.0}))
    world.reach(job.ref, JobState.RUNNING)
    world.emulator.clock.advance(200)
    with pytest.raises(JobExpired, match="maximum run time"):
        job.wait()
    assert str(job.model().uri).endswith("model.tar.gz")


@pytest.mark.parametrize(
    ("code", "ours"),
    [("CapacityError", "capacity"), ("ClientError", "client_error"), ("AlgorithmError", "algorithm_error")],
)
def test_failures_are_told_apart(world: JumpStartWorld, code: str, ours: str) -> None:
    job = client_of(world).submit(world.spec())
    world.reach(job.ref, JobState.RUNNING)
    world.change(job.ref, script={"error_code": code})
    world.fail_job(job.ref, "no more of it")
    world.change(job.ref, script={"error_code": code})
    problem = job.snapshot().problem
    assert problem is not None
    assert (problem.code, problem.message) == (ours, f"{code}: no more of it")
    assert problem.hint


def test_figures_are_told_though_the_log_may_not_be_read(world: JumpStartWorld) -> None:
    job = client_of(world).submit(world.spec())
    world.reach(job.ref, JobState.SUCCEEDED)
    world.emulator.faults.add("forbidden", "logs.FilterLogEvents", times=5)
    (last,) = job.metrics()
    assert set(last.values) == {"huggingface-textgeneration:train-loss"}


def test_an_endpoint_is_planned_from_the_document(world: JumpStartWorld) -> None:
    job = client_of(world).submit(world.spec())
    with pytest.raises(InvalidRequest):
        job.deploy()
    world.reach(job.ref, JobState.SUCCEEDED)
    client = client_of(world)
    plan = client.plan_deploy(job.result(), instance_type="ml.g5.12xlarge", instances=2, name="mine")
    assert [step.id for step in plan.steps] == ["model", "config", "endpoint", "ready"]
    bodies = {step.id: step.request.get("body", {}) for step in plan.steps}
    assert bodies["model"]["PrimaryContainer"]["Environment"]["OPTION_ROLLING_BATCH"] == "vllm"
    assert bodies["config"]["ProductionVariants"][0]["InitialInstanceCount"] == 2
    with pytest.raises(SpecError, match="cannot run on"):
        client.plan_deploy(job.result(), instance_type="ml.m5.large")
    with pytest.raises(InputError, match="instanses"):
        client.plan_deploy(job.result(), instanses=2)
    made = client.deploy(plan)
    assert (made.id, made.state) == ("mine", "ready")
    remove = world.backend().plan_remove(made)  # type: ignore[attr-defined]
    assert [step.id for step in remove.steps] == ["remove_endpoint", "remove_config", "remove_model"]
    client.remove(made)
    assert world.endpoints() == {"sm_model": 1, "sm_config": 1, "sm_endpoint": 1}


def test_a_strangers_endpoint_is_left_alone(world: JumpStartWorld) -> None:
    job = client_of(world).submit(world.spec())
    world.reach(job.ref, JobState.SUCCEEDED)
    with pytest.raises(Conflict, match="the-base"):
        client_of(world).deploy(job.result(), name="the-base")
    assert [one.id for one in client_of(world).deployments(backend="jumpstart")] == []


def test_deleting_takes_the_artefact_and_leaves_the_rows(world: JumpStartWorld) -> None:
    client = client_of(world)
    job = client.submit(world.spec())
    world.reach(job.ref, JobState.SUCCEEDED)
    job.result()
    assert any("/output/" in key for key, _ in world.held())
    job.delete()
    assert not any("/output/" in key for key, _ in world.held())
    assert len(world.uploads()) == 1
    assert client.submit(world.spec()).ref != job.ref
