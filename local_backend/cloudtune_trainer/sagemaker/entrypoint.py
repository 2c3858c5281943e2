"""The entry point of a training container of Amazon SageMaker: maps ``/opt/ml`` to a run folder.

The program reads the hyperparameters and the channels, creates a run folder, starts one trainer for each device of this
host, and prints their reports as log lines, which the job's metric definitions match. At the end the model is in
``/opt/ml/model``; the reason of a failure is in ``/opt/ml/output/failure``. SIGTERM (a stop, or a reclaimed spot
instance) is forwarded: the trainers save a checkpoint, and the next start resumes from it.

The layout is that of https://docs.aws.amazon.com/sagemaker/latest/dg/docker-basics.html (seen 2026-11-21). Standard
library only: what the trainer needs may have to be installed first.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune_trainer.folder import RunFolder, read_json, write_json
from cloudtune_trainer.problems import TrainingProblem, classify
from cloudtune_trainer.sagemaker import serving
from cloudtune_trainer.sagemaker.container_group import Group
from cloudtune_trainer.sagemaker.installing import REQUIREMENTS, install
from cloudtune_trainer.tuned import TUNED, read_tuned

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX = "[cloudtune]"
"""Prefix of every line for cloudtune."""
MODEL_VARIABLE = "CLOUDTUNE_MODEL"
"""The submitter's name of the base model."""
TERMINATED = 128 + signal.SIGTERM
STOP_VARIABLE = "CLOUDTUNE_STOP_AFTER"
"""Seconds after the container's start at which the trainer stops, as at its time limit."""
TOKEN_SECRET_VARIABLE = "CLOUDTUNE_HUB_TOKEN_SECRET"  # noqa: S105 - a name
"""The name of the secret with the hub's token."""
_FAILURE_CHARS = 1024
"""The service truncates longer reasons."""
_KEPT = ("spec.json", "status.json", "events.jsonl", "metrics.jsonl")
_LONGEST_LINE = 200_000
"""Log events can have up to 256 KiB."""


class Tree:
    """The container's folders. Creating the object does not access the disk."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).absolute()
        self.config = self.root / "input" / "config"
        self.channels = self.root / "input" / "data"
        self.model = self.root / "model"
        self.output = self.root / "output" / "data"
        self.failure = self.root / "output" / "failure"
        self.checkpoints = self.root / "checkpoints"


@dataclass(frozen=True)
class Setup:
    """The service's description of this job and this host."""

    spec: dict[str, Any]
    """The trainer's spec.json, with absolute paths."""
    hosts: tuple[str, ...]
    host: str
    network: str | None = None
    """The network interface between the hosts."""

    @property
    def number(self) -> int:
        """This host's place among the hosts."""
        return self.hosts.index(self.host)


def main() -> int:
    """The container's program. Returns its exit status."""
    tree = Tree(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
    stop_requested = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop_requested.set())
    run = RunFolder(tree.root / "run")
    deadline = Deadline(run, float(os.environ.get(STOP_VARIABLE) or "inf"))
    try:
        setup = read_setup(tree)
        _prepare(tree, run, setup)
        install(setup.spec)
        fetch_token()
        if stop_requested.is_set():
            return TERMINATED
        return _train(tree, run, setup, stop_requested, deadline)
    except BaseException as error:  # noqa: BLE001 - any failure is reported
        fail(tree, classify(error, run.log))
        with contextlib.suppress(OSError):  # a full disk must not hide the reason
            traceback.print_exception(error)
        return 1


def read_setup(tree: Tree) -> Setup:
    """Read ``input/config``, which the service writes. Raises `TrainingProblem` if it is inconsistent."""
    given = read_json(tree.config / "hyperparameters.json")
    if not isinstance(given, dict):
        raise TrainingProblem("bad_spec", f"{tree.config / 'hyperparameters.json'} is missing or is not an object")
    values = {name: _value(name, text) for name, text in given.items()}
    resources = read_json(tree.config / "resourceconfig.json") or {}
    host = str(resources.get("current_host") or os.environ.get("SM_CURRENT_HOST") or "algo-1")
    hosts = tuple(sorted(resources.get("hosts") or [host], key=_in_order))
    spec = _placed(_nested(values), tree)
    return Setup(spec=spec, hosts=hosts, host=host, network=resources.get("network_interface_name"))


def _value(name: str, text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError) as error:
        raise TrainingProblem("bad_spec", f"the hyperparameter {name} is not valid JSON: {text!r}") from error


def _in_order(host: str) -> tuple[int, str]:
    """Sort algo-10 after algo-2."""
    return len(host), host


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    """``{"adapter.rank": 8}`` as ``{"adapter": {"rank": 8}}``."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        *parts, last = name.split(".")
        holder = found
        for part in parts:
            holder = holder.setdefault(part, {})
        holder[last] = value
    return found


def _placed(spec: dict[str, Any], tree: Tree) -> dict[str, Any]:
    """The spec with paths that are relative to the channels made absolute."""
    spec = dict(spec)
    model = dict(spec.get("model") or {})
    if model.get("source") != "hub" and model.get("path"):
        model["path"] = str(tree.channels / model["path"])
    spec["model"] = model
    spec["data"] = {split: path and str(tree.channels / path) for split, path in (spec.get("data") or {}).items()}
    if spec.get("resume_from"):
        spec["resume_from"] = str(tree.channels / spec["resume_from"])
    return spec


def fetch_token() -> None:
    """Read the hub's token from Secrets Manager if the job names a secret: no request contains the token."""
    secret = os.environ.get(TOKEN_SECRET_VARIABLE)
    if not secret:
        return
    hint = "Allow the job's role to read it (secretsmanager:GetSecretValue), and use its ARN."
    try:
        import boto3  # type: ignore[import-untyped,unused-ignore]  # AWS's images have it

        os.environ["HF_TOKEN"] = boto3.client("secretsmanager").get_secret_value(SecretId=secret)["SecretString"]
    except Exception as error:
        raise TrainingProblem("no_permission", f"cannot read the secret {secret}: {error}", hint) from error


