"""What Slurm says about a job, together with its run folder, in every combination that matters."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cloudtune.errors import BackendNotInstalled, InvalidRequest, PermissionDenied, QuotaExceeded, Unavailable
from cloudtune_providers.slurm import cluster, states
from cloudtune_providers.slurm.options import Options, Overrides
from cloudtune_providers.slurm.script import batch_script, sbatch_arguments
from cloudtune_providers.slurm.translate import gpu_count
from cloudtune_trainer.worker.run import Run

KILLED = {"code": "killed", "message": "received SIGTERM", "hint": None, "interrupted": True}
SUBMITTED = {"job": "7"}


def document(status: dict[str, Any], *, requests: tuple[str, ...] = (), submitted: Any = SUBMITTED, **job: Any) -> Any:
    recorded = {"updated_at": "2026-11-30T10:00:00.000+00:00", **status}
    return {
        "state": status["state"],
        "detail": "",
        "problem": status.get("problem"),
        "status": recorded,
        "job": job,
        "worker": None,
        "derived": True,
        "path": "/shared/run",
        "submitted": submitted,
        "requests": list(requests),
    }


def entry(state: str, reason: str = "None") -> cluster.QueueEntry:
    return cluster.QueueEntry("7", state, "2026-11-30T10:00:00", "token", "run", "n1", reason)


QUEUED = {"state": "queued"}
TRAINING = {"state": "training", "started_at": "2026-11-30T09:00:00.000+00:00"}
INTERRUPTED = {**TRAINING, "state": "failed", "problem": KILLED}
SUCCEEDED = {**TRAINING, "state": "succeeded", "finished_at": "2026-11-30T10:00:00.000+00:00"}


@pytest.mark.parametrize(
    ("status", "slurm", "requests", "state"),
    [
        (QUEUED, "PENDING", (), "queued"),
        (QUEUED, "RUNNING", (), "queued"),
        (QUEUED, "PENDING", ("cancel",), "cancelling"),
        (QUEUED, "CANCELLED", (), "cancelled"),
        (QUEUED, "FAILED", (), "failed"),
        (QUEUED, None, (), "failed"),
        (TRAINING, "RUNNING", (), "training"),
        (TRAINING, "RUNNING", ("cancel",), "cancelling"),
        (TRAINING, "SUSPENDED", (), "paused"),
        (TRAINING, "PENDING", (), "queued"),
        (TRAINING, "TIMEOUT", (), "expired"),
        (TRAINING, "CANCELLED", (), "cancelled"),
        (TRAINING, "NODE_FAIL", (), "failed"),
        (TRAINING, "PREEMPTED", (), "failed"),
        (TRAINING, "OUT_OF_MEMORY", (), "failed"),
        (TRAINING, "COMPLETED", (), "failed"),
        (TRAINING, None, (), "failed"),
        (TRAINING, "INVENTED", (), "training"),
        (INTERRUPTED, "PENDING", (), "queued"),
        (INTERRUPTED, "COMPLETING", (), "saving"),
        (INTERRUPTED, "PREEMPTED", (), "failed"),
        (INTERRUPTED, None, (), "failed"),
        (SUCCEEDED, "RUNNING", (), "succeeded"),
        (SUCCEEDED, "PREEMPTED", (), "succeeded"),
    ],
)
def test_queue_and_folder_give_one_state(status: Any, slurm: str | None, requests: tuple[str, ...], state: str) -> None:
    found = states.combined(document(status, requests=requests), slurm and entry(slurm), None)
    assert found.state == state


@pytest.mark.parametrize("word", ["PREEMPTED", "NODE_FAIL"])
def test_preemption_and_lost_nodes_are_never_success(word: str) -> None:
    found = states.combined(document(TRAINING), None, word)
    assert found.state == "failed"
    assert found.problem is not None
    assert found.problem["interrupted"] is True
    assert word in found.problem["message"]


def test_out_of_memory_has_its_own_code() -> None:
    found = states.combined(document(TRAINING), entry("OUT_OF_MEMORY"), None)
    assert found.problem is not None
    assert found.problem["code"] == "out_of_memory"


def test_the_limit_is_seen_without_accounting() -> None:
    late = document(TRAINING, time_limit_s=3600)
    assert states.combined(late, None, None).state == "expired"
    assert states.combined(document(TRAINING, time_limit_s=90000), None, None).state == "failed"


def test_a_run_that_was_not_submitted_waits() -> None:
    found = states.combined(document(QUEUED, submitted=None), None, None)
    assert (found.state, "run the same command again" in found.detail) == ("queued", True)


def test_every_state_of_the_installed_slurm_is_known(tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").write_text("ClusterName=none\nSlurmctldHost=none\nAuthType=auth/none\n")
    env = {**os.environ, "SLURM_CONF": str(tmp_path / "slurm.conf")}
    try:
        said = subprocess.run(["squeue", "--states=no"], env=env, capture_output=True, text=True, check=False).stderr
    except FileNotFoundError:
        pytest.skip("Slurm is not installed")
    words = re.findall(r"[A-Z_]{5,}", said.partition("Valid job states include:")[2])
    assert len(words) > 15, said
    assert [word for word in words if word not in states.PHASES] == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", Unavailable),
        ("sbatch: error: Socket timed out on send/recv operation", Unavailable),
        ("sbatch: error: Invalid account or account/partition combination", PermissionDenied),
        ("sbatch: error: Job violates accounting/QOS policy (job submit limit)", QuotaExceeded),
        ("sbatch: error: Requested node configuration is not available", InvalidRequest),
    ],
)
def test_errors_of_commands_are_told_apart(text: str, kind: type[Exception]) -> None:
    error = cluster.to_error("sbatch", 1, text)
    assert type(error) is kind
    assert "error" in str(error)


def test_a_missing_program_says_what_to_do() -> None:
    error = cluster.to_error("sbatch", 127, "")
    assert isinstance(error, BackendNotInstalled)
    assert "host" in str(error.hint)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("infinite", None),
        ("10:00", 600),
        ("1:00:00", 3600),
        ("2-12:00:00", 216000),
        ("n/a", None),
        ("30", 30),
        ("1-0", 86400),
    ],
)
def test_time_limits_are_read(text: str, seconds: float | None) -> None:
    assert cluster.to_seconds(text) == seconds


def test_time_limits_are_rounded_up_to_minutes() -> None:
    assert [cluster.to_limit(value) for value in (1, 61, 90061)] == ["0-00:01:00", "0-00:02:00", "1-01:02:00"]


def test_gpus_are_counted() -> None:
    counts = [
        gpu_count(Overrides.model_validate(own)) for own in ({"gres": "gpu:a100:2"}, {"gres": "gpu"}, {"gpus": 4}, {})
    ]
    assert counts == [2, 1, 4, 0]


@pytest.mark.parametrize(
    "own",
    [
        {"partition": "main; rm -rf /"},
        {"partition": "-p"},
        {"account": "$(id)"},
        {"qos": "a b"},
        {"gres": "gpu:1 --wrap=id"},
        {"constraint": "a`id`"},
        {"memory": "1G\n"},
        {"memory": "lots"},
    ],
)
def test_values_that_a_shell_could_read_are_refused(own: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="pattern"):
        Overrides.model_validate(own)


@pytest.mark.parametrize(
    "own",
    [
        {"container": "a b;id"},
        {"modules": ["cuda;id"]},
        {"host": "-oProxyCommand=id"},
        {"folder": "relative"},
        {"folder": "/a\nb"},
    ],
)
def test_options_that_a_shell_could_read_are_refused(own: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="pattern"):
        Options.model_validate(own)


def test_the_script_quotes_every_value(tmp_path) -> None:
    """Bash reads the script as one command with these words, whatever the paths hold."""
    root = f'{tmp_path}/it\'s $(touch {tmp_path}/made) `x` "y" \\ z'
    options = Options.model_validate({"folder": root, "container": "image:1", "modules": ["cuda/12.4"]})
    script = batch_script(options, run=f"{root}/run", root=root, code=f"{root}/code", python=f"{root}/python")
    shown = 'module() { printf "%s\\n" "$@"; }\nexec() { printf "%s\\n" "$PYTHONPATH" "$@"; }\n'
    done = subprocess.run(["bash", "-c", shown + script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "load",
        "cuda/12.4",
        f"{root}/code",
        "apptainer",
        "exec",
        "--nv",
        "--bind",
        root,
        "image:1",
        f"{root}/python",
        "-P",
        "-m",
        "cloudtune_trainer.worker.batch",
        f"{root}/run",
    ]
    assert not (tmp_path / "made").exists()
    assert shlex.split(script.splitlines()[-1])[0] == "exec"


def test_sbatch_gets_what_the_spec_asks_for() -> None:
    own = Overrides.model_validate(
        {
            "partition": "gpu",
            "account": "lab",
            "qos": "high",
            "gpus": 2,
            "cpus": 8,
            "memory": "64G",
            "constraint": "a100&ib",
            "time": "36h",
            "requeue": False,
        }
    )
    found = sbatch_arguments(Options(), own, name="one", token="abc", run="/shared/one", signal_s=120)
    assert found[0] == "sbatch"
    assert set(found) >= {
        "--comment=abc",
        "--job-name=one",
        "--partition=gpu",
        "--account=lab",
        "--qos=high",
        "--gres=gpu:2",
        "--cpus-per-task=8",
        "--mem=64G",
        "--constraint=a100&ib",
        "--time=1-12:00:00",
        "--signal=B:TERM@120",
        "--no-requeue",
    }


@pytest.mark.parametrize(("limit", "is_limit"), [(60, True), (3600, False), (None, False)])
def test_a_signal_near_the_limit_is_no_preemption(tmp_path: Path, limit: float | None, is_limit: bool) -> None:
    (tmp_path / "job.json").write_text(json.dumps({"time_limit_s": limit, "signal_s": 12}))
    run = Run(tmp_path)
    program = (
        "import os, signal, sys\n"
        "from cloudtune_trainer.worker.batch import LimitWaiter\n"
        "from cloudtune_trainer.worker.run import Run\n"
        "waiter = LimitWaiter(Run(sys.argv[1]))\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "print(waiter.told_to_stop)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), run.requested("expire")) == (str(not is_limit), is_limit)
