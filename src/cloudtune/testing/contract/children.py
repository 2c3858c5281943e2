"""The preparation of a child process (see `Order.prepare`), and its back end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from cloudtune.testing.contract.no_io import no_io
from cloudtune.testing.world import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloudtune.backend import Backend
    from cloudtune.clock import Clock
    from cloudtune.plan import Plan, PlanRequest
    from cloudtune.spec import JobSpec


def hide(trace: Callable[[str], None], *, modules: Sequence[str]) -> Callable[[str], None]:
    """Pretend that these modules are not installed."""
    for name in list(sys.modules):
        if name.partition(".")[0] in modules:
            del sys.modules[name]
    # None marks a module as not importable in Python; importlib.util.find_spec respects it too.
    sys.modules.update(dict.fromkeys(modules))  # type: ignore[arg-type]
    return trace


def open_planning(target: str, arguments: dict[str, Any]) -> tuple[Backend, Clock]:
    """A recipe: another recipe's back end, whose plan may do no I/O and whose check may run once."""
    backend, clock = Recipe(target=target, arguments=arguments).make()
    check, plan, checked = backend.check, backend.plan, []

    def check_once(spec: JobSpec) -> Any:
        checked.append(spec)
        assert len(checked) == 1, "check ran twice"
        return check(spec)

    def pure_plan(request: PlanRequest) -> Plan:
        with no_io():
            return plan(request)

    vars(backend).update(check=check_once, plan=pure_plan)
    return backend, clock
