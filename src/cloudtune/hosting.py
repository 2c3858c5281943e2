"""Making a model answer and taking it down again, through the same executor and ledger as a job.

One deploy is one deployment, whatever is lost or killed on the way. Other than a job it may end and be made again: once
an attempt has come to its end the next call begins a new one, and finds what stands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.backend import Host
from cloudtune.errors import BackendError, InputError, LedgerError, TransientError, UnsupportedError
from cloudtune.execute import Executor
from cloudtune.identity import job_token
from cloudtune.ledger_rows import REMEDY
from cloudtune.retry import reading
from cloudtune.spool import Spool
from cloudtune.state import Deployment

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudtune.backend import Backend, Plan
    from cloudtune.clock import Clock
    from cloudtune.execute import StepUpdate
    from cloudtune.ledger import Ledger
    from cloudtune.state import TunedModel

LISTED_WITHIN_S = 120.0
"""How long a deployment that was just made may be missing from the list."""
LISTED_POLL_S = 2.0


class Deployments(list[Deployment]):
    """What stands now, and in ``unanswered`` each back end that could not be asked, with the reason."""

    def __init__(self) -> None:
        super().__init__()
        self.unanswered: dict[str, str] = {}


class Hosting:
    """The models that answer on one back end. Raises UnsupportedError if none can be made to."""

    def __init__(
        self, backend: Backend, ledger: Ledger, clock: Clock, trace: Callable[[str], None] | None = None
    ) -> None:
        if not hosts(backend) or not isinstance(backend, Host):
            raise UnsupportedError(
                f"{backend.name} cannot deploy a model: {backend.capabilities.why_not('verb:deploy')}"
            )
        self._backend = backend
        self._host: Host = backend
        self._ledger = ledger
        self._clock = clock
        self._trace = trace

    def plan_deploy(self, model: TunedModel, options: dict[str, Any]) -> Plan:
        """Everything that `deploy` would do, with nothing sent."""
        return self._numbered(self._host.plan_deploy(model, **options), "deploy", model.id)

    def plan_remove(self, deployment: Deployment) -> Plan:
        """Everything that `remove` would do, with nothing sent."""
        return self._numbered(self._host.plan_remove(deployment), "remove", deployment.model)

    def deploy(self, plan: Plan, on_step: Callable[[StepUpdate], None] | None) -> Deployment:
        """Carry the plan out, and return what stands then."""
        if plan.purpose != "deploy":
            raise InputError("this is a plan for something else, and not to deploy a model")
        name = str(self._carry_out(plan, on_step)["name"])
        start = self._clock.monotonic()
        while True:
            for deployment in self.standing():
                if deployment.id == name:
                    return deployment
            if self._clock.monotonic() - start > LISTED_WITHIN_S:
                raise TransientError(
                    f"{name} was deployed on {plan.backend}, which does not list it", hint="see: cloudtune deployments"
                )
            self._clock.sleep(LISTED_POLL_S)

    def remove(self, plan: Plan, on_step: Callable[[StepUpdate], None] | None) -> None:
        """Carry the plan out."""
        self._carry_out(plan, on_step)

    def standing(self) -> list[Deployment]:
        """What stands now, or is being made."""
        return reading(self._clock, lambda: list(self._host.deployments()))

    def _carry_out(self, plan: Plan, on_step: Callable[[StepUpdate], None] | None) -> dict[str, Any]:
        # What was journaled is what goes on. The plan may be an old one: its attempt may have ended meanwhile.
        attempt = self._ledger.begin(self._numbered(plan, plan.purpose, ""))
        spool = Spool(self._ledger.folder / "spool")
        executor = Executor(
            self._backend, self._ledger, self._clock, spool=spool, trace=self._trace, on_step=on_step
        )  # fmt: skip
        return executor.host(attempt.plan)

    def _numbered(self, plan: Plan, purpose: str, model: str) -> Plan:
        """The plan as the attempt that is meant: the last one, or if that came to its end a new one."""
        if plan.purpose != purpose:
            raise BackendError(f"a plan of {plan.backend} to {purpose} says that it is for: {plan.purpose}")
        last, number = self._ledger.latest(plan.key), 1
        if last is not None:
            if not last.plan.steps:
                raise LedgerError(f"the plan of {last.name} has no steps: it is damaged in the ledger", hint=REMEDY)
            ended = self._ledger.is_done(last.token, last.plan.steps[-1].id)
            number = last.attempt + 1 if ended else last.attempt
        spec = plan.spec or {"model": model}
        return msgspec.structs.replace(plan, attempt=number, token=job_token(plan.key, number), spec=spec)


def hosts(backend: Backend) -> bool:
    """Whether models are deployed there."""
    return isinstance(backend, Host) and backend.capabilities.can("verb:deploy")
