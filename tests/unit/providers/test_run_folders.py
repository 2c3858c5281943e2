"""Back ends with run folders, without their engines: refusals, errors, and files that other users planted."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cloudtune.errors import Unavailable
from cloudtune.methods import METHODS
from cloudtune.spec import JobSpec
from cloudtune_providers.ray import states as ray_states
from cloudtune_providers.ray import translate as ray_translate
from cloudtune_providers.run_folders import access as folder_access
from cloudtune_providers.run_folders import machine
from cloudtune_providers.run_folders.access import Folders
from cloudtune_providers.run_folders.machine import SshMachine
from cloudtune_providers.slurm.backend import _newest
from cloudtune_providers.slurm.capabilities import capabilities as slurm_capabilities
from cloudtune_providers.slurm.cluster import Cluster, QueueEntry
from cloudtune_providers.slurm.options import Options as SlurmOptions
from cloudtune_providers.slurm.options import Overrides as SlurmOverrides
from cloudtune_providers.slurm.script import sbatch_arguments
from cloudtune_providers.ssh.capabilities import capabilities as ssh_capabilities
from cloudtune_trainer.folder import write_json
from cloudtune_trainer.ray import __main__ as ray_driver
from cloudtune_trainer.submit.bundle import pack, requirements
from cloudtune_trainer.submit.distributed import gpu_problems
from cloudtune_trainer.submit.inference import NEEDS
from cloudtune_trainer.worker import access, batch
from cloudtune_trainer.worker.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudtune.backend import Capabilities

ON_LOGIN_NODE = SlurmOptions(folder="/shared")
BY_SSH = SlurmOptions(folder="/shared", host="login")
MEDIA = [f"method:{name}" for name, method in METHODS.items() if method.media is not None]


@pytest.mark.parametrize(
    "found",
    [slurm_capabilities(ON_LOGIN_NODE), slurm_capabilities(BY_SSH), ssh_capabilities(), ray_translate.capabilities()],
)
def test_methods_whose_files_are_not_uploaded_are_refused(found: Capabilities) -> None:
    assert MEDIA
    assert not found.supports.intersection(MEDIA)
    assert all("not uploaded: " in found.reasons[name] for name in MEDIA)


@pytest.mark.parametrize(
    ("said", "acted"),
    [
        ("ssh: connect to host gpu port 22: Connection refused", False),
        ("ssh: Could not resolve hostname gpu: Name or service not known", False),
        ("/x/config: terminating, 1 bad configuration options", False),
        ("Read from remote host gpu: Connection timed out", None),
        ("no such identity: /x/key: No such file or directory\nConnection to gpu closed by remote host.", None),
        ("motd: permission denied for strangers\nclient_loop: send disconnect: Broken pipe", None),
    ],
)
def test_a_lost_connection_may_have_sent_the_command(said: str, acted: bool | None) -> None:
    error = machine._failure("gpu", said)
    assert isinstance(error, Unavailable)
    assert error.acted is acted


def test_the_run_time_continues_after_a_requeue(tmp_path: Path) -> None:
    """A limit in money becomes a run time: Slurm's restarts must not begin it again."""
    run = Run(tmp_path)
    who = {"pid": 1, "start_time": "1", "boot_id": "b", "since": "2026-01-01T00:00:00.000+00:00", "earlier_s": 30.0}
    write_json(run.spec, {})
    write_json(run.worker, who)
    write_json(run.status, {"state": "training", "updated_at": "2026-01-01T00:01:00.000+00:00"})
    assert batch._earlier_seconds(run) == 90.0
    write_json(run.worker, who | {"earlier_s": 90.0})
    write_json(run.job, {"max_seconds": 90.0, "max_restarts": 10})
    batch._look_after(run, None, node="n1", job_id="7", restarts=1)  # type: ignore[arg-type]
    assert run.recorded_status()["state"] == "expired"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
@pytest.mark.parametrize("planted", [".files", ".new", ".environments"])
def test_folders_that_another_user_planted_are_refused(tmp_path: Path, planted: str) -> None:
    (tmp_path / planted).mkdir()
    os.chown(tmp_path / planted, 4321, 4321)
    root = str(tmp_path)
    calls: dict[str, Callable[[], object]] = {
        ".files": lambda: access.put_file(io.BytesIO(b"x"), root, "rows/a", 1, None),
        ".new": lambda: access.create_run(root, "mine", {}, {}, start=False),
        ".environments": lambda: access.install(root, "python3", []),
    }
    with pytest.raises(access.Refused, match="belongs to another user"):
        calls[planted]()
    assert not list((tmp_path / planted).iterdir())


def test_a_job_of_another_ray_cluster_does_not_look_ended() -> None:
    """The address in the settings may change: a job that runs elsewhere is not lost."""
    status = {"state": "training", "detail": "step 3", "started_at": "2026-01-01T00:00:00+00:00"}
    shown = {"state": "training", "detail": "", "problem": None, "status": status, "job": {}, "worker": None}
    document = shown | {"derived": False, "requests": [], "submitted": {"address": "http://a:8265"}}
    elsewhere = ray_states.combined(document, None, "http://b:8265")
    assert (elsewhere.state, elsewhere.is_final) == ("training", False)
    assert "submitted to http://a:8265" in elsewhere.detail
    assert ray_states.combined(document, None, "http://a:8265").state == "failed"


