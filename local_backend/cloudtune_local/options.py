"""The local back end's own settings, and its overrides in a spec."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cloudtune.config.option_types import Program, Protection, Safe, WrittenPath
from cloudtune.spec_types import NaturalFloat, NaturalInt, PositiveFloat, PositiveInt, Seconds
from cloudtune_trainer.submit.policy import PolicyOverrides
from cloudtune_trainer.submit.preference import PreferenceOverrides

EnvironmentName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Options(BaseModel):
    """Settings of the back end, from the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    root: WrittenPath[Path | None] = None
    """The folder of the runs. Default: ``runs`` under CLOUDTUNE_HOME, else under this user's state folder."""
    slots: Safe[Literal["auto"] | PositiveInt] = "auto"
    """How many jobs run at once: ``auto`` is one for each GPU, or one where there is none."""
    python: Program[Path | None] = None
    """The interpreter for the trainer, if not the one that runs cloudtune, e.g. one with its own torch."""
    grace: Safe[Seconds] = 30.0
    """A cancelled job that does not stop gets SIGTERM after this time, and SIGKILL after the same time again."""
    usd_per_gpu_hour: Safe[NaturalFloat | None] = None
    """The price of an hour on one GPU, for estimates and cost limits."""
    usd_per_cpu_hour: Safe[NaturalFloat | None] = None
    """The price of an hour of a job on the CPU."""
    pass_env: Protection[tuple[EnvironmentName, ...]] = ()
    """Names of further environment variables for the worker and the trainer. They always get search paths, locale,
    caches and the settings of CUDA and thread pools, and the hub's token only for a model on the hub."""

    def root_folder(self) -> Path:
        """``root`` as an absolute path; it need not exist yet."""
        if self.root is not None:
            return self.root.expanduser().resolve()
        home = os.environ.get("CLOUDTUNE_HOME")
        if home:
            return (Path(home).expanduser() / "runs").resolve()
        import platformdirs

        return platformdirs.user_state_path("cloudtune").resolve() / "runs"


class RateRange(BaseModel):
    """The learning rates of the first and the last step of a range test."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: PositiveFloat
    last: PositiveFloat

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.first >= self.last:
            raise ValueError("the first rate must be lower than the last one")
        return self


class Overrides(BaseModel):
    """The fields of ``overrides.local`` in a spec."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """The device: ``auto`` uses a GPU if there is one."""
    max_restarts: NaturalInt = 0
    """How often training is started again, from its newest checkpoint, after a process was killed."""
    threads: PositiveInt | None = None
    """CPU threads of each process; by default torch's own choice."""
    log_every: PositiveInt = 1
    """Steps between metrics."""
    group_by_length: bool = False
    """Train on rows of similar length together, which need less padding. For rows that are not packed."""
    learning_rate_range: RateRange | None = None
    """Instead of training, measure the loss at learning rates from ``first`` to ``last``. No model is written; see
    `cloudtune lr-find`."""
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
