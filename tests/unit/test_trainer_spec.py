"""The core and the trainer, which knows nothing of the core, agree on what is written between them."""

from __future__ import annotations

from typing import get_args, get_type_hints

import cloudtune_trainer.submit.plan as core
from cloudtune_trainer import run_spec
from cloudtune_trainer.folder import SPEC_VERSION
from cloudtune_trainer.submit import preference


def test_the_version_is_the_trainers() -> None:
    assert core.RUN_SPEC_VERSION == SPEC_VERSION


def test_methods_and_adapters_are_the_trainers() -> None:
    hints = get_type_hints(run_spec.RunSpec)
    assert set(core.METHODS) == set(get_args(hints["method"]))
    assert set(core.ADAPTERS) == set(get_args(get_type_hints(run_spec.Adapter)["type"]))


def test_pairs_are_the_trainers() -> None:
    assert set(preference.PAIRED) == set(run_spec.PAIRED)
    told = {*preference.PreferenceOverrides.model_fields, "beta"}
    assert told == set(get_type_hints(run_spec.Preference))


def test_what_is_untaught_has_a_reason_each() -> None:
    reasons = core.unsupported_features()
    assert "method:kto" in reasons
    assert not {f"method:{name}" for name in core.METHODS} & reasons.keys()
    assert all(len(reason) > 10 for reason in reasons.values())
