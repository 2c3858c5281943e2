"""The plan of preference methods: their terms with their sources, and what has no effect on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.local.backend.test_plan import errors_of, planned, sources, spec_json

from cloudtune.spec import JobSpec
from cloudtune_providers.sagemaker import instances
from cloudtune_trainer.run_spec import read_spec
from cloudtune_trainer.submit.preference import PAIRED

if TYPE_CHECKING:
    from pathlib import Path

DPO = {"name": "dpo", "beta": 0.3}


@pytest.mark.parametrize("method", PAIRED)
@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_the_trainer_takes_what_the_plan_holds(tmp_path: Path, method: str, adapter: str) -> None:
    plan = planned(tmp_path, method=method, adapter=adapter, splits=("train", "validation"))
    document = dict(spec_json(plan)) | {"data": {"train": "data/train.jsonl"}}
    read = read_spec(document)
    assert read.preference is not None
    assert read.preference.beta == (2.0 if method == "simpo" else 0.1)
    assert read.preference.margin == (1.0 if method == "simpo" else 0.0)
    assert read.hyperparameters.learning_rate == (1e-6 if adapter == "full" else 1e-5)
    assert sources(plan)["hyperparameters.learning_rate"][1] == f"default of local for {adapter} training by {method}"


def test_every_term_in_force_has_its_source(tmp_path: Path) -> None:
    words = {"loss": "hinge"}
    reported = sources(planned(tmp_path, method=DPO, overrides={"local": {"preference": words}}))
    assert reported["method.beta"] == (0.3, "spec")
    assert reported["overrides.local.preference.loss"] == ("hinge", "override")
    assert "overrides.local.preference.label_smoothing" not in reported
    assert "adapter disabled" in reported["reference"][1]
    full = sources(planned(tmp_path, method="ipo", adapter="full"))
    assert "computed before the first step" in full["reference"][1]
    assert full["method.beta"] == (0.1, "default of local for ipo")
    other = sources(planned(tmp_path, method="simpo"))
    assert "reference" not in other
    assert other["overrides.local.preference.margin"] == (1.0, "default of local for simpo")
    assert "preference" not in spec_json(planned(tmp_path, method="sft"))


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("method.beta", {"method": {"name": "sft", "beta": 0.1}}),
        ("method.loss_on", {"method": {"name": "dpo", "loss_on": "all"}}),
        ("hyperparameters.packing", {"method": "dpo", "hyperparameters": {"packing": True}}),
        (
            "overrides.local.preference.loss",
            {"method": "sft", "overrides": {"local": {"preference": {"loss": "hinge"}}}},
        ),
        (
            "overrides.local.preference.loss",
            {"method": "ipo", "overrides": {"local": {"preference": {"loss": "hinge"}}}},
        ),
        (
            "overrides.local.preference.label_smoothing",
            {"method": "dpo", "overrides": {"local": {"preference": {"loss": "hinge", "label_smoothing": 0.1}}}},
        ),
        ("overrides.local.preference.margin", {"method": "dpo", "overrides": {"local": {"preference": {"margin": 1}}}}),
    ],
)
def test_what_has_no_effect_is_refused(tmp_path: Path, field: str, changes: dict[str, Any]) -> None:
    found = errors_of(tmp_path, **changes)
    assert set(found) == {field}
    assert found[field].severity == "error"
    assert found[field].code == "no_effect"


def test_terms_that_fit_are_not_refused(tmp_path: Path) -> None:
    for method, words in (("dpo", {"loss": "sigmoid", "label_smoothing": 0.1}), ("simpo", {"margin": 0.5})):
        assert not errors_of(tmp_path, method=method, overrides={"local": {"preference": words}})


def test_a_share_of_wrong_labels_below_a_half() -> None:
    from pydantic import ValidationError

    from cloudtune_trainer.submit.preference import PreferenceOverrides

    for wrong in ({"label_smoothing": 0.5}, {"margin": -1}, {"loss": "ipo"}, {"label_smoothing": True}):
        with pytest.raises(ValidationError):
            PreferenceOverrides.model_validate(wrong)


def test_pairs_take_twice_the_room(tmp_path: Path) -> None:
    one, two = (spec_json(planned(tmp_path, method=method)) for method in ("sft", "dpo"))
    single, double = (instances.memory_of(1_000_000_000, document) for document in (one, two))
    assert "for 8,192 tokens" in single.basis
    assert "for 16,384 tokens" in double.basis
    assert double.gib > single.gib


def test_names_are_the_specs() -> None:
    for method in PAIRED:
        assert JobSpec.model_validate({"model": "m", "method": method, "data": {"train": "t"}}).method.name == method
