"""The contract: clauses 1 to 21 that every back end fulfills, as tests for any back end.

::

    from cloudtune.testing.contract import BackendContract

    class TestMine(BackendContract):
        expected_skips = 2  # pinned: how many clauses this back end is excused from; printed with their reasons
        snapshots = Path(__file__).parent / "snapshots"

        @pytest.fixture
        def world(self, tmp_path):
            return MyWorld(tmp_path)

A `World` (`cloudtune.testing.world`) gives a test control over the vendor's side; `cloudtune.testing.scripted_world` is
one. Put ``pytest.register_assert_rewrite("cloudtune.testing.contract")`` into your conftest before this is imported, so
that failures show their values. Register the marker ``soak``: the cases that have it take minutes. A clause is skipped
only where the back end's capabilities, or the world's ``lacks``, give the reason. Needs pytest.
"""

from cloudtune.testing.contract.harness import needs
from cloudtune.testing.contract.life_clauses import LifeClauses
from cloudtune.testing.contract.once_clauses import OnceClauses
from cloudtune.testing.contract.plan_clauses import PlanClauses
from cloudtune.testing.contract.read_clauses import ReadClauses
from cloudtune.testing.contract.verb_clauses import VerbClauses

__all__ = ["BackendContract", "needs"]


class BackendContract(PlanClauses, LifeClauses, OnceClauses, ReadClauses, VerbClauses):
    """All clauses. Needs a fixture ``world``; ``backend`` and ``client`` are derived from it and can be replaced."""
