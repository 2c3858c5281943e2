"""The Ray back end as the contract suite sees it: a real cluster, and a trainer that takes orders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.clusters.worlds import directed_python, no_code
from tests.local.backend.directed import LocalWorld
from tests.local.backend.submitting import wait_until

from cloudtune.clock import SystemClock
from cloudtune.testing.world import Recipe
from cloudtune_providers.ray.backend import RayBackend
from cloudtune_providers.ray.options import Options

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.clusters.ray import RayCluster

    from cloudtune.backend import Backend
    from cloudtune.clock import Clock
    from cloudtune.state import JobRef
    from cloudtune_trainer.worker.run import Run


def open_ray(root: str, address: str) -> tuple[Backend, Clock]:
    """The recipe."""
    options = Options(
        address=address, shared_folder=f"{root}/runs", python=f"{root}/directed-python", cpus=0.01
    )  # fmt: skip
    return RayBackend(options, code=no_code), SystemClock()


class RayWorld(LocalWorld):
    """Jobs of a real Ray cluster."""

    def __init__(self, root: Path, trained: Path, cluster: RayCluster) -> None:
        super().__init__(root, trained)
        self.cluster = cluster
        self.sdk_modules = ("ray",)
        from ray.job_submission import JobStatus  # not in a process without Ray

        self.words = [status.value for status in JobStatus]
        self.lacks = {
            **self.lacks, "paused": "a paused job would keep its part of the cluster",
            "words": "the state is that of the run folder while Ray's job runs",
        }  # fmt: skip

    def _python(self, trained: Path) -> None:
        directed_python(self.root / "directed-python", self.stage, trained)

    def recipe(self) -> Recipe:
        arguments = {"root": str(self.root), "address": self.cluster.address}
        return Recipe(target="tests.clusters.ray_world:open_ray", arguments=arguments)

    def _client(self) -> Any:
        from ray.job_submission import JobSubmissionClient

        return JobSubmissionClient(self.cluster.address)

    def _wait_for_start(self, ref: JobRef) -> None:
        wait_until(lambda: self._done(ref) is not None, what="the trainer")

    def _wait_for_end(self, run: Run) -> None:
        wait_until(lambda: self._client().get_job_status(run.slug).is_terminal())

    def jobs(self) -> Sequence[str]:
        """From the cluster's own list."""
        mine = {path.parent.name for path in self.runs.glob("*/job.json")}
        found = self._client().list_jobs()
        return [str(job.submission_id) for job in sorted(found, key=lambda job: job.start_time or 0)
                if job.submission_id in mine]  # fmt: skip

    def uploads(self) -> Sequence[str]:
        return sorted(str(path) for path in self.runs.glob(".files/rows/*"))

    def close(self) -> None:
        client = self._client()
        for job in self.jobs():
            client.stop_job(job)
