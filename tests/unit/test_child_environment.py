"""No process that cloudtune starts gets a secret of the user's environment."""

from __future__ import annotations

import ast
import json
import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.local.backend.submitting import kill_all, run_of, scripted_backend, submit
from tests.syntax import nodes
from tests.unit.test_conventions import MODULES, REPOSITORY

from cloudtune.data.checks.worker_pool import Pool
from cloudtune.data.scanned import Task
from cloudtune.processes.environment import child_environment
from cloudtune_emulator.sagemaker.containers import Containers
from cloudtune_providers.sagemaker.local_jobs import LocalJobs
from cloudtune_trainer.folder import read_json
from cloudtune_trainer.worker.run import Run

MARK = "marked-secret-3b9f"
SECRETS = (
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "AZURE_CLIENT_SECRET",
    "PGPASSWORD", "GITHUB_TOKEN", "MY_OWN_PASSWORD", "HF_TOKEN", "HTTPS_PROXY", "CUDA_API_KEY", "PYTHON_AUTH_TOKEN",
)  # fmt: skip
INHERITS = {
    "src/cloudtune/testing/fork_server.py": "the contract suite's own processes act as the user",
    "local_backend/cloudtune_trainer/worker/processes.py": "asks ps and sysctl on macOS",
    "local_backend/cloudtune_trainer/worker/environment.py": "pip on a machine of the user, as the user",
    "local_backend/cloudtune_trainer/sagemaker/installing.py": "pip in a container, with the job's environment only",
}
"""Module -> why what it starts inherits its environment."""
PASSES_ON = {
    "local_backend/cloudtune_trainer/worker/trainer_process.py": "the worker's environment, which `launch` chose",
    "local_backend/cloudtune_trainer/ray/member.py": "the actor's, without Ray's own variables",
    "local_backend/cloudtune_trainer/worker/access.py": "the variables that the request names",
    "local_backend/cloudtune_trainer/worker/creation.py": "the environment that the back end chose",
    "local_backend/cloudtune_trainer/launch.py": "the trainer's environment, which the worker passed on",
    "local_backend/cloudtune_trainer/sagemaker/container_group.py": "the container's environment",
    "local_backend/cloudtune_trainer/submit/container.py": "its own, shorter list",
}
"""Module -> which environment it hands on, having no other."""


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, MARK)


def marked(environ: dict[str, str]) -> list[str]:
    return [name for name, value in environ.items() if MARK in value]


def test_a_child_gets_paths_and_settings_and_no_secret() -> None:
    passed = child_environment({**os.environ, "OMP_NUM_THREADS": "2", "LC_ALL": "C", "CUDA_VISIBLE_DEVICES": "0"})
    assert {"PATH", "HOME", "OMP_NUM_THREADS", "LC_ALL", "CUDA_VISIBLE_DEVICES"} <= passed.keys()
    assert marked(passed) == []
    assert marked(child_environment(hub=True)) == ["HF_TOKEN", "HTTPS_PROXY"]
    assert marked(child_environment(also=["PGPASSWORD"])) == ["PGPASSWORD"]


@pytest.mark.parametrize(("passed", "seen"), [((), []), (("MY_OWN_PASSWORD",), ["MY_OWN_PASSWORD"])], ids=["no", "one"])
def test_worker_and_trainer_get_no_secret(passed: tuple[str, ...], seen: list[str], tmp_path: Path) -> None:
    backend = scripted_backend(tmp_path / "runs", tmp_path, pass_env=passed)
    try:
        run = run_of(submit(backend, "job", "steps 2000 0.05"))
        processes = _processes_of(run)
        found = {kind: marked(process.environ()) for kind, process in processes.items()}
    finally:
        kill_all(tmp_path / "runs")
    assert found == {"worker": seen, "trainer": seen}


def _processes_of(run: Run) -> dict[str, psutil.Process]:
    deadline = time.monotonic() + 60
    while "trainer" not in (who := read_json(run.worker) or {}):
        assert time.monotonic() < deadline, run.log.read_text()
        time.sleep(0.05)
    return {"worker": psutil.Process(who["pid"]), "trainer": psutil.Process(who["trainer"]["pid"])}


def test_processes_that_check_rows_get_no_secret() -> None:
    with Pool(1, Task()) as pool:
        assert marked(psutil.Process(pool._workers[0].pid).environ()) == []


REQUEST: dict[str, Any] = {
    "TrainingJobName": "one",
    "AlgorithmSpecification": {"ContainerEntrypoint": ["/bin/sh", "-c", "env > /opt/ml/model/env.txt; sleep 1"]},
}


@pytest.mark.parametrize(
    ("source", "seen"), [('"folder"', []), ('"hub"', ["HF_TOKEN"])], ids=["folder", "hub"]
)  # fmt: skip
def test_a_container_here_gets_no_secret(source: str, seen: list[str], tmp_path: Path) -> None:
    place = {"S3OutputPath": (tmp_path / "out").as_uri()}
    jobs = LocalJobs(tmp_path, "sagemaker", None)
    jobs.create(REQUEST | {"OutputDataConfig": place, "HyperParameters": {"model.source": source}})
    assert _environment_of_container(tmp_path / "jobs" / "one") == seen


def test_an_emulated_container_gets_no_secret(tmp_path: Path) -> None:
    place = {"S3OutputPath": (tmp_path / "out").as_uri()}
    (tmp_path / "request.json").write_text(json.dumps(REQUEST | {"OutputDataConfig": place}))
    Containers(tmp_path)._begin(tmp_path)
    assert _environment_of_container(tmp_path) == []


def _environment_of_container(folder: Path) -> list[str]:
    reported, deadline = folder / "algo-1" / "ml" / "model" / "env.txt", time.monotonic() + 60
    while not (reported.is_file() and "PATH=" in reported.read_text()):
        assert time.monotonic() < deadline, (folder / "status.json").read_text()
        time.sleep(0.05)
    return [line.partition("=")[0] for line in reported.read_text().splitlines() if MARK in line]


def _spawns(path: Path) -> list[ast.Call]:
    calls = [node for node in nodes(path) if isinstance(node, ast.Call)]
    return [
        call
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and (call.func.value.id, call.func.attr)
        in {("subprocess", name) for name in ("Popen", "run", "call", "check_call", "check_output")}
        | {("os", name) for name in ("system", "execv", "execvp", "posix_spawn", "spawnv")}
    ]


def test_every_started_process_gets_a_chosen_environment() -> None:
    wrong = []
    for path in MODULES:
        where = path.relative_to(REPOSITORY).as_posix()
        chosen = where in PASSES_ON or "child_environment(" in path.read_text(encoding="utf-8")
        wrong += [
            f"{where}:{call.lineno}"
            for call in _spawns(path)
            if where not in INHERITS and not (chosen and "env" in {keyword.arg for keyword in call.keywords})
        ]
    assert wrong == []


@pytest.mark.parametrize("where", [*INHERITS, *PASSES_ON])
def test_every_exception_still_starts_processes(where: str) -> None:
    assert _spawns(REPOSITORY / where)
