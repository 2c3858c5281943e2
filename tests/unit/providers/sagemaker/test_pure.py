"""Instances, images, lines of the log, reasons of failures, recipes: all that needs no service."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from cloudtune.errors import ConfigError
from cloudtune.state import Event, JobProblem, JobRef, JobSnapshot, JobState
from cloudtune_providers.sagemaker import images, instances, log_lines
from cloudtune_providers.sagemaker.images import image_uri
from cloudtune_providers.sagemaker.recipes import fault_of
from cloudtune_providers.sagemaker.snapshots import as_sagemaker
from cloudtune_trainer.sagemaker.entrypoint import flat
from cloudtune_trainer.submit.log_lines import to_events

HYPER = {
    "batch_size": 8, "gradient_accumulation_steps": 1, "max_length": 1024, "precision": "auto",
    "gradient_checkpointing": False,
}  # fmt: skip
LORA: dict[str, Any] = {"method": "sft", "adapter": {"type": "lora", "rank": 8}, "hyperparameters": HYPER}
FULL: dict[str, Any] = {"method": "sft", "adapter": {"type": "full"}, "hyperparameters": HYPER}


# -- instances ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("meta-llama/Llama-3.2-1B", 10**9), ("Qwen/Qwen2.5-0.5B-Instruct", 5 * 10**8), ("smollm2-135m", 135 * 10**6),
        ("mistral_7b", 7 * 10**9), ("gpt2", None), ("llama-3.1-8b-v0.2", 8 * 10**9), ("/models/mine", None),
    ],
)  # fmt: skip
def test_a_model_s_name_may_say_how_large_it_is(name: str, count: int | None) -> None:
    assert instances.parameters_of({}, name) == count
    assert instances.parameters_of({"parameters": 7}, name) == 7


def test_types_are_those_that_the_service_has() -> None:
    from botocore.session import get_session

    known = get_session().get_service_model("sagemaker").shape_for("TrainingInstanceType").enum
    assert {one.name for one in instances.TYPES} | {instances.UNKNOWN} <= set(known)


def test_memory_grows_with_all_that_takes_it() -> None:
    small = instances.memory_of(10**9, LORA).gib
    assert 3 < small < instances.memory_of(7 * 10**9, LORA).gib
    assert small < instances.memory_of(10**9, FULL).gib
    longer = {**LORA, "hyperparameters": HYPER | {"max_length": 4096}}
    assert small < instances.memory_of(10**9, longer).gib
    parts = {**longer, "hyperparameters": longer["hyperparameters"] | {"gradient_accumulation_steps": 8}}
    thrifty = {**longer, "hyperparameters": longer["hyperparameters"] | {"gradient_checkpointing": True}}
    assert instances.memory_of(10**9, parts).gib < instances.memory_of(10**9, longer).gib
    assert instances.memory_of(10**9, thrifty).gib < instances.memory_of(10**9, longer).gib
    # 16 bytes for each weight that is trained: weights, gradient and two moments in fp32
    assert instances.memory_of(7 * 10**9, FULL).gib > 7e9 * 16 / 2**30


@pytest.mark.parametrize(
    ("parameters", "document", "least_gib"), [(10**9, LORA, 16), (8 * 10**9, LORA, 24), (10**9, FULL, 24)]
)
def test_the_cheapest_that_fits_is_proposed(parameters: int, document: dict[str, Any], least_gib: int) -> None:
    memory = instances.memory_of(parameters, document)
    found = instances.proposed(parameters, memory)
    assert found is not None
    assert found.gpu_gib >= max(memory.gib, least_gib)
    cheaper = instances.TYPES[: instances.TYPES.index(found)]
    loading = parameters * 4 / 2**30
    assert not [one for one in cheaper if one.gpus == 1 and one.gpu_gib * 0.95 >= memory.gib and one.gib > 2 * loading]


def test_what_fits_nowhere_is_not_proposed() -> None:
    assert instances.proposed(70 * 10**9, instances.memory_of(70 * 10**9, FULL)) is None
    assert instances.proposed(None, None) == instances.instance_of(instances.UNKNOWN)


# -- images ------------------------------------------------------------------------------------------------------------


def test_images_of_known_regions() -> None:
    address = image_uri("training", "eu-west-1", "ml.g5.xlarge", gpu=True, setting="image")
    assert address.startswith("763104351884.dkr.ecr.eu-west-1.amazonaws.com/huggingface-pytorch-training:2.9.0-")
    assert "cpu" in image_uri("training", "us-east-1", "ml.m5.xlarge", gpu=False, setting="image")
    assert ".amazonaws.com.cn/" in image_uri("inference", "cn-north-1", "ml.g5.xlarge", gpu=True, setting="image")


def test_an_image_of_an_unknown_region_is_asked_of_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_has_sdk", lambda: False)
    with pytest.raises(ConfigError, match=r"backends\.sagemaker\.image.*moon-1.*\[sagemaker\]"):
        image_uri("training", "moon-1", "ml.g5.xlarge", gpu=True, setting="image")
    monkeypatch.setattr(images, "_has_sdk", lambda: True)
    monkeypatch.setattr(images, "_ask_sdk", lambda kind, region, instance: f"{kind} {region} {instance}")
    said = image_uri("training", "moon-1", "ml.g5.xlarge", gpu=True, setting="image")
    assert said == "('training', 'gpu') moon-1 ml.g5.xlarge"


# -- the log -----------------------------------------------------------------------------------------------------------


def line(split: str, **values: float) -> str:
    """As the container's program writes it."""
    metric = {"time": "2026-11-21T10:00:00.000+00:00", "step": 3, "epoch": 0.5, "split": split, "values": values}
    return f"[cloudtune] metrics {json.dumps(flat(metric, 9))}"


