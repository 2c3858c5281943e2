"""The batch script and the arguments of sbatch. Pure; every value is quoted for the shell."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from cloudtune_providers.slurm.cluster import to_limit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune_providers.slurm.options import Options, Overrides

LOG = "slurm.log"


def sbatch_arguments(options: Options, own: Overrides, *, name: str, token: str, run: str, signal_s: int) -> list[str]:
    """The arguments of sbatch. The environment of the submitting process is chosen before, by an allow-list."""
    chosen: dict[str, Any] = {
        "job-name": name,
        "comment": token,
        "output": f"{run}/{LOG}".replace("%", "%%"),  # else a pattern of Slurm
        "open-mode": "append",
        "export": "ALL",
        "nodes": 1,
        "ntasks": 1,
        "partition": own.partition or options.partition,
        "account": own.account or options.account,
        "qos": own.qos or options.qos,
        "gres": own.gres or (f"gpu:{own.gpus}" if own.gpus else None),
        "cpus-per-task": own.cpus,
        "mem": own.memory,
        "constraint": own.constraint,
        "time": None if own.time is None else to_limit(own.time),
        "signal": f"B:TERM@{signal_s}",
    }
    arguments = [f"--{key}={value}" for key, value in chosen.items() if value is not None]
    return ["sbatch", "--parsable", *arguments, "--requeue" if own.requeue else "--no-requeue"]


def batch_script(options: Options, *, run: str, root: str, code: str, python: str) -> str:
    """The script: it loads the modules, and becomes the worker of the run, so that Slurm's signals reach that."""
    worker = [python, "-P", "-m", "cloudtune_trainer.worker.batch", run]
    lines = ["#!/bin/bash -l" if options.modules else "#!/bin/bash"]
    lines += [shlex.join(["module", "load", name]) for name in options.modules]
    lines += [f"export PYTHONPATH={shlex.quote(code)}", "unset PYTHONHOME", "export PYTHONUNBUFFERED=1"]
    lines.append(f"exec {shlex.join([*_container(options, root), *worker])}")
    return "\n".join(lines) + "\n"


def _container(options: Options, root: str) -> Sequence[str]:
    """The command that runs the worker in the container, which sees the root at the same path."""
    if options.container is None:
        return ()
    if options.container_runtime == "pyxis":
        mounts = f"--container-mounts={root}:{root}"
        return ("srun", "--nodes=1", "--ntasks=1", f"--container-image={options.container}", mounts)
    return ("apptainer", "exec", "--nv", "--bind", root, options.container)
