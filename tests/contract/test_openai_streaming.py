"""Answers in pieces, over the wire: both services, by both of their APIs; and what breaks off on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.emulated import AzureWorld, EmulatedWorld

from cloudtune.client import Client
from cloudtune.errors import QuotaExceeded, Unavailable
from cloudtune.optional import GenerateOptions
from cloudtune.state import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloudtune.job import Job

WORLDS = {"openai": EmulatedWorld, "azure_openai": AzureWorld}
PROMPT = "What is 2 plus 3, and why is that so, if it is?"
PIECEMEAL = GenerateOptions(stream=True)


@pytest.fixture(params=["chat", "responses"])
def by(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, tmp_path: Path, by: str) -> Iterator[EmulatedWorld]:
    world = WORLDS[request.param](tmp_path, answers=by)
    yield world
    world.close()


@pytest.fixture
def job(world: EmulatedWorld) -> Job:
    job = Client(world.backend(), ledger=f"sqlite:///{world.root}/ledger.db", clock=world.clock).submit(world.spec())
    world.reach(job.ref, JobState.SUCCEEDED)
    if job.result().needs_deploy:
        job.deploy()
    return job


def test_pieces_come_before_the_whole(job: Job) -> None:
    (plain,) = job.generate([PROMPT])
    *pieces, whole = job.generate([PROMPT], PIECEMEAL)
    assert len(pieces) > 3
    assert all(piece.partial for piece in pieces)
    assert "".join(piece.text for piece in pieces) == whole.text
    assert whole == plain, "text, reason, model and counts of tokens are those of an answer told at once"
    assert whole.completion_tokens


def test_what_was_asked_to_be_short_says_so(job: Job) -> None:
    options = GenerateOptions(stream=True, max_tokens=2)
    *pieces, whole = job.generate([PROMPT], options)
    assert pieces
    assert (whole.finish_reason, whole) == (next(job.generate([PROMPT], GenerateOptions(max_tokens=2))).finish_reason,
                                            next(job.generate([PROMPT], GenerateOptions(max_tokens=2))))  # fmt: skip
    assert whole.finish_reason != "stop"


@pytest.mark.parametrize("pieces", [1, 6])
def test_an_answer_that_breaks_off_is_no_answer(world: EmulatedWorld, job: Job, by: str, pieces: int) -> None:
    call = "chat.create" if by == "chat" else "responses.create"
    world.emulator.faults.add("cut_answer", call, requests=pieces)
    reported = []
    with pytest.raises(Unavailable, match="model ") as broken:
        for answer in job.generate([PROMPT], PIECEMEAL):
            reported.append(answer)  # noqa: PERF402 - what came before the break is to be seen
    assert all(answer.partial for answer in reported)
    assert bool(reported) == (pieces > 1)  # the first tells only whose turn it is
    assert broken.value.exit_code == 6
    assert len(list(job.generate([PROMPT], PIECEMEAL))) > 3, "the next one is whole again"


def test_a_refusal_comes_before_the_first_piece(world: EmulatedWorld, job: Job, by: str) -> None:
    call = "chat.create" if by == "chat" else "responses.create"
    world.emulator.faults.add("throttle", call, code="insufficient_quota")
    with pytest.raises(QuotaExceeded):
        next(job.generate([PROMPT], PIECEMEAL))


def test_half_an_answer_may_be_left(world: EmulatedWorld, job: Job) -> None:
    answers: Any = job.generate([PROMPT], PIECEMEAL)
    assert next(answers).partial
    answers.close()
    assert len(list(job.generate([PROMPT]))) == 1
