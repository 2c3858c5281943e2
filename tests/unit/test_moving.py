"""A moved spec loses no field without an entry, and the back end that it is moved to accepts it."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest

from cloudtune.capability_check import fit
from cloudtune.document.specfile import load_spec
from cloudtune.document.writing import spec_text
from cloudtune.errors import InputError, UnsupportedError
from cloudtune.moving import Move, move
from cloudtune.registry import open_backend
from cloudtune.spec import JobSpec

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtune.backend import Backend

AWS = {"bucket": "my-bucket", "role_arn": "arn:aws:iam::123456789012:role/cloudtune", "region": "us-east-1"}
SETTINGS: dict[str, dict[str, Any]] = {
    "azure_openai": {"endpoint": "https://mine.openai.azure.com"},
    "bedrock": AWS, "jumpstart": AWS, "local": {}, "openai": {"base_url": "http://localhost:1/v1"}, "sagemaker": AWS,
}  # fmt: skip
MODELS = {
    "azure_openai": "gpt-4.1-mini-2025-04-14", "bedrock": "amazon.nova-lite-v1:0:300k", "jumpstart": "some-model",
    "local": "org/some-model", "openai": "gpt-4.1-mini-2025-04-14", "sagemaker": "org/some-model",
}  # fmt: skip
OVERRIDES: dict[str, dict[str, Any]] = {
    "azure_openai": {"n_epochs": 3, "suffix": "mine", "learning_rate_multiplier": 0.1, "training_type": "Standard"},
    "bedrock": {"hyperparameters": {"epochCount": "2", "learningRate": "0.0001"}, "model_name": "mine"},
    "jumpstart": {"hyperparameters": {"epoch": 2, "peft_type": "lora"}, "instance_type": "ml.g5.2xlarge"},
    "local": {"log_every": 5, "threads": 2, "preference": {"label_smoothing": 0.1}},
    "openai": {"n_epochs": "auto", "batch_size": 4, "suffix": "a-name-of-more-than-18-characters"},
    "sagemaker": {"instance_type": "ml.g5.xlarge", "spot": True, "revision": "v2", "log_every": 2},
}
FULL: dict[str, Any] = {
    "name": "support", "data": {"train": "/rows/train.jsonl", "validation": 0.1, "test": 0.2, "split_seed": 3},
    "adapter": {"type": "lora", "rank": 16, "alpha": 32.0, "targets": ["q_proj"]},
    "hyperparameters": {"epochs": 40.0, "batch_size": 8, "learning_rate": 2e-4, "warmup_steps": 3, "max_length": 512},
    "validation": {"every": 10, "early_stopping": {"patience": 2}}, "checkpoints": {"every": 10, "keep": 2},
    "limits": {"max_time": 7200.0, "max_cost_usd": 20.0}, "evaluation": {"max_tokens": 16, "metrics": ["exact_match"]},
    "tags": {"team": "search", "cost-center": "7"}, "seed": 7,
}  # fmt: skip
PAIRS = list(itertools.permutations(SETTINGS, 2))


@pytest.fixture(scope="module")
def backends() -> dict[str, Backend]:
    return {name: open_backend(name, settings) for name, settings in SETTINGS.items()}


def spec_for(source: str, method: str, **changes: Any) -> JobSpec:
    settings = {"method": {"name": method, "loss_on": "assistant"}} | FULL
    document = {"model": MODELS[source], "overrides": {source: OVERRIDES[source]}, **settings, **changes}
    return JobSpec.model_validate(document)


def leaves(value: Any, above: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {above: value}
    return {
        key: leaf for name, item in value.items() for key, leaf in leaves(item, f"{above}.{name}".strip(".")).items()
    }


def moved(backends: dict[str, Backend], source: str, target: str, method: str, **changes: Any) -> Move:
    return move(spec_for(source, method, **changes), backends[source], backends[target], model=MODELS[target])


@pytest.mark.parametrize("method", ["sft", "dpo"])
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_no_field_is_lost_silently(backends: dict[str, Backend], source: str, target: str, method: str) -> None:
    if not backends[target].capabilities.can(f"method:{method}"):
        with pytest.raises(UnsupportedError, match=f"{target} does not support {method}.*{target} supports .*sft"):
            moved(backends, source, target, method)
        return
    found = moved(backends, source, target, method)
    before, after = (
        leaves(one.model_dump(mode="json", exclude_none=True)) for one in (spec_for(source, method), found.spec)
    )
    listed = {change.field: change for change in found.changes}
    assert all(change.reason for change in (*found.changes, *found.abilities))
    for field in {*before, *after}:
        if before.get(field) != after.get(field):
            place = next((change for change in found.changes if change.to == field), None)
            change = listed[field] if place is None or field in before else place
            assert change.now == after.get(change.to or field)
            assert change.was == before.get(change.field)
    fit(found.spec, backends[target])  # the target accepts it
    assert not [problem for problem in found.problems if problem.severity == "error"]


@pytest.mark.parametrize("target", SETTINGS)
def test_the_written_spec_is_read_as_it_was(backends: dict[str, Backend], target: str, tmp_path: Path) -> None:
    source = "local" if target != "local" else "openai"
    rows = {"train": {"path": str(tmp_path / "rows.jsonl")}, "test": {"path": [str(tmp_path / "a"), "s3://b/c"]}}
    changes = {"data": rows, "tags": {"note": f"yes: # {tmp_path}/x\u2028 \u00e9"}, "adapter": {}}
    spec = moved(backends, source, target, "sft", **changes).spec
    text = spec_text(spec, tmp_path, ["a comment"])
    assert "./rows.jsonl" in text
    (tmp_path / "job.yaml").write_text(text, encoding="utf-8")
    assert load_spec(tmp_path / "job.yaml") == spec


def test_settings_with_one_meaning_move(backends: dict[str, Backend]) -> None:
    found = {change.field: change for change in moved(backends, "azure_openai", "openai", "sft").changes}
    assert found["overrides.azure_openai.suffix"].to == "overrides.openai.suffix"
    assert (found["overrides.azure_openai.n_epochs"].to, found["overrides.azure_openai.n_epochs"].kind) == (
        "hyperparameters.epochs", "moved",
    )  # fmt: skip
    assert found["hyperparameters.epochs"].kind == "changed"
    assert found["overrides.azure_openai.training_type"].kind == "lost"
    found = {change.field: change for change in moved(backends, "openai", "azure_openai", "sft").changes}
    assert "at most 18 characters" in found["overrides.openai.suffix"].reason
    assert found["overrides.openai.n_epochs"].kind == "lost"


def test_an_override_for_the_target_is_kept(backends: dict[str, Backend]) -> None:
    overrides = {"openai": {"suffix": "old"}, "azure_openai": {"suffix": "new"}}
    found = moved(backends, "openai", "azure_openai", "sft", overrides=overrides)
    assert found.spec.overrides == {"azure_openai": {"suffix": "new"}}
    assert [(one.field, one.reason) for one in found.changes if one.kind == "lost" and "suffix" in one.field] == [
        ("overrides.openai.suffix", "the spec already has overrides.azure_openai.suffix")
    ]


def test_refused_values_are_listed_with_the_reason(backends: dict[str, Backend]) -> None:
    changes = {"hyperparameters": {"epochs": 40, "learning_rate": 2e-4, "warmup_steps": 21}}
    found = {change.field: change for change in moved(backends, "local", "bedrock", "sft", **changes).changes}
    assert (found["hyperparameters.epochs"].was, found["hyperparameters.epochs"].now) == (40, 5)  # the nearest value
    assert "at most 5" in found["hyperparameters.epochs"].reason
    spec = JobSpec.model_validate({"model": "a", "data": {"train": "b"}, "method": {"name": "dpo", "beta": 9}})
    found = {
        one.field: one for one in move(spec, backends["local"], backends["openai"], model="gpt-4o-2024-08-06").changes
    }
    assert found["method.beta"].now is None  # no range is known by that name
    found = {change.field: change for change in moved(backends, "local", "bedrock", "sft").changes}
    assert found["seed"].reason == "Bedrock accepts no seed"


def test_deployment_and_rows_are_listed(backends: dict[str, Backend]) -> None:
    found = {one.field: one for one in moved(backends, "openai", "bedrock", "sft").abilities}
    assert found["verb:deploy"].now == "required"
    assert (found["rows"].was, found["rows"].now) == ("openai", "bedrock-converse")


@pytest.mark.parametrize(
    ("source", "target", "model", "expected"),
    [
        ("openai", "azure_openai", "gpt-4.1-mini-2025-04-14", "gpt-4.1-mini-2025-04-14"),
        ("openai", "bedrock", "gpt-4.1-mini-2025-04-14", "amazon.nova-lite-v1:0:300k"),
        ("openai", "bedrock", "ft:gpt-4.1-nano-2025-04-14:me::x", "amazon.nova-micro-v1:0:128k"),
        ("bedrock", "sagemaker", "meta.llama3-2-1b-instruct-v1:0:128k", "meta-llama/Llama-3.2-1B-Instruct"),
        ("local", "bedrock", "meta-llama/Llama-3.2-1B-Instruct", "meta.llama3-2-1b-instruct-v1:0:128k"),
        ("local", "sagemaker", "org/some-model", "org/some-model"),
        ("openai", "local", "gpt-4.1-mini-2025-04-14", None),
        ("local", "openai", "org/some-model", None),
        ("local", "bedrock", "/weights/mine", None),
    ],
)
def test_the_catalog_names_the_base_model(
    backends: dict[str, Backend], source: str, target: str, model: str, expected: str | None
) -> None:
    spec = spec_for(source, "sft", model=model)
    if expected is None:
        with pytest.raises(InputError, match=f"no model of {target} is known to replace .*--model"):
            move(spec, backends[source], backends[target])
    else:
        assert move(spec, backends[source], backends[target]).spec.model == expected


def test_models_of_other_back_ends_are_kept(backends: dict[str, Backend]) -> None:
    models = {"openai": "gpt-4.1-mini-2025-04-14", "local": "org/small"}
    spec = spec_for("openai", "sft", model=models)
    assert move(spec, backends["openai"], backends["local"]).spec.model == models
    found = move(spec, backends["openai"], backends["bedrock"])
    assert found.spec.model == models | {"bedrock": "amazon.nova-lite-v1:0:300k"}
    assert json.dumps([change.field for change in found.changes if change.field.startswith("model")]) == (
        '["model.bedrock"]'
    )


def test_a_spec_is_not_moved_to_its_own_back_end(backends: dict[str, Backend]) -> None:
    with pytest.raises(InputError, match="for openai already"):
        move(spec_for("openai", "sft"), backends["openai"], backends["openai"])


def test_searched_parameters_move_with_their_settings(backends: dict[str, Backend]) -> None:
    parameters = {
        "overrides.openai.n_epochs": {"low": 1, "high": 4}, "overrides.openai.batch_size": [4, 8],
        "hyperparameters.learning_rate": [1e-5, 1e-3], "overrides.openai.learning_rate_multiplier": [0.5, 2.0],
    }  # fmt: skip
    given = {"hyperparameters": {}, "overrides": {}, "tune": {"parameters": parameters}}
    found = moved(backends, "openai", "local", "sft", **given)
    assert found.spec.tune is not None
    assert set(found.spec.tune.parameters) == {
        "hyperparameters.epochs", "hyperparameters.learning_rate", "hyperparameters.batch_size",
    }  # fmt: skip
    lost = {one.field: one.reason for one in found.changes if one.kind == "lost"}
    assert "no setting with this meaning" in lost["tune.parameters.overrides.openai.learning_rate_multiplier.choices"]
    back = moved(backends, "local", "openai", "sft", hyperparameters={}, tune={"parameters": {"adapter.rank": [4, 8]}},
                 overrides={}, adapter=None)  # fmt: skip
    assert back.spec.tune is None
    assert next(one.reason for one in back.changes if one.field.startswith("tune."))
