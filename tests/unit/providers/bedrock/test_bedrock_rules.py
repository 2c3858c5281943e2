"""What Bedrock would refuse is refused at plan, all at once, each with what to do about it."""

from __future__ import annotations

import json
from datetime import date
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from cloudtune.catalog import load
from cloudtune.client import Client
from cloudtune.errors import DataError, InputError
from cloudtune.spec import JobSpec
from cloudtune.testing.clock import FakeClock
from cloudtune_providers.bedrock.backend import BedrockBackend
from cloudtune_providers.bedrock.options import BedrockOptions
from cloudtune_providers.bedrock.rules import Rules

if TYPE_CHECKING:
    from pathlib import Path

ROLE = "arn:aws:iam::123456789012:role/cloudtune"
NOVA = "amazon.nova-lite-v1:0:300k"
LLAMA = "meta.llama3-3-70b-instruct-v1:0:128k"
LAMBDA = "arn:aws:lambda:us-east-1:123456789012:function:grade"


class _Sts:
    """All that a plan asks of AWS."""

    def __init__(self, region: str) -> None:
        self.meta = type("Meta", (), {"region_name": region, "endpoint_url": ""})()

    def get_caller_identity(self) -> dict[str, str]:
        return {"Account": "123456789012"}


def backend_of(region: str = "us-east-1", **options: Any) -> BedrockBackend:
    settings = BedrockOptions.model_validate({"bucket": "rows", "role_arn": ROLE} | options)
    return BedrockBackend(settings, factory=lambda service: _Sts(region), clock=FakeClock())


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{n}?", "completion": f"{n}!"}) + "\n" for n in range(120)))
    return path


def problems(rows: Path, backend: BedrockBackend | None = None, **changes: Any) -> dict[str, str]:
    """Field -> message and advice of everything that is refused."""
    spec = JobSpec.model_validate({"name": "mine", "model": NOVA, "data": {"train": str(rows)}} | changes)
    client = Client(backend or backend_of(), ledger=f"sqlite:///{rows.parent}/ledger.db")
    try:
        client.plan(spec)
    except InputError as error:
        return {str(problem.field): f"{problem.message} | {problem.fix}" for problem in error.problems}
    return {}


def test_a_plan_that_is_right_has_nothing_to_say(rows: Path) -> None:
    assert problems(rows) == {}


def test_a_retired_base_and_its_parameters_are_refused_together(rows: Path) -> None:
    found = problems(rows, model="anthropic.claude-3-haiku-20240307-v1:0", hyperparameters={"epochs": 3})
    assert "accepts no new jobs since 2026-09-10" in found["model"]
    assert NOVA in found["model"]


def test_the_id_without_its_context_length_is_answered_with_the_one_that_has_it(rows: Path) -> None:
    assert f"use {NOVA}" in problems(rows, model="amazon.nova-lite-v1:0")["model"]
    arn = f"arn:aws:bedrock:us-east-1::foundation-model/{NOVA}"
    assert problems(rows, model=arn) == {}


def test_values_are_held_against_the_familys_ranges(rows: Path) -> None:
    found = problems(rows, hyperparameters={"epochs": 6, "learning_rate": 0.01, "warmup_steps": 101})
    assert "at most 5" in found["hyperparameters.epochs"]
    assert "at most 0.0001" in found["hyperparameters.learning_rate"]
    assert "at most 100" in found["hyperparameters.warmup_steps"]
    assert "whole number" in problems(rows, hyperparameters={"epochs": 1.5})["hyperparameters.epochs"]


def test_what_the_family_does_not_have_is_named(rows: Path) -> None:
    west = backend_of("us-west-2")
    found = problems(rows, west, model=LLAMA, hyperparameters={"warmup_steps": 5})
    assert "does not support learningRateWarmupSteps" in found["hyperparameters.warmup_steps"]
    assert "epochCount, batchSize, learningRate" in found["hyperparameters.warmup_steps"]
    given = {"bedrock": {"hyperparameters": {"earlyStoppingPatience": "2", "epochCount": "2"}}}
    assert list(problems(rows, overrides=given)) == ["overrides.bedrock.hyperparameters.earlyStoppingPatience"]


