"""Settings and overrides that back ends with run folders share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cloudtune.spec_types import PositiveInt
from cloudtune_trainer.submit.policy import PolicyOverrides
from cloudtune_trainer.submit.preference import PreferenceOverrides

AbsolutePath = Annotated[str, Field(pattern=r"^/[^\x00-\x1f:]*[^\x00-\x1f:/]$", max_length=1024)]
"""A path on the other machine. It may have no colon: a reference to a job separates the machine from it with one."""
ProgramPath = Annotated[str, Field(pattern=r"^(/[^\x00-\x1f]+|[A-Za-z0-9_][A-Za-z0-9_.-]*)$", max_length=1024)]
"""The absolute path of a program, or its name in the search path."""


class TrainerOverrides(BaseModel):
    """Overrides with the same meaning on every back end that runs cloudtune's trainer."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The device: ``auto`` uses the GPUs if there are any."""
    threads: PositiveInt | None = None
    """CPU threads of each process; by default torch's own choice."""
    log_every: PositiveInt = 1
    """Steps between metrics."""
    revision: str | None = Field(default=None, min_length=1)
    """Branch, tag or commit of a model on the hub."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for models whose authors you trust."""
    preference: PreferenceOverrides | None = None
    """For preference methods: the loss of dpo, label smoothing, SimPO's margin."""
    teacher: str | None = Field(default=None, min_length=1)
    """For ``distill``: the folder of the larger model, an absolute path."""
    policy: PolicyOverrides | None = None
    """For policy optimization: steps per batch of completions, clipping, scaling and normalization."""
