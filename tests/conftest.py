"""What holds in every test: nobody is reached over a network, and nobody's own configuration is read."""

from __future__ import annotations

import gc
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("cloudtune.testing.contract")

# A busy machine is no failure: pytest-timeout alone limits the time of a test.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")


# A shell that starts the tests in the background lets them, and all their children, ignore these two signals; then no
# test of Ctrl-C could work. A handler here is the default in every child.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


# Tiny tensors gain nothing from threads, which get in the way of the other tests.
os.environ.setdefault("OMP_NUM_THREADS", "1")
for _name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
    os.environ[_name] = "1"
# Container images often set this. Without bytecode, every process that a test starts compiles the same modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# A busy machine draws an example slowly. That says nothing about a test.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


_MEMORY = Path("/dev/shm")
_ENOUGH_MEMORY = 4 << 30


def _is_for_temporary_files(memory: Path) -> bool:
    """Whether the folder in memory has space for all tests, and programs in it may be started."""
    if not (memory.is_dir() and os.access(memory, os.W_OK)):
        return False
    found = os.statvfs(memory)
    return found.f_bavail * found.f_frsize > _ENOUGH_MEMORY and not found.f_flag & os.ST_NOEXEC


# What tests ask is what survives the death of a process, not of the machine, so they need not wait for a disk.
if "TMPDIR" not in os.environ and _is_for_temporary_files(_MEMORY):
    os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)


def pytest_configure(config: pytest.Config) -> None:
    """Let the trainers that tests start be forked from one process that has imported torch: see tests/warm.

    ``PYTHON_WARM_SERVER= make test`` starts each one anew.
    """
    warm = Path(__file__).with_name("warm")
    if (server_path := os.environ.get("PYTHON_WARM_SERVER")) is not None or sys.platform != "linux":
        if server_path:  # in a worker of xdist; tests pass sys.path on to the processes that they start
            sys.path.append(str(warm))
        return
    folder = tempfile.mkdtemp(prefix="warm-")
    os.environ["PYTHON_WARM_SERVER"] = f"{folder}/server"
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(warm), os.environ.get("PYTHONPATH")]))
    sys.path.append(str(warm))
    server = subprocess.Popen([sys.executable, warm / "server.py", f"{folder}/server"], stdin=subprocess.PIPE)

    def end() -> None:
        server.communicate()
        shutil.rmtree(folder)

    config.add_cleanup(end)


gc.disable()  # until all is imported and collected


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Keep what was imported and collected, a million objects, out of the garbage collector's passes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    """Keep the warm server's imports, a minute on a busy machine, out of the time that a test has."""
    if item.get_closest_marker("starts_trainer") and os.environ.get("PYTHON_WARM_SERVER"):
        _wait_for_imports()
    return (yield)


@cache
def _wait_for_imports() -> None:
    """Start a trainer without a folder: once the server has imported everything, it ends with its usage."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-m", "cloudtune_trainer"], env=environment, capture_output=True, check=False)


class NetworkBlocked(RuntimeError):
    """A test tried to reach something other than this machine."""


def _is_here(address: Any) -> bool:
    if not isinstance(address, tuple):
        return True  # a path: a socket of this machine
    host = address[0]
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _guarded(method: str) -> Any:
    original = getattr(socket.socket, method)

    def checked(self: socket.socket, address: Any, *rest: Any) -> Any:
        if not _is_here(address):
            raise NetworkBlocked(f"a test tried to reach {address}")
        return original(self, address, *rest)

    return checked


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """``boto3.client`` reads the credentials in the environment once a process; each emulator has its own.

    All sessions share what they read of botocore's service models.
    """
    if (boto3 := sys.modules.get("boto3")) is not None:
        from cloudtune_providers.aws.clients import service_models

        boto3.DEFAULT_SESSION = None
        sys.modules["botocore.session"].create_loader = service_models  # type: ignore[attr-defined]


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Any:
    patch = pytest.MonkeyPatch()
    for method in ("connect", "connect_ex"):
        patch.setattr(socket.socket, method, _guarded(method))
    resolve = socket.getaddrinfo

    def checked(host: Any, *rest: Any, **options: Any) -> Any:
        if not _is_here((host or "",)):
            raise NetworkBlocked(f"a test tried to look up {host}")
        return resolve(host, *rest, **options)

    patch.setattr(socket, "getaddrinfo", checked)
    yield
    patch.undo()


@pytest.fixture
def memory_path(tmp_path: Path) -> Any:
    """As tmp_path, but in memory where the machine offers that: for tests that commit hundreds of times to disk.

    What they ask is what survives the death of a process, not of the machine.
    """
    memory = Path("/dev/shm")
    if not (memory.is_dir() and os.access(memory, os.W_OK)):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="cloudtune-test-") as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def _own_environment() -> Any:
    """No test leaves a variable behind: ``monkeypatch`` undoes its changes after the fixtures that it was used in."""
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True)
def _nobodys_home(
    _own_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No test reads or writes the configuration, the ledger or the caches of whoever runs it."""
    home: Path = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(home / name.lower()))
    for name in ("CLOUDTUNE_BACKEND", "CLOUDTUNE_LEDGER", "CLOUDTUNE_PROFILE", "CLOUDTUNE_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def slurm_cluster(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A real Slurm controller with two nodes, started once for all workers of the run."""
    from tests.clusters import slurm

    if reason := slurm.missing():
        pytest.skip(reason)
    base = tmp_path_factory.getbasetemp()
    place = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    with slurm.shared_cluster(place / "slurm") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A real Ray cluster with two nodes, started once for all workers of the run."""
    from tests.clusters import ray

    if reason := ray.missing():
        pytest.skip(reason)
    base = tmp_path_factory.getbasetemp()
    place = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    with ray.shared_cluster(place / "ray") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def ssh_machine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A real OpenSSH server on loopback, one for each worker of the run."""
    from tests.clusters import sshd

    if reason := sshd.missing():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="sshd-"))  # a socket's path must be short
    with sshd.ssh_server(folder) as server:
        yield server
    shutil.rmtree(folder, ignore_errors=True)
