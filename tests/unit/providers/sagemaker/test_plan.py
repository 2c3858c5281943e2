"""What a plan of the SageMaker back end would send, and what it refuses: pure, with the world as it was looked up."""

from __future__ import annotations

import json
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, cast, get_args, get_origin, get_type_hints

import msgspec
import pytest

from cloudtune.clock import SystemClock
from cloudtune.errors import PolicyRefused, Problem, SpecError
from cloudtune.ledger.ledger import Ledger
from cloudtune.plan import DataReport, Plan, PlanRequest, Resolved, SplitInfo
from cloudtune.spec import JobSpec, Limits
from cloudtune.spec_trained import Layers
from cloudtune.spending import estimated
from cloudtune.state import JobRef
from cloudtune_providers.sagemaker import serverless
from cloudtune_providers.sagemaker.backend import SageMakerBackend
from cloudtune_providers.sagemaker.options import SageMakerOptions
from cloudtune_providers.sagemaker.translate import _ONE_VALUE, hyperparameters
from cloudtune_trainer.run_spec import RunSpec, read_spec
from cloudtune_trainer.sagemaker.entrypoint import _nested

HUB = {
    "source": "hub", "path": "org/model-1b", "revision": "abc", "context_length": 4096, "parameters": None, "s3": None,
    "files": {}, "channel_path": "model", "fingerprint": "f" * 32,
}  # fmt: skip
FOLDER = HUB | {
    "source": "folder",
    "path": "/m",
    "revision": None,
    "parameters": 10**9,
    "files": {"config.json": {"path": "/m/config.json", "bytes": 3}},
}
ACCOUNT: dict[str, Any] = {
    "bucket": "a-bucket", "role_arn": "arn:aws:iam::123456789012:role/cloudtune", "region": "eu-west-1",
}  # fmt: skip
IMAGES = {"gpu": "the/gpu:image", "cpu": "the/cpu:image"}


def requested(
    *, model: dict[str, Any] | None = None, parent: JobRef | None = None, region: str = "eu-west-1", **spec: Any
) -> PlanRequest:
    facts = {"model": model or HUB, "code": {"sha256": "c" * 64, "bytes": 9}, "image": IMAGES, "base": "s3://a-bucket"}
    split = SplitInfo(rows=12, bytes=900, sha256="d" * 64, kind="chat", longest_chars=40)
    given = {"name": "small", "model": "org/model-1b", "data": {"train": "rows.jsonl"}} | spec
    return PlanRequest(
        spec=JobSpec.model_validate(given), data=DataReport(splits={"train": split}, fingerprint="x"),
        resolved=Resolved(scope=f"123456789012/{region}", facts=facts), key="k" * 32, attempt=1, token="0123456789" * 3,
        parent=parent,
    )  # fmt: skip


def backend_of(options: dict[str, Any] | None = None) -> SageMakerBackend:
    return SageMakerBackend(SageMakerOptions.model_validate(ACCOUNT | (options or {})))


def planned(*, options: dict[str, Any] | None = None, **given: Any) -> Plan:
    return backend_of(options).plan(requested(**given))


def body_of(plan: Plan) -> dict[str, Any]:
    return dict(plan.steps[-1].request["body"])


def settings(plan: Plan) -> dict[str, Any]:
    return {setting.field: setting.value for setting in plan.settings}


def refusals(**requested: Any) -> dict[str | None, str]:
    with pytest.raises(SpecError) as reported:
        planned(**requested)
    return {problem.field: problem.message for problem in reported.value.problems}


def warnings(plan: Plan) -> dict[str, Problem]:
    return {problem.code: problem for problem in plan.warnings}


def test_the_request_is_one_that_the_service_knows() -> None:
    from botocore.session import get_session
    from botocore.validate import ParamValidator

    body = body_of(planned(model=FOLDER))
    for channel in body["InputDataConfig"]:
        channel["DataSource"]["S3DataSource"]["S3Uri"] = "s3://a-bucket/filled"
    shape = get_session().get_service_model("sagemaker").operation_model("CreateTrainingJob").input_shape
    assert not ParamValidator().validate(body, shape).generate_report()
    assert len(body["AlgorithmSpecification"]["ContainerEntrypoint"][-1]) <= 256
    assert [channel["ChannelName"] for channel in body["InputDataConfig"]] == ["code", "train", "model"]


