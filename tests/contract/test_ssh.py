"""The ssh back end keeps the contract: a real OpenSSH server, real run folders and workers behind it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.clusters.worlds import SshWorld
from tests.local.backend.directed import SECRET, trained_run

from cloudtune.testing.contract import BackendContract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.clusters.sshd import SshServer

# Each look at the machine is a process there: all clauses take minutes. `make test` has those of the Slurm back end,
# which reads and plans with the same code, and tests/clusters/test_ssh_details.py.
pytestmark = [pytest.mark.starts_trainer, pytest.mark.soak, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_run(tmp_path_factory.mktemp("trained"))


class TestSsh(BackendContract):
    expected_skips = 9  # what only a vendor's API can do, deployments, and a missing package
    snapshots = Path(__file__).parent / "snapshots"

    @pytest.fixture
    def world(
        self, tmp_path: Path, trained: Path, ssh_machine: SshServer, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[SshWorld]:
        monkeypatch.setenv("CLOUDTUNE_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_TOKEN", SECRET)  # the submitting user's; it must not be written anywhere
        world = SshWorld(tmp_path, trained, ssh_machine)
        yield world
        world.close()
