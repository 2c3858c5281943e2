"""The ssh back end when the connection fails: refused, with another host key, or lost in the middle of a submission."""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.clusters.sshd import HOST
from tests.clusters.worlds import SshWorld

from cloudtune.client import Client
from cloudtune.errors import (
    BackendNotInstalled,
    CredentialsError,
    JobNotFound,
    PermissionDenied,
    TransientError,
    Unavailable,
)
from cloudtune_providers.run_folders.access import Folders
from cloudtune_providers.run_folders.machine import SshMachine
from cloudtune_trainer.worker import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.clusters.sshd import SshServer

    from cloudtune.clock import Clock

pytestmark = pytest.mark.timeout(300)
FAULTS = ("refused", "lost")
_WRAPPER = """\
#!/bin/bash
# Takes one line of the file of faults for each call.
exec 9<>"{folder}/lock"; flock 9
read -r fault < "{folder}/faults"; sed -i 1d "{folder}/faults"
flock -u 9
if [ "$fault" = refused ]; then echo "ssh: connect to host: Connection refused" >&2; exit 255; fi
if [ "$fault" = lost ]; then "{ssh}" "$@" > /dev/null; echo "Connection to host closed." >&2; exit 255; fi
exec "{ssh}" "$@"
"""


@pytest.fixture
def world(tmp_path: Path, ssh_machine: SshServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshWorld]:
    monkeypatch.setenv("CLOUDTUNE_HOME", str(tmp_path / "home"))
    world = SshWorld(tmp_path, tmp_path / "trained", ssh_machine)
    yield world
    world.close()


def folders(server: SshServer, *, host: str = HOST, config: Path | None = None, python: str = "python3") -> Folders:
    return Folders("/nowhere", SshMachine(host, config=str(config or server.config)), python)


def asks(there: Folders) -> None:
    there.call("statuses", root=there.root, runs=None)


def test_another_host_key_is_an_error_and_nothing_is_sent(ssh_machine: SshServer, tmp_path: Path) -> None:
    key = " ".join((ssh_machine.folder / "other_key.pub").read_text().split()[:2])
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{ssh_machine.port} {key}\n")
    config = Path(ssh_machine.config).read_text()
    config = config.replace(f"{ssh_machine.folder}/known_hosts", f"{tmp_path}/known_hosts")
    (tmp_path / "config").write_text(config.replace("/m-%n", "/none-%n"))
    with pytest.raises(PermissionDenied, match="the host key of gpu-box is not the known one"):
        asks(folders(ssh_machine, config=tmp_path / "config"))


def test_a_key_that_is_not_accepted_says_so(ssh_machine: SshServer) -> None:
    with pytest.raises(CredentialsError, match="does not accept a key"):
        asks(folders(ssh_machine, host="stranger"))


def test_a_machine_out_of_reach_can_be_asked_again(ssh_machine: SshServer, tmp_path: Path) -> None:
    config = Path(ssh_machine.config).read_text().replace(f"Port {ssh_machine.port}", "Port 1")
    (tmp_path / "config").write_text(config.replace("/m-%n", "/none-%n"))
    with pytest.raises(Unavailable) as error:
        asks(folders(ssh_machine, config=tmp_path / "config"))
    assert error.value.acted is False


def test_a_missing_interpreter_says_what_to_set(ssh_machine: SshServer) -> None:
    with pytest.raises(BackendNotInstalled, match="cannot run /no/python on gpu-box") as error:
        asks(folders(ssh_machine, python="/no/python"))
    assert "`python`" in str(error.value.hint)


def test_a_reference_to_an_option_of_ssh_is_no_machine(world: SshWorld) -> None:
    with pytest.raises(JobNotFound):
        world.backend().jobs.folders("-oProxyCommand=id:/runs")  # type: ignore[attr-defined]


def faulty_ssh(folder: Path, faults: list[str]) -> Path:
    """A folder for PATH with a client that fails in a given way."""
    (folder / "faults").write_text("".join(f"{fault}\n" for fault in faults))
    program = folder / "bin" / "ssh"
    program.parent.mkdir(exist_ok=True)
    program.write_text(_WRAPPER.format(folder=folder, ssh=shutil.which("ssh")))
    program.chmod(0o755)
    return program.parent


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(2, 201))])
def test_lost_connections_make_no_second_job(
    world: SshWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    choose = random.Random(seed)
    calls = [choose.choice(FAULTS) if choose.random() < 0.3 else "ok" for _ in range(60)] + ["ok"] * 400
    monkeypatch.setenv("PATH", f"{faulty_ssh(tmp_path, calls)}{os.pathsep}{os.environ['PATH']}")
    clock: Clock = world.clock
    client = Client(world.backend(), ledger=f"sqlite:///{tmp_path}/ledger.db", clock=QuickClock(clock))
    for _ in range(20):
        try:
            job = client.submit(world.spec())
            break
        except TransientError:
            continue
    else:
        pytest.fail("it was never submitted")
    assert [job.ref.id] == list(world.jobs())
    assert len(world.uploads()) == 2


class QuickClock:
    """Waits a thousandth of the time: the faults do not depend on it."""

    def __init__(self, clock: Clock) -> None:
        self.now, self._clock, self._ahead = clock.now, clock, 0.0

    def monotonic(self) -> float:
        return self._clock.monotonic() + self._ahead

    def sleep(self, seconds: float) -> None:
        self._clock.sleep(seconds / 1000)
        self._ahead += seconds


def test_a_failed_installation_has_the_words_of_pip(tmp_path: Path) -> None:
    """A failed installation reports pip's own words."""
    wanted = {"root": str(tmp_path / "runs"), "python": sys.executable, "packages": ["--no-index", "surely-no-package"]}
    environment.install(**wanted)  # type: ignore[arg-type]
    deadline = time.monotonic() + 200
    while (found := environment.installed(**wanted))["state"] == "pending":  # type: ignore[arg-type]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert found["state"] == "failed"
    assert "No matching distribution found for surely-no-package" in found["message"]
    assert Path(environment.environment_python(**wanted)).exists()  # type: ignore[arg-type]
