"""How a job ended is told by its name: killed, out of memory, disk full, crashed. Real processes, and real limits where
the machine lets a test set them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.local.backend.submitting import (
    kill,
    kill_all,
    run_of,
    scripted_backend,
    scripted_python,
    submit,
    wait_state,
    wait_until,
)

from cloudtune.errors import PermissionDenied, QuotaExceeded
from cloudtune_trainer.folder import read_json
from cloudtune_trainer.worker.exit_cause import ProcessExit, cause
from cloudtune_trainer.worker.trainer_process import Trainer

GIB = 2**30


def limited_backend(root, folder, line, **options):
    """A back end whose trainer runs under a limit, set by a line of shell."""
    program = folder / "limited"
    program.write_text(f'#!/bin/sh\n{line}\nexec "{scripted_python(folder)}" "$@"\n')
    program.chmod(0o755)
    return scripted_backend(root, folder, **{**options, "python": program})


def failure(backend, ref):
    snapshot = wait_state(backend, ref, "failed")
    assert snapshot.problem is not None
    assert snapshot.problem.hint
    last = backend.events(ref)[-1]
    assert (last.level, last.observed) == ("error", False)
    return snapshot.problem


def test_a_killed_trainer(backend):
    ref = submit(backend, "one", "steps 100000 0.02")
    wait_state(backend, ref, "running")
    kill(wait_until(lambda: read_json(run_of(ref).worker).get("trainer"))["pid"])
    problem = failure(backend, ref)
    assert problem.code == "killed"
    assert "SIGKILL" in problem.message


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_trainer_that_dies_of_another_signal_from_outside(backend, number):
    ref = submit(backend, "one", f"signal {int(number)}")
    assert failure(backend, ref).code in ("killed", "crashed")
    assert number.name in failure(backend, ref).message or number == signal.SIGINT


def test_a_segfault_is_a_crash(backend):
    problem = failure(backend, submit(backend, "one", "say loading_the_kernel signal 11"))
    assert problem.code == "crashed"
    assert "SIGSEGV" in problem.message
    assert "loading the kernel" in problem.message


def test_a_crash_tells_the_last_line_of_the_log(backend):
    problem = failure(backend, submit(backend, "one", "say ValueError:_no_such_thing exit 1"))
    assert problem.code == "crashed"
    assert "ended with code 1: ValueError: no such thing" in problem.message


def test_an_end_without_a_word_is_a_crash(backend):
    assert "unknown status" in failure(backend, submit(backend, "one", "exit 0")).message


def test_an_interpreter_that_does_not_exist_is_a_crash(backend):
    backend.options.python.unlink()
    problem = failure(backend, submit(backend, "one"))
    assert problem.code == "crashed"
    assert str(backend.options.python) in problem.message


def test_memory_refused_by_the_system_is_out_of_memory(root, tmp_path):
    backend = limited_backend(root, tmp_path, "ulimit -v 300000")
    assert failure(backend, submit(backend, "one", "eat 4000")).code == "out_of_memory"


@pytest.mark.skipif(not os.access("/sys/fs/cgroup/memory", os.W_OK), reason="no memory control groups to write to")
def test_killed_by_the_kernel_for_want_of_memory(root, tmp_path):
    group = Path("/sys/fs/cgroup/memory") / f"cloudtune-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(64 << 20))
        backend = limited_backend(root, tmp_path, f'echo $$ > "{group}/cgroup.procs"')
        ref = submit(backend, "one", "steps 1 0 eat 400")
        problem = failure(backend, ref)
        assert problem.code == "out_of_memory"
        assert "kernel" in problem.message
    finally:
        kill_all(root)
        wait_until(lambda: _removed(group))


def _removed(group):
    try:
        group.rmdir()
    except OSError:
        return False
    return True


def test_a_file_that_may_grow_no_more_is_disk_full(root, tmp_path):
    backend = limited_backend(root, tmp_path, "ulimit -f 2000")
    problem = failure(backend, submit(backend, "one", f"fill {tmp_path}/big"))
    assert problem.code == "disk_full"


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 4 MiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this user may not mount a small disk")
    yield folder
    kill_all(folder / "runs")
    wait_until(lambda: subprocess.run(["umount", str(folder)], capture_output=True, check=False).returncode == 0)


def test_a_full_disk_is_told_on_the_full_disk(small_disk, tmp_path):
    """Neither log nor status can be written any more; the space that was kept for it is enough to say so."""
    backend = scripted_backend(small_disk / "runs", tmp_path)
    ref = submit(backend, "one", f"steps 2 0.01 fill {small_disk}/big")
    problem = failure(backend, ref)
    assert problem.code == "disk_full"
    assert wait_until(lambda: backend.get(ref).finished_at)


def test_submitting_to_a_full_disk_says_so_and_leaves_nothing(small_disk, tmp_path):
    backend = scripted_backend(small_disk / "runs", tmp_path)
    with open(small_disk / "big", "wb", buffering=0) as file:
        file.write(b"x" * ((4 << 20) - (16 << 10)))
    backend = scripted_backend(small_disk / "runs", tmp_path)
    rows = tmp_path / "spool" / "rows.jsonl"
    from tests.local.backend.submitting import Notes, create_step

    step = create_step(backend, "one", "steps 1 0", rows)
    with pytest.raises(QuotaExceeded, match="no space left in"):
        backend.do(step, Notes())
    assert list(backend.list()) == []
    (small_disk / "big").unlink()
    assert backend.do(step, Notes())["ref"]


def test_no_permission_to_write(tmp_path):
    from tests.local.backend.submitting import Notes, create_step

    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    backend = scripted_backend(locked / "runs", tmp_path)
    step = create_step(backend, "one", "steps 1 0", tmp_path / "spool" / "rows.jsonl")
    if os.getuid():
        with pytest.raises(PermissionDenied, match="no permission to write"):
            backend.do(step, Notes())
        return
    # root may write anywhere: ask as somebody else
    tmp_path.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(PermissionDenied, match="no permission to write") as raised:
            backend.do(step, Notes())
    finally:
        os.seteuid(0)
    assert "root" in raised.value.hint


KILLED = -signal.SIGKILL


@pytest.mark.parametrize(
    ("death", "code"),
    [
        (ProcessExit(KILLED), "killed"),
        (ProcessExit(KILLED, oom_kills=1), "out_of_memory"),
        (ProcessExit(KILLED, peak_bytes=15 * GIB, memory_bytes=16 * GIB), "out_of_memory"),
        (ProcessExit(KILLED, peak_bytes=8 * GIB, memory_bytes=16 * GIB), "killed"),
        (ProcessExit(KILLED, disk_free_bytes=0), "killed"),
        (
            ProcessExit(1, log_tail="torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"),
            "out_of_memory",
        ),
        (ProcessExit(1, log_tail="numpy._core._exceptions._ArrayMemoryError: Unable\nMemoryError"), "out_of_memory"),
        (ProcessExit(1, log_tail="OSError: [Errno 28] No space left on device"), "disk_full"),
        (ProcessExit(1, log_tail="OSError: [Errno 122] Disk quota exceeded"), "disk_full"),
        (ProcessExit(1, disk_free_bytes=0), "disk_full"),
        (ProcessExit(1, disk_free_bytes=10 * GIB, log_tail="KeyError: 'x'"), "crashed"),
        (ProcessExit(-signal.SIGXFSZ), "disk_full"),
        (ProcessExit(-signal.SIGBUS, disk_free_bytes=0), "disk_full"),
        (ProcessExit(-signal.SIGBUS, disk_free_bytes=10 * GIB), "crashed"),
        (ProcessExit(-signal.SIGABRT), "crashed"),
        (ProcessExit(0), "crashed"),
        (ProcessExit(-64), "crashed"),
    ],
)
def test_causes(death, code):
    found = cause(death)
    assert found["code"] == code
    assert found["message"]
    assert found["hint"]


def test_the_killed_process_is_the_cause_if_all_have_ended_between_two_polls():
    programs = ("raise SystemExit(1)", "import os; os.kill(os.getpid(), 9)")
    group = [subprocess.Popen([sys.executable, "-c", program]) for program in programs]
    trainer = Trainer.__new__(Trainer)  # without starting a trainer
    trainer._pids, trainer._ended, trainer._failed, trainer._failed_at = [one.pid for one in group], {}, None, None
    trainer._port = None
    for process in group:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        process.returncode = 0  # the trainer reaps it
    ended = trainer.poll()
    assert ended is not None
    assert ended.code == -9
