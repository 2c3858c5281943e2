"""What a job's status is, from Ray's word and the run folder's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloudtune.errors import InvalidRequest, JobNotFound, PermissionDenied, RateLimited, Unavailable
from cloudtune.state import JobRef
from cloudtune_providers.ray.backend import RayBackend
from cloudtune_providers.ray.cluster import _error_of
from cloudtune_providers.ray.options import Options
from cloudtune_providers.ray.states import PHASES, RayJob, combined
from cloudtune_providers.ray.translate import TOKEN


def document(state: str, *requests: str, **status: Any) -> dict[str, Any]:
    recorded = {"state": state, **status}
    return {
        "state": state, "detail": "", "problem": None, "status": recorded, "job": {}, "worker": None, "derived": False,
        "requests": list(requests), "submitted": None,
    }  # fmt: skip


def test_the_table_has_every_state_of_the_installed_ray() -> None:
    jobs = pytest.importorskip("ray.job_submission")
    assert set(PHASES) == {status.value for status in jobs.JobStatus}


@pytest.mark.parametrize(
    ("recorded", "job", "expected"),
    [
        (document("queued"), None, "queued"),
        (document("queued"), RayJob("PENDING", "waiting"), "queued"),
        (document("queued", "cancel"), RayJob("PENDING", ""), "cancelling"),
        (document("training", started_at="t"), RayJob("RUNNING", ""), "training"),
        (document("training", "cancel", started_at="t"), RayJob("RUNNING", ""), "cancelling"),
        (document("training", started_at="t"), RayJob("STOPPED", ""), "cancelled"),
        (document("training", started_at="t"), RayJob("FAILED", "killed"), "failed"),
        (document("training", started_at="t"), None, "failed"),
        (document("queued"), RayJob("FAILED", "no module named ray"), "failed"),
        (document("succeeded"), RayJob("FAILED", "its head was lost later"), "succeeded"),
        (document("training", started_at="t"), RayJob("NEW_WORD", ""), "training"),
    ],
)
def test_states(recorded: dict[str, Any], job: RayJob | None, expected: str) -> None:
    assert combined(recorded, job).state == expected


def test_a_lost_driver_is_an_interruption_and_a_job_that_never_started_is_not() -> None:
    lost = combined(document("training", started_at="t", detail="step 3"), RayJob("FAILED", "")).problem
    assert lost is not None
    assert lost["interrupted"]
    assert "Ray says FAILED" in lost["message"]
    never = combined(
        document("queued"), RayJob("FAILED", "Traceback\nModuleNotFoundError: No module named 'ray'")
    ).problem
    assert never is not None
    assert never["code"] == "not_started"
    assert "No module named 'ray'" in never["message"]


@pytest.mark.parametrize(
    ("code", "kind"),
    [(404, JobNotFound), (429, RateLimited), (403, PermissionDenied), (503, Unavailable), (400, InvalidRequest)],
)
def test_responses(code: int, kind: type[Exception]) -> None:
    error = _error_of(f"Request failed with status code {code}: no.", "one", "http://127.0.0.1:8265")
    assert isinstance(error, kind)
    taken = _error_of(
        "Request failed with status code 500: Job with submission_id one already exists.", "one", "http://h"
    )
    assert isinstance(taken, InvalidRequest)


@pytest.mark.parametrize(("metadata", "deleted"), [({}, []), ({TOKEN: "t"}, ["a"])])
def test_only_jobs_of_cloudtune_are_deleted_in_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metadata: dict[str, str], deleted: list[str]
) -> None:
    backend, found = RayBackend(Options(address="http://a:8265", shared_folder=str(tmp_path))), []
    monkeypatch.setattr(backend._cluster, "find", lambda _: (RayJob("SUCCEEDED", ""), metadata))
    monkeypatch.setattr(backend._cluster, "delete", found.append)
    backend.delete(JobRef("ray", str(tmp_path), "a"))
    assert found == deleted
