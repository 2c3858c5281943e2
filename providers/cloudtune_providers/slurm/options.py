"""Settings of the Slurm back end, and its overrides in a spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cloudtune.config.option_types import Endpoint, Program, Protection, Safe, WrittenPath
from cloudtune.spec_types import NaturalFloat, NaturalInt, PositiveInt, Seconds
from cloudtune_providers.run_folders.machine import HOST
from cloudtune_providers.run_folders.options import AbsolutePath, ProgramPath, TrainerOverrides

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")]
"""The name of a partition, an account or a quality of service."""
Gres = Annotated[
    str, Field(pattern=r"^[a-z][A-Za-z0-9_]*(:[A-Za-z0-9_.-]+)*(,[a-z][A-Za-z0-9_]*(:[A-Za-z0-9_.-]+)*)*$")
]
"""Generic resources, such as ``gpu:a100:2``."""
Constraint = Annotated[str, Field(pattern=r"^[A-Za-z0-9_&|\[\]().*-]+$", max_length=256)]
Memory = Annotated[str, Field(pattern=r"^[0-9]+[KMGT]?$")]
Module = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./+-]*$", max_length=128)]
Image = Annotated[str, Field(pattern=r"^[A-Za-z0-9/][A-Za-z0-9_./:@#+-]*$", max_length=1024)]
Host = Annotated[str, Field(pattern=f"^({HOST.pattern})$", max_length=255)]


class Options(BaseModel):
    """Settings of the back end, from the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    folder: WrittenPath[AbsolutePath | None] = None
    """The folder of the runs, on storage that the login node and all compute nodes share. Required."""
    host: Endpoint[Host | None] = None
    """The login node, as in the user's ssh configuration. Default: Slurm's commands on this machine."""
    ssh_config: Program[AbsolutePath | None] = None
    """The configuration file of the ssh client. Default: the client's own."""
    login_python: Program[ProgramPath] = "python3"
    """With ``host``: the interpreter on the login node (3.11 or newer) that reads and writes run folders."""
    python: Program[ProgramPath | None] = None
    """The interpreter on the compute nodes that has the trainer's packages. Default: the one that runs cloudtune, or
    ``python3`` with ``host`` or a container."""
    modules: Program[tuple[Module, ...]] = ()
    """Environment modules to load before the job: `module load NAME`."""
    container: Program[Image | None] = None
    """The image in which the trainer runs: a file or a URI for Apptainer, or an image for Pyxis."""
    container_runtime: Safe[Literal["apptainer", "pyxis"]] = "apptainer"
    """The program or Slurm plugin that runs the container."""
    partition: Safe[Name | None] = None
    """The partition of jobs that name none. Default: the cluster's."""
    account: Safe[Name | None] = None
    """The account that the jobs are charged to."""
    qos: Safe[Name | None] = None
    """The quality of service of the jobs."""
    usd_per_gpu_hour: Safe[NaturalFloat | None] = None
    """The price of an hour on one GPU, for estimates and cost limits."""
    usd_per_cpu_hour: Safe[NaturalFloat | None] = None
    """The price of an hour of a job without GPUs."""
    pass_env: Protection[tuple[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], ...]] = ()
    """Names of further environment variables of the submitting machine for the jobs. Slurm's controller stores them."""


class Overrides(TrainerOverrides):
    """The fields of ``overrides.slurm`` in a spec."""

    partition: Name | None = None
    """The partition."""
    account: Name | None = None
    """The account that the job is charged to."""
    qos: Name | None = None
    """The quality of service."""
    gres: Gres | None = None
    """Generic resources, such as ``gpu:1`` or ``gpu:a100:2``."""
    gpus: NaturalInt | None = None
    """The number of GPUs, instead of ``gres``."""
    cpus: PositiveInt | None = None
    """CPUs for the task."""
    memory: Memory | None = None
    """Memory of the node, such as ``64G``."""
    constraint: Constraint | None = None
    """Features that the node must have."""
    time: Seconds | None = None
    """The job's time limit in Slurm. The trainer saves its model before it ends. Default: the partition's."""
    signal_before: Seconds = 120.0
    """How long before the time limit Slurm asks the job to stop."""
    requeue: bool = True
    """Let Slurm start the job again after a preemption or the loss of a node; it continues from its checkpoint."""
    max_restarts: NaturalInt = 10
    """How often it may be started again."""