def _prepare(tree: Tree, run: RunFolder, setup: Setup) -> None:
    """Create the run folder. Its checkpoints are the container's, which the service saves to S3 and restores."""
    shutil.rmtree(run.path, ignore_errors=True)
    run.path.mkdir(parents=True)
    for folder in (tree.checkpoints, tree.model, tree.output):
        folder.mkdir(parents=True, exist_ok=True)
    run.checkpoints.symlink_to(tree.checkpoints, target_is_directory=True)
    write_json(run.spec, setup.spec)


def _train(tree: Tree, run: RunFolder, setup: Setup, stop_requested: threading.Event, deadline: Deadline) -> int:
    first = setup.number == 0
    lines = Lines(run) if first else None

    def look() -> None:
        deadline.look()
        if lines:
            lines.tell()

    group = Group(run, hosts=setup.hosts, number=setup.number, network=setup.network)
    try:
        code = group.wait(stop_requested, look)
    finally:
        group.kill()
    if lines:
        lines.tell()
        lines.end()
        _keep(tree, run)
    if code == 0:  # finished: a later signal has no effect, nor has one that came too late
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if first:
            _deliver(tree, run)
        return 0
    if stop_requested.is_set():
        return TERMINATED
    fail(tree, group.problem())
    return 1


def _keep(tree: Tree, run: RunFolder) -> None:
    """Save the run's status and events beside the model."""
    for name in _KEPT:
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(run.path / name, tree.output / name)


def _deliver(tree: Tree, run: RunFolder) -> None:
    """Move the model to the service's output folder. Its base model keeps the submitter's name."""
    if not run.model.is_dir():
        return  # stopped by a time limit before the first step
    shutil.copytree(run.model, tree.model, dirs_exist_ok=True)
    tuned = read_tuned(tree.model)
    if tuned["base"]["source"] == "config":
        shutil.copytree(run.path / "base", tree.model / "base", dirs_exist_ok=True)
        tuned["base_folder"] = "base"
    if name := os.environ.get(MODEL_VARIABLE):
        tuned["base"] = {**tuned["base"], "path": name}
    write_json(tree.model / TUNED, tuned)
    _add_server(tree.model / "code")


def _add_server(folder: Path) -> None:
    """Write the files that an endpoint needs for this model: this package, and its entry point."""
    package = Path(__file__).resolve().parents[1]
    for path in sorted(package.rglob("*.py")):
        target = folder / package.name / path.relative_to(package)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    (folder / "inference.py").write_text(serving.START, encoding="utf-8")
    requirements = package.parent / REQUIREMENTS
    if requirements.is_file():
        shutil.copyfile(requirements, folder / REQUIREMENTS)


def fail(tree: Tree, problem: TrainingProblem) -> None:
    """Write the reason of a failure: ``code: message``, and the recommended action."""
    text = f"{problem.code}: {problem.message}"
    hint = f"\n{problem.hint}" if problem.hint else ""
    text = text[: _FAILURE_CHARS - len(hint)] + hint
    with contextlib.suppress(OSError):
        tree.failure.parent.mkdir(parents=True, exist_ok=True)
        tree.failure.write_text(text, encoding="utf-8")


class Deadline:
    """Stops the trainer, so that it saves its model, before the service stops the container.

    The service's clock counts from the container's start, loading and installing included; the trainer's does not.
    """

    def __init__(self, run: RunFolder, after_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._run = run
        self._clock = clock
        self._at = clock() + after_s

    def look(self) -> None:
        """Request the trainer's stop when the time is up."""
        if self._clock() >= self._at and not self._run.requested("expire"):
            self._run.ask("expire")


class Lines:
    """Copies the first trainer's reports from its run folder to the job's log."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._events = Tail(run.events)
        self._metrics = Tail(run.metrics)
        self._total: int | None = None

    def tell(self) -> None:
        """Print what is new."""
        for event in self._events.read():
            self._print("event", event)
        for metric in self._metrics.read():
            if self._total is None:
                with contextlib.suppress(OSError, ValueError):
                    self._total = (read_json(self._run.status) or {}).get("total_steps")
            self._print("metrics", flat(metric, self._total))
        sys.stdout.flush()

    def end(self) -> None:
        """Print how it ended."""
        status = read_json(self._run.status) or {}
        state = status.get("state")
        self._print("end", {"state": state, "step": status.get("step"), "stopped_by_limit": int(state == "expired")})
        sys.stdout.flush()

    def _print(self, kind: str, document: Any) -> None:
        text = json.dumps(document)
        if len(text) > _LONGEST_LINE:
            text = json.dumps({**document, "message": str(document.get("message"))[:1000], "data": {}})
        sys.stdout.write(f"{PREFIX} {kind} {text}\n")


def flat(metric: dict[str, Any], total_steps: int | None) -> dict[str, Any]:
    """A metrics line in the format of the job's metric definitions: ``{"step": 3, ..., "train:loss": 2.1}``."""
    line = {"time": metric["time"], "step": metric["step"], "total_steps": total_steps, "epoch": metric["epoch"]}
    return line | {f"{metric['split']}:{name}": value for name, value in metric["values"].items()}


class Tail:
    """Follows a file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> list[Any]:
        """The complete lines that were added since the last call; damaged ones are skipped."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except FileNotFoundError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        found = []
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found
