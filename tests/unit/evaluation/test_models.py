"""Models that are named by a vendor's id."""

from __future__ import annotations

from typing import Any

import pytest

from cloudtune.clock import SystemClock
from cloudtune.evaluation.models import model_at
from cloudtune.registry import open_backend


@pytest.mark.parametrize("other", [{"project": "two"}, {"base_url": "http://127.0.0.1:9/v1"}])
def test_answers_are_stored_by_account_and_endpoint(other: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"api_key": "x", "project": "one"}
    first, same, second = (
        model_at("some-model", open_backend("openai", one), SystemClock(), trust_remote_code=False).identity
        for one in (settings, settings, settings | other)
    )
    assert first == same != second