def test_the_service_s_definitions_find_the_trainer_s_figures() -> None:
    definitions = {one["Name"]: re.compile(one["Regex"]) for one in log_lines.metric_definitions("sft")}
    assert len(definitions) <= 40
    text = line("train", loss=2.5e-05, perplexity=3.0, learning_rate=1e-4)
    found = {name: float(hit[1]) for name, pattern in definitions.items() if (hit := pattern.search(text))}
    assert found == {
        "train:loss": 2.5e-05, "train:perplexity": 3.0, "train:learning_rate": 1e-4, "progress:step": 3,
        "progress:total_steps": 9, "progress:epoch": 0.5,
    }  # fmt: skip
    ended = '[cloudtune] end {"state": "expired", "step": 3, "stopped_by_limit": 1}'
    assert definitions[log_lines.LIMITED].search(ended)[1] == "1"


def test_the_figures_of_pairs_have_definitions_of_their_own() -> None:
    definitions = {one["Name"]: re.compile(one["Regex"]) for one in log_lines.metric_definitions("dpo")}
    assert len(definitions) <= 40
    text = line("validation", **{"loss": 0.5, "accuracy": 0.75, "rewards/chosen": -1.5e-3, "margin": 0.25})
    found = {name: float(hit[1]) for name, pattern in definitions.items() if (hit := pattern.search(text))}
    reported = log_lines.read_figures(text)
    assert reported is not None
    figures = {f"validation:{name}": value for name, value in reported.values.items()}
    assert {name: value for name, value in found.items() if not name.startswith("progress")} == figures
    assert len(figures) == 4


def test_figures_are_read_whole() -> None:
    reported = log_lines.read_figures(line("validation", loss=1.5))
    assert reported is not None
    assert (reported.values, reported.step, reported.split, reported.epoch) == ({"loss": 1.5}, 3, "validation", 0.5)
    for other in ("", "loss: 3", "[cloudtune] metrics {", "[cloudtune] metrics []", '[cloudtune] event {"step": 1}'):
        assert log_lines.read_figures(other) is None


def test_events_of_the_log_are_the_trainer_s() -> None:
    def logged(text: str) -> Event:
        return Event(cursor="c", time=datetime(2026, 11, 21, tzinfo=UTC), message=text, type="log")

    problems = {"time": "2026-11-21T10:00:00.000+00:00", "type": "warning", "level": "warning", "message": "3 rows cut"}
    found = to_events(
        [logged(f"[cloudtune] event {json.dumps(problems)}"), logged(line("train", loss=1.0)), logged("pip says hello")]
    )
    assert [(e.type, e.level, e.message, e.cursor) for e in found] == [
        ("warning", "warning", "3 rows cut", "c"), ("log", "debug", "pip says hello", "c"),
    ]  # fmt: skip
    assert found[0].time == datetime(2026, 11, 21, 10, tzinfo=UTC)


# -- snapshots ---------------------------------------------------------------------------------------------------------


def snapshot(state: JobState, **more: Any) -> JobSnapshot:
    return JobSnapshot(ref=JobRef("sagemaker", "1/r", "j"), state=state, native_state="x", **more)


def kept(**values: float) -> dict[str, Any]:
    return {"FinalMetricDataList": [{"MetricName": f"progress:{name}", "Value": v} for name, v in values.items()]}


def test_how_far_it_is() -> None:
    seen = as_sagemaker(snapshot(JobState.RUNNING, raw=kept(step=3.0, total_steps=9.0, epoch=0.5)))
    assert (seen.progress.step, seen.progress.total_steps, seen.progress.epoch) == (3, 9, 0.5)


def test_a_limit_that_the_trainer_kept_is_no_success() -> None:
    assert as_sagemaker(snapshot(JobState.SUCCEEDED, raw=kept(stopped_by_limit=0.0))).state is JobState.SUCCEEDED
    seen = as_sagemaker(snapshot(JobState.SUCCEEDED, raw=kept(stopped_by_limit=1.0)))
    assert seen.state is JobState.EXPIRED
    assert seen.problem is not None
    assert seen.problem.code == "stopped_by_limit"


@pytest.mark.parametrize(
    ("reason", "code", "message", "hint"),
    [
        ("AlgorithmError: out_of_memory: no room: left\nUse less., exit code: 1", "out_of_memory", "no room: left",
         "Use less."),
        ("AlgorithmError: bad_data: line 3: no", "bad_data", "line 3: no", "usual"),
        ("AlgorithmError: Traceback (most recent call last)", "algorithm_error",
         "AlgorithmError: Traceback (most recent call last)", "usual"),
    ],
)  # fmt: skip
def test_the_trainer_s_own_reason(reason: str, code: str, message: str, hint: str) -> None:
    problem = JobProblem(message=reason, code="algorithm_error", hint="usual")
    seen = as_sagemaker(snapshot(JobState.FAILED, problem=problem)).problem
    assert seen is not None
    assert (seen.code, seen.message, seen.hint) == (code, message, hint)


# -- recipes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        ({"type": "integer", "min": 1, "max": 100}, 3.0, 2.5), ({"type": "integer", "enum": [8, 16]}, 8, 9),
        ({"type": "float", "min": 0.0, "max": 1.0}, 0.5, 1.5), ({"type": "string", "enum": ["cosine"]}, "cosine", "x"),
    ],
)  # fmt: skip
def test_a_recipe_s_rule(rule: dict[str, Any], good: Any, bad: Any) -> None:
    assert fault_of(rule, good) is None
    assert fault_of(rule, bad) is not None