def test_the_portable_batch_size_may_stay_where_the_override_stands(rows: Path) -> None:
    west = backend_of("us-west-2")
    spec = {"hyperparameters": {"batch_size": 16}, "overrides": {"bedrock": {"batch_size": 1}}, "model": LLAMA}
    assert problems(rows, west, **spec) == {}
    assert (
        "only 1" in problems(rows, west, model=LLAMA, hyperparameters={"batch_size": 1})["hyperparameters.batch_size"]
    )


def test_continued_pre_training_is_refused_with_its_reason(rows: Path) -> None:
    assert "no base model" in problems(rows, method="cpt")["method.name"]


def test_a_model_of_another_region_is_refused(rows: Path) -> None:
    found = problems(rows, backend_of("eu-central-1"))
    assert "us-east-1, not in eu-central-1" in found["backends.bedrock.region"]


def test_open_weight_models_go_by_the_api_that_tunes_them(rows: Path) -> None:
    given = {"grader": LAMBDA, "hyperparameters": {"epochCount": 2}, "eval_interval": 3, "model_name": "mine"}
    west = BedrockBackend(BedrockOptions(), factory=lambda service: _Sts("us-west-2"), clock=FakeClock())
    spec = {"model": "qwen.qwen3-32b", "method": "rft", "overrides": {"bedrock": given}}
    found = problems(rows, west, hyperparameters={"learning_rate": 1e-5, "warmup_steps": 3, "epochs": 1.5}, **spec)
    assert sorted(found) == [
        "hyperparameters.epochs", "hyperparameters.learning_rate", "hyperparameters.warmup_steps",
        "overrides.bedrock.eval_interval", "overrides.bedrock.hyperparameters", "overrides.bedrock.model_name",
    ]  # fmt: skip
    assert "overrides.bedrock.learning_rate_multiplier" in found["hyperparameters.learning_rate"]
    spec |= {"overrides": {"bedrock": {"learning_rate_multiplier": 2.0}}, "tags": {f"t{n}": "x" for n in range(15)}}
    assert sorted(problems(rows, west, **spec)) == ["overrides.bedrock.grader", "tags"]
    found = problems(rows, west, model="qwen.qwen3-32b", method="sft")
    assert "does not support sft" in found["model"]


def test_notes_in_the_catalog_decide_nothing() -> None:
    catalog, day = load("bedrock"), date(2026, 11, 21)
    reworded = msgspec.structs.replace(
        catalog, models=tuple(msgspec.structs.replace(model, note="reworded") for model in catalog.models)
    )
    for known in (catalog, reworded):
        rules = Rules(known, BedrockOptions(), day)
        found = {model.id for model in known.models if rules.is_open_weight(model.id)}
        assert found == {"openai.gpt-oss-20b", "qwen.qwen3-32b"}


def test_only_they_take_a_multiplier_and_only_there(rows: Path) -> None:
    given = {"bedrock": {"learning_rate_multiplier": 2.0}}
    assert list(problems(rows, overrides=given)) == ["overrides.bedrock.learning_rate_multiplier"]
    items = rows.with_name("items.jsonl")
    item = {"messages": [{"role": "user", "content": "?"}], "reference_answer": {"n": "1"}}
    items.write_text("".join(json.dumps(item | {"id": n}) + "\n" for n in range(120)))
    spec = {"model": "qwen.qwen3-32b", "method": "rft", "overrides": {"bedrock": {"grader": LAMBDA}}}
    found = problems(rows, backend_of("us-east-1"), data={"train": str(items)}, **spec)
    assert "us-west-2, not in us-east-1" in found["backends.bedrock.region"]
    assert problems(rows, backend_of("us-west-2"), data={"train": str(items)}, **spec) == {}


def test_without_bucket_role_and_half_a_vpc(rows: Path) -> None:
    found = problems(rows, BedrockBackend(BedrockOptions(subnets=("s",)), factory=lambda service: _Sts("us-east-1")))
    assert list(found) == ["backends.bedrock.bucket", "backends.bedrock.role_arn", "backends.bedrock.subnets"]


