"""Metrics in the logs and files of vendors: other values than numbers are skipped, wherever they are read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from cloudtune.state import Event
from cloudtune_providers.bedrock import responses as bedrock
from cloudtune_providers.jumpstart.results import figures
from cloudtune_providers.openai_dialect import responses as openai
from cloudtune_providers.sagemaker.log_lines import read_figures

if TYPE_CHECKING:
    from collections.abc import Callable

VALUES = ("1e999", "-1e999", "NaN", "1" + "0" * 400, "[]", "{}", "null", "true", '"x"', "[" * 9000, "\0", "a" * 200_000)


def csv_of(name: str, value: str, step: str, loss: str) -> str:
    return f"{step},{loss},{name}\n1,2,{value}\n"


def _event(name: str, value: str) -> object:
    try:
        data = json.loads(f'{{"step": 1, "train_loss": 2, "{name}": {value}}}')
    except (ValueError, RecursionError):
        data = {"step": 1, name: value}
    return openai.metrics_of(Event(cursor="c", time=datetime.now(UTC), type="metrics", message="", data=data))


READERS: dict[str, tuple[Callable[[str, str], object], tuple[str, ...]]] = {
    "openai event": (_event, ("step", "train_loss", "epoch")),
    "openai file": (
        lambda name, value: openai.result_metrics(csv_of(name, value, "step", "train_loss").encode()),
        ("step", "train_loss", "epoch"),
    ),
    "bedrock file": (
        lambda name, value: list(bedrock.metrics_of(csv_of(name, value, "step_number", "training_loss"), "train")),
        ("step_number", "training_loss", "epoch_number"),
    ),
    "trainer's log": (
        lambda name, value: read_figures(f'[cloudtune] metrics {{"step": 1, "train:loss": 2, "{name}": {value}}}'),
        ("step", "train:loss", "epoch", "time"),
    ),
    "Hugging Face's log": (
        lambda name, value: figures(f"{{'loss': 2, '{name}': {value}}}"), ("loss", "epoch", "eval_loss"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
def test_values_that_are_no_numbers_are_skipped(reader: str) -> None:
    read, names = READERS[reader]
    assert read("other", "3")
    for name in names:
        for value in VALUES:
            read(name, value)
            assert read(name, "5")


def test_a_log_line_with_a_list_as_key_has_no_metrics() -> None:
    assert figures("{[]: 1, 'loss': 2}") is None
