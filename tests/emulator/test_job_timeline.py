"""A scripted job's life, for any script and anything done to it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, get_args, get_type_hints

from hypothesis import given
from hypothesis import strategies as st

from cloudtune_emulator.job_timeline import ENDED, Actions, JobStatus, Script, TrainingPlan, results, status_at

WORDS = ("validating_files", "queued", "running", "pausing", "paused", "succeeded", "failed", "cancelled")
seconds = st.floats(0, 50).map(lambda value: round(value, 1))
scripts = st.builds(
    Script, validating_s=seconds, queued_s=seconds, running_s=st.floats(0.1, 100), pausing_s=st.floats(0, 5),
    fail_at=st.none() | st.floats(0, 1),
)  # fmt: skip
courses = st.builds(
    lambda steps, epochs, validation, bad: TrainingPlan(
        steps=steps * epochs, epochs=epochs, batch_size=1, learning_rate_multiplier=1.0, tokens=10,
        has_validation=validation, error={"code": "c", "message": "m", "param": None} if bad else None,
    ),
    st.integers(1, 200), st.integers(1, 5), st.booleans(), st.booleans(),
)  # fmt: skip


def look(script: Script, course: TrainingPlan, acts: Actions, now: float) -> JobStatus:
    return status_at("ftjob-1", 1000.0, 7, script, course, acts, now)


@given(
    script=scripts,
    course=courses,
    moves=st.lists(st.tuples(seconds, st.sampled_from(["", "pause", "resume", "cancel"]))),
)
def test_time_only_adds(script: Script, course: TrainingPlan, moves: list[tuple[float, str]]) -> None:
    """Told events and checkpoints stay; an ended job never changes; acts are done as the API allows them."""
    now, acts = 1000.0, Actions()
    before = look(script, course, acts, now)
    for wait, act in moves:
        now += wait
        seen = look(script, course, acts, now)
        assert seen.word in WORDS
        assert seen.events[: len(before.events)] == before.events
        assert seen.checkpoints[: len(before.checkpoints)] == before.checkpoints
        assert all(one.at <= now for one in (*seen.events, *seen.checkpoints))
        assert all(one.at <= other.at for one, other in pairwise(seen.events))
        if before.word in ENDED:
            assert seen == before
        allowed = {"pause": ("running",), "resume": ("paused",), "cancel": set(WORDS) - ENDED}
        if act and seen.word in allowed[act]:
            acts = Actions((*acts.entries, (now, act)))
            after = look(script, course, acts, now)
            assert after.events[: len(seen.events)] == seen.events
            assert (
                after.word
                in {"pause": ("pausing", "paused"), "resume": ("running", *ENDED), "cancel": ("cancelled",)}[act]
            )
            seen = after
        before = seen


@given(script=scripts, course=courses)
def test_a_job_left_alone_ends_as_its_script_says(script: Script, course: TrainingPlan) -> None:
    total = script.validating_s + script.queued_s + script.running_s
    seen = look(script, course, Actions(), 1000.0 + total + 1)
    good = course.error is None and script.fail_at is None
    assert seen.word == ("succeeded" if good else "failed")
    assert (seen.error is None) == good
    assert (seen.trained_tokens is not None) == good
    if good:
        assert seen.checkpoints[-1].is_last
        assert len(seen.checkpoints) == course.epochs
        assert [row["step"] for row in results(7, script, course)] == list(range(1, course.steps + 1))


def test_a_pause_moves_the_end_by_its_length() -> None:
    course = TrainingPlan(steps=60, epochs=3, batch_size=1, learning_rate_multiplier=1.0, tokens=10)
    script = Script(validating_s=1, queued_s=1, running_s=60)
    acts = Actions(((1010.0, "pause"), (1110.0, "resume")))
    assert look(script, course, acts, 1161.9).word == "running"
    ended = look(script, course, acts, 1162.0)
    assert (ended.word, ended.finished_at) == ("succeeded", 1162.0)


def test_the_tables_agree_with_the_sdk() -> None:
    """What the vendor's SDK knows is what the emulator knows: a new version that differs fails here."""
    from openai.types import FilePurpose
    from openai.types.fine_tuning import FineTuningJob, job_create_params

    from cloudtune_emulator.faults import CONDITIONS, REQUEST_FAULTS, Fault
    from cloudtune_emulator.openai import create_job, files

    status: Any = FineTuningJob.model_fields["status"].annotation
    assert set(get_args(status)) == set(WORDS) - {"pausing", "paused"}
    assert set(get_args(FilePurpose)) == set(files.PURPOSES)
    assert set(job_create_params.JobCreateParams.__annotations__) == create_job.KNOWN
    assert set(get_args(get_type_hints(Fault)["kind"])) == REQUEST_FAULTS | CONDITIONS
    assert not REQUEST_FAULTS & CONDITIONS