def test_the_hyperparameters_are_the_trainer_s_specification() -> None:
    more = {"hyperparameters": {"epochs": 3, "learning_rate": 1e-4}, "adapter": {"targets": ["q_proj", "v_proj"]}}
    given = body_of(planned(model=FOLDER, seed=5, overrides={"sagemaker": {"log_every": 4}}, **more))["HyperParameters"]
    assert all(isinstance(value, str) for value in given.values())
    spec = read_spec({**_nested({name: json.loads(text) for name, text in given.items()}),
                      "model": {"source": "folder", "path": "/opt/ml/input/data/model"}})  # fmt: skip
    assert (spec.hyperparameters.epochs, spec.hyperparameters.learning_rate, spec.seed) == (3.0, 1e-4, 5)
    assert (spec.adapter.targets, spec.log_every, spec.data.train) == (("q_proj", "v_proj"), 4, "train/train.jsonl")


LAYERS: dict[str, Any] = {
    "freeze": ["layers.0", "*norm*"], "freeze_depth": 1, "unfreeze": [{"layers": 1, "share": 0.25}], "decay": 0.9,
    "learning_rates": {"layers.1.mlp": 1e-5, "lm_head": 1e-3},
}  # fmt: skip


def unsent(value: Any) -> Any:
    """The value without the fields that are None, which are not sent."""
    if not isinstance(value, dict):
        return value
    return {name: unsent(one) for name, one in value.items() if one is not None}


@pytest.mark.parametrize("document", [
    {"layers": LAYERS, "adapter": {"type": "full", "rank": None}, "seed": 3},
    {"classification": {"problem": "single_label", "class_weights": {"good.very": 2.0, "bad": 1.0}}},
    {"classification": {"class_weights": "balanced"}, "data": {"train": "train/train.jsonl", "test": None}},
], ids=["layers", "class_weights", "balanced"])  # fmt: skip
def test_the_container_reads_the_document_that_was_sent(document: dict[str, Any]) -> None:
    assert set(LAYERS) == set(Layers.model_fields)
    sent = hyperparameters(document)
    assert _nested({name: json.loads(text) for name, text in sent.items()}) == unsent(document)


def test_mappings_with_free_keys_are_sent_as_one_value() -> None:
    assert mappings_of(RunSpec) == set(_ONE_VALUE) | {"raw"}


def mappings_of(kind: type, prefix: str = "") -> set[str]:
    """The fields of a specification that can be mappings, by their dotted names."""
    found = set()
    for name, hint in get_type_hints(kind).items():
        for one in (hint, *get_args(hint)):
            if get_origin(one) is dict:
                found.add(f"{prefix}{name}")
            elif is_dataclass(one):
                found |= mappings_of(cast("type", one), f"{prefix}{name}.")
    return found


def test_a_planned_layer_schedule_reaches_the_trainer() -> None:
    given = body_of(planned(layers=LAYERS, adapter="full"))["HyperParameters"]
    found = _nested({name: json.loads(text) for name, text in given.items()})
    assert found["layers"] == LAYERS
    assert read_spec(found).layers.learning_rates == LAYERS["learning_rates"]


def test_a_model_on_the_hub_is_fetched_by_the_container() -> None:
    plan = planned()
    assert json.loads(body_of(plan)["HyperParameters"]["model.path"]) == "org/model-1b"
    assert [step.id for step in plan.steps] == ["encode_train", "upload_train", "upload_code", "create"]


def test_a_model_in_s3_is_read_from_there() -> None:
    plan = planned(model=FOLDER | {"s3": "s3://theirs/llama/"})
    uris = {c["ChannelName"]: c["DataSource"]["S3DataSource"]["S3Uri"] for c in body_of(plan)["InputDataConfig"]}
    assert uris["model"] == "s3://theirs/llama/"
    assert "upload_model" not in [step.id for step in plan.steps]