def test_the_accounting_is_asked_in_any_time_zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run folder has UTC, sacct the local time: at 04:00 in California, a job is created at 12:00."""
    program = tmp_path / "sacct"
    program.write_text(
        "#!/bin/bash\n"
        'for word; do case "$word" in --starttime=*) since="${word#*=}";; esac; done\n'
        '[[ "$since" < 2026-01-10T04:00:01 ]] && echo "2026-01-10T04:00:01|TIMEOUT"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    folders = Folders(str(tmp_path), None, "")
    created = datetime(2026, 1, 10, 12, tzinfo=UTC)
    assert Cluster().recorded_state(folders, "mine", created) == "TIMEOUT"


def unpacked(root: Path, contents: dict[str, bytes]) -> Path:
    content = pack(contents)
    access.put_file(io.BytesIO(content), str(root), "code/a", len(content), None)
    return Path(access.unpack_code(str(root), "code/a")["path"])


def test_code_is_unpacked_without_the_filters_of_tarfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian 12 has Python 3.11.2, where `extractall` has no filters."""
    monkeypatch.delattr("tarfile.TarFile.extractall")
    file = unpacked(tmp_path, {"package/module.py": b"pass"}) / "package" / "module.py"
    assert file.read_bytes() == b"pass"
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(access.Refused, match="is not the name of a file"):
        unpacked(tmp_path / "other", {"../module.py": b"pass"})
    assert [path.name for path in (tmp_path / "other" / ".files" / "code").iterdir()] == ["a"]


def test_a_folder_that_this_user_may_not_read_is_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as ``lost+found``, or the runs of another user below the same root."""
    for name in ("lost+found", "mine"):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "spec.json", {})
    opened = os.open

    def refusing(path: str | Path, *more: int, **others: int) -> int:
        if "lost+found" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *more, **others)

    monkeypatch.setattr(os, "open", refusing)
    assert list(access.statuses(str(tmp_path), None)["runs"]) == ["mine"]
    with pytest.raises(PermissionError):
        access.statuses(str(tmp_path), ["lost+found"])


class HungGroup:
    """A group that does not stop."""

    def __init__(self) -> None:
        self.sent: list[int] = []

    def poll(self) -> list[int | None]:
        return [None]

    def send(self, number: int) -> None:
        self.sent.append(number)


def test_a_cancelled_ray_job_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_GRACE_S", "_LOOK_S"):
        monkeypatch.setattr(ray_driver, name, 0.02)
    monkeypatch.setattr(ray_driver.signal, "signal", lambda *_: None)
    run, group = Run(tmp_path), HungGroup()
    run.ask("cancel")
    assert ray_driver.Driver(run)._wait(group) == [None]  # type: ignore[arg-type]
    assert group.sent == [signal.SIGTERM]


def test_what_a_program_prints_need_not_be_text() -> None:
    """Such as the name of another job of this user in squeue."""
    assert access.run_command(["printf", r"a\377b"], "", ["PATH"], [])["out"] == "a\ufffdb"


def test_the_program_for_another_machine_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """For csh as the login shell there."""
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/ssh")
    words = SshMachine("gpu")._argv(["python3", *folder_access._PROGRAM])
    assert all("\n" not in word for word in words)
    done = subprocess.run([sys.executable, *folder_access._PROGRAM], input=b"{}", capture_output=True, check=False)
    assert b"KeyError" in done.stderr  # it ran, and missed the request


def test_a_percent_sign_in_the_folder_is_no_pattern_of_slurm() -> None:
    found = sbatch_arguments(
        ON_LOGIN_NODE, SlurmOverrides(), name="a", token="b", run="/shared/100%used/a", signal_s=120
    )
    assert "--output=/shared/100%%used/a/slurm.log" in found


@pytest.mark.parametrize(
    ("slots", "gpus", "is_refused"), [(1, 4, True), (2, 4, False), ("auto", 4, False), (1, 0, False)]
)
def test_more_processes_than_slots_are_refused(slots: Any, gpus: int, is_refused: bool) -> None:
    """A job gets a GPU for each slot."""
    spec = JobSpec.model_validate({"model": "m", "data": {"train": "rows.jsonl"}, "distributed": {"processes": 2}})
    assert bool(list(gpu_problems(spec, gpus, None if slots == "auto" else slots, "ssh"))) is is_refused


@pytest.mark.parametrize("words", [(), ("fetch",)])
def test_an_ssh_client_that_hangs_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    program = tmp_path / "ssh"
    program.write_text("#!/bin/sh\nexec sleep 300\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    far = SshMachine("gpu", timeout=0.2)
    body = bytes(1 << 20)  # more than the pipe takes
    with pytest.raises(Unavailable, match=r"no response within 0\.2 s"):
        far.fetch(["true"], body, io.BytesIO()) if words else far.run(["true"], [body])


def test_of_two_batch_jobs_the_one_that_runs_tells_the_state() -> None:
    words = {"1": "RUNNING", "2": "PENDING", "3": "FAILED"}
    jobs = [
        QueueEntry(number, word, f"2026-01-01T00:00:0{number}", "token", "", "", "") for number, word in words.items()
    ]
    assert [_newest(some, "token").job_id for some in (jobs, jobs[1:], jobs[2:])] == ["1", "2", "3"]  # type: ignore[union-attr]


def test_the_packages_on_another_machine_have_the_tested_versions() -> None:
    found = requirements()
    assert {line.partition("==")[0] for line in found} > set(NEEDS) - {"torch"}
    assert all(re.fullmatch(r"[a-z0-9]+==[0-9.]+", line) for line in found)