def test_methods_need_their_own_settings_and_no_others(rows: Path) -> None:
    assert "ARN" in problems(rows, method="rft", model="amazon.nova-2-lite-v1:0:256k")["overrides.bedrock.grader"]
    assert "set the teacher model" in problems(rows, method="distill")["overrides.bedrock.teacher"]
    assert (
        "sft does not use teacher"
        in problems(rows, overrides={"bedrock": {"teacher": "x"}})["overrides.bedrock.teacher"]
    )


def test_tags_that_aws_would_refuse(rows: Path) -> None:
    found = problems(rows, tags={"aws:mine": "x", "team": "ré*d", "cloudtune:token": "x"})
    assert set(found) == {"tags.aws:mine", "tags.team", "tags.cloudtune:token"}
    assert "at most 48 are allowed" in problems(rows, tags={f"k{n}": "v" for n in range(49)})["tags"]


def test_rows_that_make_a_job_of_nova_fail_are_found_before_upload(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [{"prompt": "User: hello" if n == 4 else f"{n}?", "completion": "!"} for n in range(9)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    spec = JobSpec.model_validate({"model": NOVA, "data": {"train": str(path)}})
    with pytest.raises(DataError) as refused:
        Client(backend_of(), ledger=f"sqlite:///{tmp_path}/l.db").plan(spec)
    assert [(problem.line, "User:" in problem.message) for problem in refused.value.problems] == [(5, True)]


def test_llama_counts_both_files_together(tmp_path: Path) -> None:
    for name, count in (("a", 95), ("b", 5)):
        lines = [json.dumps({"prompt": f"{name}{n}?", "completion": "!"}) + "\n" for n in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    data = {"train": str(tmp_path / "a.jsonl")}
    spec = JobSpec.model_validate({"model": LLAMA, "data": data})
    client = Client(backend_of("us-west-2"), ledger=f"sqlite:///{tmp_path}/l.db")
    with pytest.raises(DataError, match="100"):
        client.plan(spec)


# -- requests ----------------------------------------------------------------------------------------------------------


def body(rows: Path, backend: BedrockBackend | None = None, **changes: Any) -> dict[str, Any]:
    spec = JobSpec.model_validate({"name": "mine", "model": NOVA, "data": {"train": str(rows)}} | changes)
    plan = Client(backend or backend_of(), ledger=f"sqlite:///{rows.parent}/ledger.db").plan(spec)
    found: dict[str, Any] = plan.steps[-1].request["body"]
    return found


def test_hyperparameters_are_strings_without_exponents(rows: Path) -> None:
    sent = body(rows, hyperparameters={"epochs": 3.0, "learning_rate": 1e-05, "warmup_steps": 0})
    assert sent["hyperParameters"] == {"epochCount": "3", "learningRate": "0.00001", "learningRateWarmupSteps": "0"}
    assert sent["customizationType"] == "FINE_TUNING"
    assert "hyperParameters" not in body(rows)


def test_bedrocks_own_names_win_and_may_be_written_as_numbers(rows: Path) -> None:
    own = {"bedrock": {"hyperparameters": {"epochCount": 2, "learningRate": 2e-05}}}
    sent = body(rows, hyperparameters={"epochs": 4, "warmup_steps": 3}, overrides=own)
    assert sent["hyperParameters"] == {"epochCount": "2", "learningRate": "0.00002", "learningRateWarmupSteps": "3"}


def test_key_vpc_and_tags_stand_in_the_request(rows: Path) -> None:
    backend = backend_of(kms_key="alias/mine", subnets=["subnet-1"], security_groups=["sg-1"], tags={"cost": "a"})
    sent = body(rows, backend, tags={"team": "red"})
    assert sent["customModelKmsKeyId"] == "alias/mine"
    assert sent["vpcConfig"] == {"subnetIds": ["subnet-1"], "securityGroupIds": ["sg-1"]}
    tags = {tag["key"]: tag["value"] for tag in sent["jobTags"]}
    assert (tags["cost"], tags["team"], tags["cloudtune:name"]) == ("a", "red", "mine")
    assert tags["cloudtune:token"] == sent["clientRequestToken"]
    assert sent["customModelTags"] == sent["jobTags"]


def test_reinforcement_has_numbers_and_a_grader(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    items = [{"messages": [{"role": "user", "content": f"{n}?"}], "reference_answer": {"a": n}} for n in range(100)]
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    given = {"grader": LAMBDA, "batch_size": 32, "samples_per_prompt": 4, "reasoning_effort": "low",
             "hyperparameters": {"learningRate": "0.0001"}}  # fmt: skip
    sent = body(path, model="amazon.nova-2-lite-v1:0:256k", method="rft", hyperparameters={"epochs": 2},
                overrides={"bedrock": given})  # fmt: skip
    assert "hyperParameters" not in sent
    assert sent["customizationConfig"]["rftConfig"] == {
        "graderConfig": {"lambdaGrader": {"lambdaArn": LAMBDA}},
        "hyperParameters": {"epochCount": 2, "batchSize": 32, "trainingSamplePerPrompt": 4, "reasoningEffort": "low",
                            "learningRate": 0.0001},
    }  # fmt: skip


def test_distillation_names_its_teacher(rows: Path) -> None:
    given = {"teacher": "amazon.nova-pro-v1:0", "teacher_max_tokens": 500}
    sent = body(rows, method="distill", overrides={"bedrock": given})
    assert sent["customizationConfig"]["distillationConfig"]["teacherModelConfig"] == {
        "teacherModelIdentifier": "amazon.nova-pro-v1:0", "maxResponseLengthForInference": 500,
    }  # fmt: skip


def test_names_fit_and_are_this_attempts(rows: Path) -> None:
    sent = body(rows, name="x" * 40)
    assert len(sent["jobName"]) <= 63
    assert sent["jobName"] == sent["customModelName"]
    assert sent["jobName"].endswith(sent["clientRequestToken"][:10])
    assert body(rows, overrides={"bedrock": {"model_name": "mine_1"}})["customModelName"] == "mine_1"


def test_every_body_is_what_the_sdk_takes(rows: Path) -> None:
    from botocore.session import get_session
    from botocore.validate import ParamValidator

    shape = get_session().get_service_model("bedrock").operation_model("CreateModelCustomizationJob").input_shape
    backend = backend_of(kms_key="alias/mine", subnets=["subnet-1"], security_groups=["sg-1"])
    sent = body(rows, backend, hyperparameters={"epochs": 3}, data={"train": str(rows), "validation": 0.1})
    sent["trainingDataConfig"] = {"s3Uri": "s3://rows/x"}
    sent["validationDataConfig"] = {"validators": [{"s3Uri": "s3://rows/y"}]}
    assert not ParamValidator().validate(sent, shape).has_errors()


def test_the_price_is_shown_with_its_age(rows: Path) -> None:
    spec = JobSpec.model_validate({"model": "amazon.nova-2-lite-v1:0:256k", "data": {"train": str(rows)},
                                   "hyperparameters": {"epochs": 2}})  # fmt: skip
    plan = Client(backend_of(), ledger=f"sqlite:///{rows.parent}/l.db").plan(spec)
    assert plan.cost is not None
    assert plan.cost.usd is not None
    tokens = plan.data.splits["train"].bytes / 6
    assert plan.cost.usd == pytest.approx(tokens * 2 * 3.78 / 1e6, abs=1e-4)
    assert plan.cost.prices_as_of == "2026-08-02"


def test_a_llama_3_1_learns_prompts_and_completions(rows: Path) -> None:
    spec = JobSpec.model_validate({"model": "meta.llama3-1-8b-instruct-v1:0:128k", "data": {"train": str(rows)}})
    plan = Client(backend_of("us-west-2"), ledger=f"sqlite:///{rows.parent}/l.db").plan(spec)
    assert plan.steps[0].request["format"] == "bedrock-prompt"