def test_a_limit_of_time_leaves_the_trainer_time_to_save() -> None:
    plan = planned(limits={"max_time": "1h"})
    assert body_of(plan)["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600}
    assert json.loads(body_of(plan)["HyperParameters"]["limits.max_time"]) == 3000.0
    assert body_of(plan)["Environment"]["CLOUDTUNE_STOP_AFTER"] == "3000"
    short = body_of(planned(limits={"max_time": 100}))
    assert json.loads(short["HyperParameters"]["limits.max_time"]) == 80.0
    assert body_of(planned())["StoppingCondition"] == {"MaxRuntimeInSeconds": 86400}
    assert body_of(planned())["Environment"]["CLOUDTUNE_STOP_AFTER"] == "85800"


def test_spot_instances_and_a_warm_pool() -> None:
    body = body_of(planned(options={"spot": True}, limits={"max_time": "1h"}))
    assert body["EnableManagedSpotTraining"] is True
    assert body["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200}
    waiting = body_of(planned(options={"spot": True, "max_wait": "90m"}, limits={"max_time": "1h"}))
    assert waiting["StoppingCondition"]["MaxWaitTimeInSeconds"] == 5400
    assert "EnableManagedSpotTraining" not in body_of(
        planned(options={"spot": True}, overrides={"sagemaker": {"spot": False}})
    )
    kept = planned(options={"keep_alive": 600})
    assert body_of(kept)["ResourceConfig"]["KeepAlivePeriodInSeconds"] == 600
    assert "billed as if they ran" in warnings(kept)["warm_pool"].message


def test_a_cost_limit_pays_for_instances_that_are_kept(memory_path: Path) -> None:
    # ml.g5.2xlarge costs 1.515 USD per hour: 3.03 USD pay for 2 h, of which 0.5 h are for keeping it.
    own = {"sagemaker": {"instance_type": "ml.g5.2xlarge", "keep_alive": 1800}}
    request = requested(region="us-east-1", limits={"max_cost_usd": 3.03}, overrides=own)
    ledger = Ledger.open(f"{memory_path}/ledger.db", SystemClock())
    limited, cost, _ = estimated(request, backend_of(), ledger, accept_unknown=False)
    assert limited.run_seconds == pytest.approx(5400)
    assert cost is not None
    assert (cost.at_most_usd, cost.billed_after_s) == (pytest.approx(3.03, abs=0.001), 1800)
    small = msgspec.structs.replace(request, spec=request.spec.model_copy(update={"limits": Limits(max_cost_usd=0.5)}))
    with pytest.raises(PolicyRefused, match="pays for 0 s, and sagemaker cannot limit a job to that"):
        estimated(small, backend_of(), ledger, accept_unknown=False)


def test_network_and_keys() -> None:
    options = {
        "subnets": ["subnet-1"], "security_groups": ["sg-1"], "kms_key": "a-key", "network_isolation": True,
        "encrypt_traffic": True, "hub_token_secret": "hub", "requirements": "image", "tags": {"team": "nlp"},
    }  # fmt: skip
    body = body_of(planned(model=FOLDER, options=options, tags={"team": "search", "cost": "7"}))
    assert body["VpcConfig"] == {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}
    assert body["OutputDataConfig"]["KmsKeyId"] == "a-key"
    assert body["EnableNetworkIsolation"] is body["EnableInterContainerTrafficEncryption"] is True
    assert body["Environment"]["CLOUDTUNE_HUB_TOKEN_SECRET"] == "hub"
    assert body["Environment"]["CLOUDTUNE_REQUIREMENTS"] == "image"
    tags = {tag["Key"]: tag["Value"] for tag in body["Tags"]}
    assert (tags["team"], tags["cost"], tags["cloudtune:token"]) == ("search", "7", "0123456789" * 3)


def test_the_instance_is_proposed_with_its_reason() -> None:
    plan = planned(model=FOLDER)
    proposed = body_of(plan)["ResourceConfig"]
    assert proposed["InstanceType"].startswith("ml.g")
    (reason,) = [s.source for s in plan.settings if s.field == "backends.sagemaker.instance_type"]
    assert "1.00 billion parameters" in reason
    assert body_of(plan)["AlgorithmSpecification"]["TrainingImage"] == "the/gpu:image"
    tiny = planned(model=FOLDER | {"parameters": 10**6})
    assert body_of(tiny)["ResourceConfig"]["InstanceType"] == "ml.m5.xlarge"
    assert body_of(tiny)["AlgorithmSpecification"]["TrainingImage"] == "the/cpu:image"
    assert body_of(planned(options={"instances": 2}))["ResourceConfig"]["InstanceCount"] == 2


def test_an_instance_of_one_s_own_choice_is_judged() -> None:
    large = FOLDER | {"parameters": 30 * 10**9}
    plan = planned(model=large, options={"instance_type": "ml.g5.xlarge"})
    assert "24 GiB per GPU" in warnings(plan)["memory"].message
    own = planned(
        options={"instance_type": "ml.g5.xlarge"}, overrides={"sagemaker": {"instance_type": "ml.p5.48xlarge"}}
    )
    assert body_of(own)["ResourceConfig"]["InstanceType"] == "ml.p5.48xlarge"


def test_what_cannot_work_is_refused_at_once() -> None:
    assert "no instance has a GPU that large" in refusals(model=FOLDER | {"parameters": 70 * 10**9})["model"]
    config = HUB | {"source": "config", "path": "/m.json", "channel_path": "model/m.json"}
    assert "one only" in refusals(model=config, options={"instances": 2})["backends.sagemaker.instances"]
    assert "without network access" in refusals(options={"network_isolation": True})["model"]
    assert "4096" in refusals(hyperparameters={"max_length": 9999})["hyperparameters.max_length"]
    many = {"targets": [f"module_{n}" for n in range(400)]}
    assert "SageMaker allows 2500" in refusals(adapter=many)["adapter.targets"]


def test_what_goes_on_from_another_job_reads_its_checkpoints() -> None:
    parent = JobRef("sagemaker", "123456789012/eu-west-1", "small-before")
    plan = planned(parent=parent)
    assert plan.steps[0].request == {"newest_checkpoint_of": str(parent)}
    body = body_of(plan)
    assert body["HyperParameters"]["resume_from"] == {"$step": "find_checkpoint", "output": "place"}
    assert body["InputDataConfig"][-1]["ChannelName"] == "start"
    assert body["Environment"]["CLOUDTUNE_PARENT"] == str(parent)


def test_settings_that_are_missing_are_told_at_once() -> None:
    backend = SageMakerBackend(SageMakerOptions(region="eu-west-1", subnets=("subnet-1",)))
    spec = JobSpec.model_validate({"model": "m", "data": {"train": "rows.jsonl"}, "limits": {"max_time": 1}})
    fields = [problem.field for problem in backend.check(spec)]
    assert fields == ["limits.max_time", *(f"backends.sagemaker.{name}" for name in ("bucket", "role_arn", "subnets"))]


# -- serverless --------------------------------------------------------------------------------------------------------

RECIPE = {
    "model": "huggingface-reasoning-qwen3-8b", "arn": "arn:aws:sagemaker:eu-west-1:aws:hub-content/H/Model/q/1.0.0",
    "version": "1.0.0", "gated": False, "recipe": "verl-sft", "sequence_length": "4K",
    "parameters": {
        "max_epochs": {"type": "integer", "min": 1, "max": 100, "default": 1},
        "global_batch_size": {"type": "integer", "enum": [8, 16], "default": 8},
        "learning_rate": {"type": "float", "min": 5e-7, "max": 1e-4, "default": 1e-5},
        "merge_weights": {"type": "boolean", "default": True},
    },
}  # fmt: skip


def customised(*, recipe: dict[str, Any] | None = None, kind: str = "chat", **spec: Any) -> Plan:
    split = SplitInfo(rows=12, bytes=900, sha256="d" * 64, kind=kind, longest_chars=40)
    given = {"name": "small", "model": RECIPE["model"], "data": {"train": "rows.jsonl"}} | spec
    request = PlanRequest(
        spec=JobSpec.model_validate(given), data=DataReport(splits={"train": split, "test": split}, fingerprint="x"),
        resolved=Resolved(scope="s", facts={"recipe": RECIPE | (recipe or {})}), key="k" * 32, attempt=1,
        token="0123456789" * 3,
    )  # fmt: skip
    return SageMakerBackend(SageMakerOptions.model_validate(ACCOUNT | {"compute": "serverless"})).plan(request)


def test_a_recipe_s_defaults_are_sent_with_the_spec_s_values_over_them() -> None:
    plan = customised(hyperparameters={"epochs": 3}, overrides={"sagemaker": {"recipe": {"merge_weights": False}}})
    body = body_of(plan)
    assert body["HyperParameters"] == {
        "global_batch_size": "8", "learning_rate": "1e-05", "max_epochs": "3", "merge_weights": "false",
    }  # fmt: skip
    assert body["ServerlessJobConfig"] == {
        "BaseModelArn": RECIPE["arn"], "JobType": "FineTuning", "CustomizationTechnique": "SFT", "Peft": "LORA",
    }  # fmt: skip
    assert settings(plan)["global_batch_size"] == 8
    assert [step.id for step in plan.steps] == [
        "encode_train",
        "upload_train",
        "group",
        "create",
    ]  # never the test rows


def test_methods_become_techniques_and_formats() -> None:
    dpo = customised(method="dpo", kind="preference", adapter="full")
    assert dpo.steps[0].request["format"] == "sagemaker-preference"
    config = body_of(dpo)["ServerlessJobConfig"]
    assert (config["CustomizationTechnique"], "Peft" in config) == ("DPO", False)
    own = {"sagemaker": {"technique": "RLAIF", "evaluator": "arn:judge", "sequence_length": "8K"}}
    rft = body_of(customised(method="rft", kind="item", overrides=own))["ServerlessJobConfig"]
    assert (rft["CustomizationTechnique"], rft["EvaluatorArn"], rft["SequenceLength"]) == ("RLAIF", "arn:judge", "8K")
    nova = customised(model="nova-lite", recipe={"model": "nova-lite"})
    assert nova.steps[0].request["format"] == "bedrock-converse"
    assert body_of(nova)["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3DataType"] == "Converse"


def test_what_the_recipe_refuses_is_told_at_once() -> None:
    with pytest.raises(SpecError) as reported:
        customised(
            recipe={"gated": True}, kind="preference", hyperparameters={"batch_size": 9, "weight_decay": 0.1},
            overrides={"sagemaker": {"recipe": {"unheard_of": 1}}},
        )  # fmt: skip
    assert {problem.field for problem in reported.value.problems} == {
        "data.train", "overrides.sagemaker.accept_eula", "hyperparameters.batch_size", "hyperparameters.weight_decay",
        "overrides.sagemaker.recipe.unheard_of",
    }  # fmt: skip
    accepted = customised(recipe={"gated": True}, overrides={"sagemaker": {"accept_eula": True}})
    assert body_of(accepted)["ServerlessJobConfig"]["AcceptEula"] is True


def test_documented_ranges_refuse_before_anything_is_read() -> None:
    spec = JobSpec.model_validate({
        "model": RECIPE["model"], "data": {"train": "rows.jsonl"}, "method": {"name": "sft", "beta": 0.1},
        "hyperparameters": {"epochs": 500}, "adapter": {"rank": 7},
    })  # fmt: skip
    problems = serverless.check(spec, SageMakerOptions.model_validate(ACCOUNT))
    assert {problem.field for problem in problems} == {"hyperparameters.epochs", "adapter.rank", "method.beta"}


def test_terms_of_our_own_trainer_are_not_dropped_silently() -> None:
    words = {"sagemaker": {"preference": {"loss": "hinge"}}}
    given = {"model": RECIPE["model"], "data": {"train": "rows.jsonl"}, "method": "dpo", "overrides": words}
    spec = JobSpec.model_validate(given)
    (problem,) = serverless.check(spec, SageMakerOptions.model_validate(ACCOUNT))
    assert (problem.code, problem.field) == ("no_effect", "overrides.sagemaker.preference")


def test_repositories_have_no_absolute_paths() -> None:
    """The bundle is the same whatever folder it was packed in."""
    from cloudtune_trainer.submit.bundle import files

    here = str(Path(__file__).resolve().parents[4]).encode()
    assert not [name for name, content in files().items() if here in content]
