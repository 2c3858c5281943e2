"""Supervises the containers of one job on this machine, in place of the service: ``... FOLDER``, detached.

The folder contains ``request.json``, the body of CreateTrainingJob with ``file:`` URLs instead of ``s3:``. The job's
state is written atomically to ``status.json``, with the values of DescribeTrainingJob; the model is packed at the path
in ``OutputDataConfig``. A file ``stop`` requests a stop. Standard library only.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from cloudtune_trainer.folder import now, read_json, write_json
from cloudtune_trainer.private_files import keep_private
from cloudtune_trainer.submit.container import ContainerJob, Containers
from cloudtune_trainer.submit.locks import take_lock

if TYPE_CHECKING:
    from collections.abc import Sequence

REQUEST, STATUS, STOP, LOCK = "request.json", "status.json", "stop", "lock"
PYTHON = "python.txt"
"""A file in the folder that names the interpreter in place of the image's."""
_LOOK_S = 0.1
_INSTANCES = 1


class Service:
    """One job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.request: dict[str, Any] = read_json(folder / REQUEST)
        self.status: dict[str, Any] = read_json(folder / STATUS) or {"CreationTime": now()}
        self.containers = Containers(self._job(), folder)

    def _job(self) -> ContainerJob:
        request, algorithm = self.request, self.request["AlgorithmSpecification"]
        resources = request.get("ResourceConfig") or {}
        channels = {
            channel["ChannelName"]: str(path_of(channel["DataSource"]["S3DataSource"]["S3Uri"]))
            for channel in request.get("InputDataConfig") or ()
        }
        chosen = self.folder / PYTHON
        source = str((request.get("HyperParameters") or {}).get("sagemaker_submit_directory", "")).strip('"')
        return ContainerJob(
            name=request["TrainingJobName"],
            source=str(path_of(source)) if source.startswith("file:") else None,
            hyperparameters=request.get("HyperParameters") or {},
            channels=channels,
            entrypoint=algorithm.get("ContainerEntrypoint") or (),
            arguments=algorithm.get("ContainerArguments") or (),
            environment=request.get("Environment") or {},
            instance_type=resources.get("InstanceType") or "local",
            instances=resources.get("InstanceCount") or _INSTANCES,
            python=chosen.read_text(encoding="utf-8").strip() if chosen.exists() else sys.executable,
        )

    def run(self) -> None:
        """Supervise the job to its end."""
        try:
            self.tell("InProgress", "Downloading")
            self.containers.prepare()
            self._keep_checkpoints()
            if self._is_asked():
                self.tell("Stopped", "Stopped")
                return
            self.status["TrainingStartTime"] = now()
            self.tell("InProgress", "Training")
            self.containers.start()
            code, ended = self._follow()
            self._finish(code, ended)
        except Exception as error:  # noqa: BLE001 - after any error, the job must not look active
            traceback.print_exc()
            self._fail(f"InternalServerError: {type(error).__name__}: {error}")
        finally:
            self.containers.kill()

    def _keep_checkpoints(self) -> None:
        """Checkpoints go directly to the folder that replaces S3."""
        uri = (self.request.get("CheckpointConfig") or {}).get("S3Uri")
        if uri is None:
            return
        kept, seen = path_of(uri), self.containers.tree().checkpoints
        kept.mkdir(parents=True, exist_ok=True)
        seen.rmdir()
        seen.symlink_to(kept, target_is_directory=True)

    def _follow(self) -> tuple[int, str]:
        """Wait until the containers have ended. Returns ``Completed``, or the reason of the stop."""
        limit = (self.request.get("StoppingCondition") or {}).get("MaxRuntimeInSeconds", 86400)
        begun, ended = time.monotonic(), "Completed"
        while (code := self.containers.poll()) is None:
            if ended == "Completed" and (self._is_asked() or time.monotonic() - begun > limit):
                ended = "Stopped" if self._is_asked() else "MaxRuntimeExceeded"
                self.tell("Stopping", "Stopping")
                self.containers.stop()
            time.sleep(_LOOK_S)
        self.status["TrainingEndTime"] = now()
        return code, ended

    def _is_asked(self) -> bool:
        return (self.folder / STOP).exists()

    def _finish(self, code: int, ended: str) -> None:
        if code and ended == "Completed":
            said = self.containers.failure() or f"the program ended with status {code}"
            self._fail(f"AlgorithmError: {said}, exit code: {code}")
            return
        self.tell("Stopping" if ended != "Completed" else "InProgress", "Uploading")
        output = path_of(self.request["OutputDataConfig"]["S3OutputPath"]) / self.request["TrainingJobName"] / "output"
        made = self.containers.pack(output)
        if "model" in made:
            self.status["ModelArtifacts"] = {"S3ModelArtifacts": made["model"].as_uri()}
        self.tell("Completed" if ended == "Completed" else "Stopped", ended)

    def _fail(self, reason: str) -> None:
        self.status["FailureReason"] = reason[:1024]
        self.tell("Failed", "Failed")

    def tell(self, status: str, secondary: str) -> None:
        """Write a new status."""
        moment = now()
        transitions = self.status.setdefault("SecondaryStatusTransitions", [])
        if transitions:
            transitions[-1]["EndTime"] = moment
        transitions.append({"Status": secondary, "StartTime": moment, "StatusMessage": ""})
        self.status |= {"TrainingJobStatus": status, "SecondaryStatus": secondary, "LastModifiedTime": moment}
        write_json(self.folder / STATUS, self.status)


def path_of(uri: str) -> Path:
    """The path of a ``file:`` URL. Raises ValueError for any other URL."""
    parts = urlsplit(uri)
    if parts.scheme != "file":
        raise ValueError(f"{uri} is not on this machine")
    return Path(unquote(parts.path))


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the supervising process of the job in that folder, unless it is running.

    On return, the job is visible as supervised.
    """
    (name,) = sys.argv[1:] if arguments is None else arguments
    folder = Path(name)
    keep_private()
    lock = take_lock(folder / LOCK)
    if lock is None or (folder / STATUS).exists():
        return 0
    service = Service(folder)
    service.tell("InProgress", "Starting")
    sys.stdout.flush()
    if os.fork():
        return 0  # the child keeps the lock
    service.run()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
