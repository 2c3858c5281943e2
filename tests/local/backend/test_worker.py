"""The worker: one job from the line to its end, steered from outside. Real processes, scripted trainer."""

from tests.local.backend.submitting import run_of, submit, wait_state


def test_a_job_runs_to_its_end(backend):
    ref = submit(backend, "one")
    snapshot = wait_state(backend, ref, "succeeded")
    assert snapshot.native_state == "succeeded"
    assert snapshot.name == "one" and snapshot.model == "scripted"
    assert snapshot.created_at <= snapshot.started_at <= snapshot.finished_at
    assert snapshot.progress.step == 3 and snapshot.progress.total_steps == 3
    assert [event.message for event in backend.events(ref)][:2] == ["queued as number 1", "starting"]
    assert [metric.step for metric in backend.metrics(ref)] == [1, 2, 3]
    assert not run_of(ref).reserve.exists()
