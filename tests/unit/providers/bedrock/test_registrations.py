"""Bedrock's responses about registered models are read even with missing fields."""

from __future__ import annotations

from typing import Any

import pytest

from cloudtune.state import JobRef, JobState
from cloudtune_providers.bedrock import responses

ARN = "arn:aws:bedrock:us-east-1:123456789012:custom-model/imported/abcdefghijkl"
TUNED = "arn:aws:bedrock:us-east-1:123456789012:custom-model/amazon.nova-lite-v1:0:300k/abcdefghijkl"
REF = JobRef("bedrock", "123456789012/us-east-1", "registration/mine")


@pytest.mark.parametrize(
    ("told", "is_one"),
    [
        ({"modelArn": ARN, "customizationType": "IMPORTED"}, True),
        ({"modelArn": ARN, "customizationType": "imported"}, True),
        ({"modelArn": ARN}, True),
        ({"modelArn": TUNED, "customizationType": "IMPORTED"}, True),
        ({"modelArn": TUNED, "customizationType": "FINE_TUNING"}, False),
        ({"modelArn": TUNED}, False),
    ],
)
def test_registered_models_are_told_from_tuned_ones(told: dict[str, Any], is_one: bool) -> None:
    assert responses.is_registered(told) is is_one


def test_a_failure_without_words_says_where_they_may_be_had() -> None:
    reported = {"modelArn": ARN, "modelName": "mine", "modelStatus": "Failed"}
    snapshot = responses.to_registration_snapshot(reported, REF.scope)
    assert (snapshot.ref, snapshot.state, snapshot.created_at) == (REF, JobState.FAILED, None)
    assert snapshot.problem is not None
    assert "show" in str(snapshot.problem.hint)
    assert responses.to_registered_model(reported, {}, REF, REF.scope) is None


def test_the_base_is_what_bedrock_says_else_what_was_noted() -> None:
    reported = {"modelArn": ARN, "modelName": "mine", "modelStatus": "Active", "customizationType": "IMPORTED"}
    noted = {responses.BASE_TAG: "amazon.nova-pro-v1:0", responses.ADAPTER_TAG: "full"}
    model = responses.to_registered_model(reported, noted, REF, REF.scope)
    assert model is not None
    assert (model.base, model.adapter, model.needs_deploy) == ("amazon.nova-pro-v1:0", "full", True)
    base = "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-micro-v1:0:128k"
    model = responses.to_registered_model(reported | {"baseModelArn": base}, noted, REF, REF.scope)
    assert model is not None
    assert model.base == "amazon.nova-micro-v1:0:128k"
