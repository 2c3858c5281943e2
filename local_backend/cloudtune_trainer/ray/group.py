"""The group of processes on a Ray cluster: a placement group, an actor for each process, and their rendezvous.

Ray Train's TorchTrainer would do the same, but it needs pandas and pyarrow on every node, runs the training function in
a thread of the actor (no signals; memory that is never freed), and keeps checkpoints in a format of its own. Here each
actor starts ``python -m cloudtune_trainer``, the program that runs everywhere else, with the variables of
torch.distributed. What a trainer process does, it cannot do to Ray: an out-of-memory error ends it alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.ray.member import Member, digest_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune_trainer.worker.run import Run

_ANSWER_S = 60.0
"""An actor that does not answer for this long is lost, with its node."""
_LOST = -1001
"""The exit code of a process whose actor is lost."""


@dataclass(frozen=True)
class Shape:
    """The resources of a group."""

    processes: int
    nodes: int | None
    """None: as few nodes as possible."""
    cpus: float
    """CPUs of each process."""
    gpus: float
    """GPUs of each process."""

    def bundles(self) -> list[dict[str, float]]:
        """Ray's resource bundles: one for each process, or for each node."""
        each = self.processes // self.nodes if self.nodes else 1
        one = {"CPU": self.cpus * each} | ({"GPU": self.gpus * each} if self.gpus else {})
        return [one] * (self.nodes or self.processes)

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        nodes = f" on {self.nodes} nodes" if self.nodes else ""
        return f"{self.processes} x ({self.cpus:g} CPU{gpus}){nodes}"


class Reservation:
    """A placement group: resources that Ray keeps for this job, once it has them."""

    def __init__(self, shape: Shape) -> None:
        from ray.util.placement_group import placement_group

        self.shape = shape
        self.placement = placement_group(shape.bundles(), strategy="STRICT_SPREAD" if shape.nodes else "PACK")

    def is_ready(self, patience: float) -> bool:
        """Whether the resources are there; waits for them up to that long."""
        return bool(self.placement.wait(patience))

    def give_back(self) -> None:
        """Let other jobs have the resources. Ends the actors in it."""
        from ray.util.placement_group import remove_placement_group

        remove_placement_group(self.placement)


class Group:
    """The processes of one start of the training, in a reservation that is ready."""

    def __init__(self, run: Run, reservation: Reservation) -> None:
        """Place the actors and check their nodes. Raises `TrainingProblem` if a node does not see the run."""
        self._run = run
        self.lost: list[int] = []
        """Ranks whose node or actor is gone."""
        shape = reservation.shape
        each = shape.processes // shape.nodes if shape.nodes else 1
        self._members = [_actor(run, reservation, rank // each) for rank in range(shape.processes)]
        self._codes: list[int | None] = [None] * shape.processes

    def start(self) -> None:
        """Start all processes. Raises `TrainingProblem`, and Ray's error if a node is gone."""
        import ray

        digest = digest_of(self._run.spec)
        places = ray.get([member.look.remote(digest) for member in self._members])
        if problems := sorted({place.problem for place in places if place.problem}):
            raise TrainingProblem("no_shared_folder", "; ".join(problems), "Then submit again with --again.")
        size = str(len(self._members))
        group = {} if size == "1" else {
            "WORLD_SIZE": size, "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
            "MASTER_ADDR": places[0].address, "MASTER_PORT": str(places[0].port),
        }  # fmt: skip
        ray.get([member.start.remote(rank, group) for rank, member in enumerate(self._members)])

    def poll(self) -> list[int | None]:
        """The exit code of each process, None while it runs."""
        import ray

        running = [rank for rank, code in enumerate(self._codes) if code is None]
        answers = [(rank, self._members[rank].poll.remote()) for rank in running]
        for rank, answer in answers:
            try:
                self._codes[rank] = ray.get(answer, timeout=_ANSWER_S)
            except ray.exceptions.RayError:
                self._codes[rank] = _LOST
                self.lost.append(rank)
        return self._codes

    def send(self, number: int) -> None:
        """Signal the processes that run."""
        for rank, code in enumerate(self._codes):
            if code is None:
                self._members[rank].send.remote(number)

    def describe_end(self) -> str:
        """How the first process that failed has ended, for people."""
        for rank, code in enumerate(self._codes):
            if rank in self.lost:
                return f"the node of process {rank} was lost"
            if code and code < 0:
                return f"process {rank} was killed by signal {-code}"
            if code:
                return f"process {rank} ended with code {code}"
        return "the processes ended without a result"


def _actor(run: Run, reservation: Reservation, bundle: int) -> Any:
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    shape = reservation.shape
    where = PlacementGroupSchedulingStrategy(reservation.placement, placement_group_bundle_index=bundle)
    actor = ray.remote(num_cpus=shape.cpus, num_gpus=shape.gpus, scheduling_strategy=where, max_restarts=0)(Member)
    return actor.remote(str(run.path))


def ranks_that_failed(codes: Sequence[int | None]) -> list[int]:
    """The ranks of processes with an exit code other than 0."""
    return [rank for rank, code in enumerate(codes) if code]
