"""Deploying a model and removing the deployment, through the same runner and ledger as a job.

One deploy call makes one deployment, whatever is lost or killed on the way. Unlike a job, a deployment can end and be
recreated: once an attempt has ended, the next call starts a new one and finds what exists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.errors import BackendError, InputError, TransientError, UnsupportedError
from cloudtune.optional import Host
from cloudtune.retry import reading
from cloudtune.runner import job_token
from cloudtune.state import Deployment

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudtune.backend import Backend
    from cloudtune.execute import StepUpdate
    from cloudtune.plan import Plan
    from cloudtune.runner import Runner
    from cloudtune.state import TunedModel

LISTED_WITHIN_S = 120.0
"""Seconds that a new deployment may be missing from the list."""
LISTED_POLL_S = 2.0


class Deployments(list[Deployment]):
    """The deployments that exist now. ``unanswered`` maps each back end that did not respond to the reason."""

    def __init__(self) -> None:
        super().__init__()
        self.unanswered: dict[str, str] = {}


class Hosting:
    """Deployments on one back end. Raises UnsupportedError if it deploys no models."""

    def __init__(self, runner: Runner) -> None:
        backend = runner.backend
        if not isinstance(backend, Host) or not hosts(backend):
            raise UnsupportedError(
                f"{backend.name} cannot deploy models: {backend.capabilities.why_not('verb:deploy')}"
            )
        self._runner = runner
        self._host: Host = backend

    def plan_deploy(self, model: TunedModel, options: dict[str, Any]) -> Plan:
        """Return everything that `deploy` would do. Sends nothing."""
        return self._numbered(self._host.plan_deploy(model, **options), "deploy", model.id)

    def plan_remove(self, deployment: Deployment) -> Plan:
        """Return everything that `remove` would do. Sends nothing."""
        return self._numbered(self._host.plan_remove(deployment), "remove", deployment.model)

    def deploy(self, plan: Plan, on_step: Callable[[StepUpdate], None] | None) -> Deployment:
        """Execute the plan and return the deployment, once the back end lists it."""
        if plan.purpose != "deploy":
            raise InputError("this plan does not deploy a model")
        name = str(self._execute(plan, on_step)["name"])
        clock = self._runner.clock
        start = clock.monotonic()
        while True:
            for deployment in self.existing():
                if deployment.id == name:
                    return deployment
            if clock.monotonic() - start > LISTED_WITHIN_S:
                raise TransientError(
                    f"{name} was deployed on {plan.backend}, but is not in its list of deployments",
                    hint="run `cloudtune deployments` to list deployments",
                )
            clock.sleep(LISTED_POLL_S)

    def remove(self, plan: Plan, on_step: Callable[[StepUpdate], None] | None) -> None:
        """Execute the plan."""
        self._execute(plan, on_step)

    def existing(self) -> list[Deployment]:
        """Return the deployments that exist now, including those being created."""
        return reading(self._runner.clock, lambda: list(self._host.deployments()))

    def _execute(self, plan: Plan, on_step: Callable[[StepUpdate], None] | None) -> dict[str, Any]:
        # The plan's attempt may have ended, so assign a new number.
        return self._runner.run_deployment(self._numbered(plan, plan.purpose, ""), on_step)

    def _numbered(self, plan: Plan, purpose: str, model: str) -> Plan:
        """Return the plan with the number of its attempt."""
        if plan.purpose != purpose:
            raise BackendError(f"a plan of {plan.backend} to {purpose} has the purpose {plan.purpose}")
        number = self._runner.next_deployment(plan.key)
        spec = plan.spec or {"model": model}
        return msgspec.structs.replace(plan, attempt=number, token=job_token(plan.key, number), spec=spec)


def hosts(backend: Backend) -> bool:
    """Whether the back end deploys models."""
    return isinstance(backend, Host) and backend.capabilities.can("verb:deploy")
