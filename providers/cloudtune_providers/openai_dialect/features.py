"""Capabilities for every feature: an unsupported feature without its own reason gets a default one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.backend import VERBS, Capabilities
from cloudtune.spec import spec_features

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

COMMON_OVERRIDES = {
    "n_epochs": "hyperparameters.epochs", "batch_size": "hyperparameters.batch_size",
    "learning_rate_multiplier": "learning_rate_multiplier", "suffix": "suffix",
}  # fmt: skip


def complete(
    supported: Iterable[str],
    *,
    refused: Mapping[str, str],
    inherent: frozenset[str],
    translated: Mapping[str, str],
    no_choice: str,
    no_value: str,
    overridden_by: Mapping[str, str] | None = None,
    common_overrides: Mapping[str, str] | None = None,
) -> Capabilities:
    """The verbs and these features, without those that are refused.

    ``no_choice`` is the reason for methods, adapters and verbs that have none, ``no_value`` for the fields.
    """
    supports = {*supported, *inherent, *VERBS} - refused.keys()
    left = {*spec_features(), *VERBS} - supports - refused.keys()
    return Capabilities(
        supports=frozenset(supports), translated=dict(translated), inherent=inherent,
        reasons={**refused, **{feature: no_choice if ":" in feature else no_value for feature in left}},
        overridden_by=dict(overridden_by or {}), common_overrides=dict(common_overrides or {}),
    )  # fmt: skip
