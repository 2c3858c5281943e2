"""The core and the trainer, which knows nothing of the core, agree on what is written between them."""

from __future__ import annotations

import dataclasses
from typing import get_args, get_type_hints

import cloudtune_trainer.submit.plan as core
from cloudtune.methods import METHODS
from cloudtune.spec_distributed import Distributed, StrategyName
from cloudtune.spec_method import Reward
from cloudtune.spec_trained import Adapter, AdapterName, Layers, Stage
from cloudtune_trainer import distributed_spec, policy_spec, run_spec, spec_trained
from cloudtune_trainer.adapters import ADAPTERS
from cloudtune_trainer.folder import SPEC_VERSION
from cloudtune_trainer.submit import policy, preference


def test_the_version_is_the_trainers() -> None:
    assert core.RUN_SPEC_VERSION == SPEC_VERSION


def test_tasks_of_methods_are_the_trainers() -> None:
    assert {name: METHODS[name].task for name in core.TRAINED} == run_spec.TASKS


def test_adapters_are_the_specs() -> None:
    fields = {
        field.name: field.default
        for field in dataclasses.fields(run_spec.Adapter)
        if field.name not in ("type", "fingerprint")
    }
    assert set(ADAPTERS) <= set(get_args(AdapterName))
    for entry in ADAPTERS.values():
        assert entry.settings.items() <= fields.items()
        assert set(entry.options) <= fields.keys() - entry.settings.keys()
    assert set(fields) == set(Adapter.model_fields) - {"type"}


def test_methods_with_a_reference_are_the_trainers() -> None:
    referred = {name for name in core.TRAINED if METHODS[name].reference}
    assert referred == set(core.TRAINED) & set(run_spec.WITH_REFERENCE)


def test_layers_are_the_specs() -> None:
    for ours, theirs in ((spec_trained.Layers, Layers), (spec_trained.Stage, Stage)):
        assert {field.name for field in dataclasses.fields(ours)} == set(theirs.model_fields)


def test_groups_of_processes_are_the_specs() -> None:
    assert {field.name for field in dataclasses.fields(distributed_spec.Distributed)} == set(Distributed.model_fields)
    assert get_type_hints(distributed_spec.Distributed)["strategy"] == StrategyName


def test_pairs_are_the_trainers() -> None:
    reported = {*preference.PreferenceOverrides.model_fields, "beta"}
    assert reported == set(get_type_hints(run_spec.Preference))


def test_rewards_are_the_trainers() -> None:
    reported = {*policy.PolicyOverrides.model_fields, "beta", *policy.FIELDS}
    assert reported == set(get_type_hints(policy_spec.Policy))
    assert {*Reward.model_fields, "fingerprint"} == set(get_type_hints(policy_spec.Reward))


def test_what_is_untaught_has_a_reason_each() -> None:
    reasons = core.unsupported_features()
    assert "method:rft" in reasons
    assert not {f"method:{name}" for name in core.TRAINED} & reasons.keys()
    assert all(len(reason) > 10 for reason in reasons.values())
