"""Several calls at a time: the vendor's limits, rejected prompts, and what is stored."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from cloudtune.errors import BackendError, InvalidRequest, PermissionDenied, RateLimited
from cloudtune.evaluation.answers import Answers
from cloudtune.optional import GenerateOptions
from cloudtune.state import Generation
from cloudtune.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

PROMPTS = [f"question {number:02}" for number in range(40)]


class Vendor:
    """Answers each prompt with its upper case. ``fault`` may raise instead."""

    def __init__(self, fault: Callable[[str, int], None] = lambda prompt, calls: None) -> None:
        self.answered: list[str] = []
        self.most_at_a_time = self.calls = 0
        self._now, self._fault, self._lock = 0, fault, threading.Lock()

    def ask(self, prompts: Sequence[str]) -> Iterator[Generation]:
        (prompt,) = prompts
        with self._lock:
            self.calls += 1
            self._now += 1
            calls = self.calls
            self.most_at_a_time = max(self.most_at_a_time, self._now)
        try:
            self._fault(prompt, calls)
        finally:
            with self._lock:
                self._now -= 1
        with self._lock:
            self.answered.append(prompt)
        yield Generation(text=prompt.upper(), finish_reason="stop")


def ask(folder: Path, vendor: Vendor, clock: FakeClock | None = None, parallel: int = 4) -> list[str]:
    store = Answers(folder / "answers.db", clock or FakeClock())
    found = store.get_or_generate("m", PROMPTS, GenerateOptions(), vendor.ask, parallel=parallel)
    return [one.text for one in found]


def test_answers_are_in_the_order_of_the_prompts(tmp_path: Path) -> None:
    together = threading.Barrier(4)
    vendor = Vendor(lambda prompt, calls: together.wait(30) and None)
    assert ask(tmp_path, vendor) == [prompt.upper() for prompt in PROMPTS]
    assert sorted(vendor.answered) == PROMPTS
    assert vendor.most_at_a_time == 4


def test_throttling_waits_as_the_vendor_says(tmp_path: Path) -> None:
    def fault(prompt: str, calls: int) -> None:
        if calls in (10, 20):
            raise RateLimited("slow down", retry_after=37.0)

    clock, vendor = FakeClock(), Vendor(fault)
    before = clock.now()
    assert ask(tmp_path, vendor, clock) == [prompt.upper() for prompt in PROMPTS]
    assert (clock.now() - before).total_seconds() == 2 * 37.0
    assert sorted(vendor.answered) == PROMPTS


def test_endless_throttling_ends_with_its_error(tmp_path: Path) -> None:
    def fault(prompt: str, calls: int) -> None:
        raise RateLimited("slow down")

    with pytest.raises(RateLimited):
        ask(tmp_path, Vendor(fault))


@pytest.mark.parametrize("parallel", [1, 4])
def test_rejected_prompts_are_one_error_after_all_answers(tmp_path: Path, parallel: int) -> None:
    def fault(prompt: str, calls: int) -> None:
        if prompt.endswith("7"):
            raise InvalidRequest("the content filter rejects it")

    vendor = Vendor(fault)
    with pytest.raises(InvalidRequest) as caught:
        ask(tmp_path, vendor, parallel=parallel)
    assert caught.value.message.startswith("4 of 40 prompts were rejected:\n'question 07': the content filter")
    assert len(vendor.answered) == 36
    again = Vendor()
    ask(tmp_path, again)
    assert sorted(again.answered) == [prompt for prompt in PROMPTS if prompt.endswith("7")]


@pytest.mark.parametrize("error", [InvalidRequest("no such model"), PermissionDenied("not yours"), BackendError("?")])
def test_a_vendor_that_rejects_everything_is_asked_few_times(tmp_path: Path, error: Exception) -> None:
    def fault(prompt: str, calls: int) -> None:
        raise error

    vendor = Vendor(fault)
    with pytest.raises(type(error)) as caught:
        ask(tmp_path, vendor)
    assert caught.value is error
    assert vendor.calls <= 3 + 4
