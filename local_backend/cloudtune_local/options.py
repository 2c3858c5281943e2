"""The local back end's own settings, and what a spec may say in its words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cloudtune.config.option_types import Program, Protection, Safe, WrittenPath
from cloudtune.spec import PositiveInt, Seconds
from cloudtune_trainer.submit.preference import PreferenceOverrides

EnvironmentName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Options(BaseModel):
    """Settings of the back end, from the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    root: WrittenPath[Path | None] = None
    """Where the run folders lie. Default: ``runs`` under CLOUDTUNE_HOME, else under this user's state folder."""
    slots: Safe[Literal["auto"] | PositiveInt] = "auto"
    """How many jobs run at once: ``auto`` is one for each GPU, or one where there is none."""
    python: Program[Path | None] = None
    """The interpreter that runs the trainer, where that is not the one that runs cloudtune: one with its own torch."""
    grace: Safe[Seconds] = 30.0
    """A cancelled job that does not stop by itself is sent SIGTERM after this long, and SIGKILL after as much again."""
    pass_env: Protection[tuple[EnvironmentName, ...]] = ()
    """More environment variables that the worker and the trainer get, by name. They always get search paths, locale,
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


class Overrides(BaseModel):
    """What ``overrides.local`` in a spec may hold."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train: ``auto`` takes a GPU if there is one."""
    processes: PositiveInt = 1
    """How many train one model together: one for each GPU. Each takes a slot; on the CPU they share one."""
    threads: PositiveInt | None = None
    """CPU threads of each process; left out, as many as torch finds."""
    log_every: PositiveInt = 1
    """Write metrics at every such step."""
    revision: str | None = Field(default=None, min_length=1)
    """Branch, tag or commit of a model on the hub."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for models whose authors you trust."""
    preference: PreferenceOverrides | None = None
    """Of preference methods: the loss of dpo, label smoothing, SimPO's margin."""
