"""Deploying a model and removing the deployment, through the same runner and ledger as a job.

One deploy call makes one deployment, whatever is lost or killed on the way. Unlike a job, a deployment can end and be
recreated: once an attempt has ended, the next call starts a new one and finds what exists.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.errors import BackendError, InputError, TransientError, UnsupportedError
from cloudtune.ledger.deployments import ended_at, newest_attempt
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
LEAST_TTL_S = 1.0
MOST_TTL_S = 10 * 366 * 86400.0
MOST_CLOCK_SKEW = timedelta(minutes=15)
"""A deployment that the vendor's clock dates this much after the end of the attempt was not created by it."""


_EXPIRY = "expires_at"
"""In the spec of a deployment's plan, which the ledger keeps."""


class Deployments(list[Deployment]):
    """The deployments that exist now.

    ``unanswered`` maps each back end that did not respond to the reason. ``failed`` maps the back end, scope and id of
    each deployment that `Client.sweep` could not delete to the reason.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unanswered: dict[str, str] = {}
        self.failed: dict[tuple[str, str, str], str] = {}


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

    def plan_deploy(self, model: TunedModel, options: dict[str, Any], ttl: float | None = None) -> Plan:
        """Return everything that `deploy` would do. Sends nothing. ``ttl`` is the time to live in seconds."""
        plan = self._numbered(self._host.plan_deploy(model, **options), "deploy", model.id)
        if ttl is None:
            return plan
        if not LEAST_TTL_S <= ttl <= MOST_TTL_S:
            raise InputError(f"the time to live must be from 1 second to 10 years, not {ttl:g} s")
        expires_at = self._runner.clock.now() + timedelta(seconds=ttl)
        return msgspec.structs.replace(plan, spec=plan.spec | {_EXPIRY: expires_at.isoformat()})

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
        found = reading(self._runner.clock, lambda: list(self._host.deployments()))
        return [msgspec.structs.replace(one, expires_at=self.expiry(one)) for one in found]

    def expiry(self, deployment: Deployment) -> datetime | None:
        """When the deployment expires, if this ledger's newest attempt made it with a time to live."""
        ledger, name, backend, scope = self._runner.ledger, deployment.id, deployment.backend, deployment.scope
        made = newest_attempt(ledger, name, backend=backend, scope=scope, deploy=True)
        last = newest_attempt(ledger, name, backend=backend, scope=scope)
        if made is None or last is None or (text := made.plan.spec.get(_EXPIRY)) is None:
            return None
        if last.purpose == "remove" and ended_at(ledger, last):
            return None  # another deployment with the same name
        expires_at = datetime.fromisoformat(str(text))
        made_at, done_at = deployment.created_at, ended_at(ledger, made)
        # An attempt can end after the time to live, so a deployment may be younger than that.
        if made_at and done_at and made_at > max(done_at, min(expires_at, done_at + MOST_CLOCK_SKEW)):
            return None  # another deployment with the same name
        return expires_at

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
