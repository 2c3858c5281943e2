"""The labels that methods learn."""

from __future__ import annotations

from cloudtune.data.checks.label_checks import labels_of
from cloudtune.data.records import Labelled


def test_large_numbers_are_different_labels() -> None:
    labels = [1_000_000, 1_000_001, 1_000_001.5, "1000002"]
    found = [labels_of(Labelled(text="a", label=label), "regression") for label in labels]
    assert found == [["1000000.0"], ["1000001.0"], ["1000001.5"], ["1000002.0"]]


def test_equal_numbers_are_one_label() -> None:
    assert len({str(labels_of(Labelled(text="a", label=label), "regression")) for label in (5, 5.0, "5", "5.00")}) == 1
