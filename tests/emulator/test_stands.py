"""The local adapter used in place of the vendor's has the requested settings."""

from __future__ import annotations

import pytest

from cloudtune_emulator.train_engine import _adapter

ASKED = {"rank": 32.0, "alpha": 64.0, "dropout": 0.0}


@pytest.mark.parametrize("stands", ["full", {"type": "full"}, None])
def test_all_weights_stay_all_weights(stands: object) -> None:
    assert _adapter(stands, ASKED) == stands  # type: ignore[arg-type]


def test_an_adapter_is_made_as_asked() -> None:
    requested = {"rank": 32, "alpha": 64.0, "dropout": 0.0}
    assert _adapter("lora", ASKED) == {"type": "lora"} | requested
    assert _adapter({"type": "lora", "rank": 8, "targets": "all-linear"}, ASKED) == requested | {
        "type": "lora", "targets": "all-linear",
    }  # fmt: skip
    assert isinstance(_adapter("lora", ASKED)["rank"], int)  # type: ignore[index,call-overload]
    assert _adapter("lora", {}) == "lora"
