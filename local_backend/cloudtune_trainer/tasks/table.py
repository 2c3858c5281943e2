"""The tasks by name. Which method trains which task: ``run_spec.TASKS``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune_trainer import run_spec
from cloudtune_trainer.tasks.causal_lm import CausalLM
from cloudtune_trainer.tasks.preference import Preferences

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudtune_trainer.run_spec import RunSpec
    from cloudtune_trainer.tasks.task import Task

TASKS: dict[str, Callable[[RunSpec], Task]] = {"causal_lm": CausalLM, "preference": Preferences}


def task_for(spec: RunSpec) -> Task:
    """The task of the spec's method."""
    return TASKS[run_spec.TASKS[spec.method]](spec)
