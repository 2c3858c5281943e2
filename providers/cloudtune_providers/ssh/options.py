"""Settings of the ssh back end, and its overrides in a spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cloudtune.config.option_types import Endpoint, Program, Safe, WrittenPath
from cloudtune.spec_types import NaturalFloat, PositiveInt, Seconds
from cloudtune_providers.run_folders.machine import HOST
from cloudtune_providers.run_folders.options import AbsolutePath, ProgramPath, TrainerOverrides

Host = Annotated[str, Field(pattern=f"^({HOST.pattern})$", max_length=255)]


class Options(BaseModel):
    """Settings of the back end, from the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    host: Endpoint[Host | None] = None
    """The machine, as in the user's ssh configuration: a name, or USER@NAME. Required."""
    folder: WrittenPath[AbsolutePath | None] = None
    """The folder of the runs on that machine. Required."""
    python: Program[ProgramPath] = "python3"
    """The interpreter there (3.11 or newer) that has the trainer's packages, such as that of a virtual environment."""
    install: Program[bool] = False
    """Create a virtual environment below ``folder`` once, with ``python``, and install the trainer's packages in it."""
    ssh_config: Program[AbsolutePath | None] = None
    """The configuration file of the ssh client. Default: the client's own."""
    slots: Safe[Literal["auto"] | PositiveInt] = "auto"
    """How many jobs run at once: ``auto`` is one for each GPU, or one where there is none. Others wait in a queue."""
    grace: Safe[Seconds] = 30.0
    """A cancelled job that does not stop gets SIGTERM after this time, and SIGKILL after the same time again."""
    usd_per_hour: Safe[NaturalFloat | None] = None
    """The price of an hour of the machine, for estimates and cost limits."""


class Overrides(TrainerOverrides):
    """The fields of ``overrides.ssh`` in a spec."""
