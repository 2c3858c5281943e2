"""Settings of the Ray back end, and its overrides in a spec."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from cloudtune.config.option_types import Endpoint, Program, Safe, WrittenPath
from cloudtune.spec_types import NaturalFloat, NaturalInt, PositiveFloat
from cloudtune_providers.run_folders.options import AbsolutePath, ProgramPath, TrainerOverrides

DEFAULT_RESTARTS = 3


def _folder(value: str) -> str:
    if "://" in value:
        raise ValueError("it must be a folder that is mounted on all nodes: URLs of object stores are not supported")
    return value


Address = Annotated[str, Field(pattern=r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$", max_length=1024)]
"""The URL of a cluster's dashboard, without user name and password."""


class Options(BaseModel):
    """Settings of the back end, from the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    address: Endpoint[Address | None] = None
    """The cluster's dashboard, which serves the Jobs API, such as ``http://127.0.0.1:8265``. Required."""
    shared_folder: WrittenPath[Annotated[AbsolutePath, AfterValidator(_folder)] | None] = None
    """A folder that this machine and all nodes have at the same path, for runs, rows, models and code. Required."""
    python: Program[ProgramPath] = "python"
    """The interpreter on the nodes that has Ray and the trainer's packages."""
    install: Program[bool] = False
    """Let Ray install the trainer's packages, except torch, into an environment of the job (its field ``pip``)."""
    cpus: Safe[PositiveFloat] = 1.0
    """CPUs that Ray reserves for each process."""
    gpus: Safe[NaturalFloat] = 0.0
    """GPUs that Ray reserves for each process; on a cluster with GPUs, 1."""


class Overrides(TrainerOverrides):
    """The fields of ``overrides.ray`` in a spec."""

    cpus: PositiveFloat | None = None
    """See the setting of that name."""
    gpus: NaturalFloat | None = None
    """See the setting of that name."""
    max_restarts: NaturalInt = DEFAULT_RESTARTS
    """How often the group is started again after the loss of a process or a node."""
