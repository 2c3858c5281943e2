"""``cloudtune methods``: which method trains which adapter, from a back end's own checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from cloudtune.cli.options import command

if TYPE_CHECKING:
    from cloudtune.backend import Backend
    from cloudtune.cli.session import Session

_PARTS = {"method": "name", "adapter": "type"}
_SCHEDULE = {"decay": 0.9}


@command("methods")
def methods(session: Session) -> None:
    """Show which methods and adapters can be combined on a back end, and why others cannot.

    A plan also checks the model: for example, head_only requires a model with a head of its own.
    """
    backend = session.client.backend(session.config.backend)
    found = matrix(backend)
    session.result({"backend": backend.name, "methods": found})
    if session.json:
        return
    from cloudtune.cli.render import table

    trained = {name: row for name, row in found.items() if row["trains"]}
    adapters = list(next(iter(found.values()))["adapters"])
    offered = [one for one in adapters if any(row["adapters"][one]["trains"] for row in trained.values())]
    rows = [
        [name, row["task"], *(_mark(row["adapters"][one]) for one in offered)] for name, row in trained.items()
    ]  # fmt: skip
    table(["METHOD", "TASK", *offered], rows)
    session.put("\nyes: trains. layers: also with a layer schedule (`layers`). -: refused.")
    reasons = {name: row["reason"] for name, row in found.items() if not row["trains"]}
    for one in adapters:
        cells = {name: row["adapters"][one]["reason"] for name, row in trained.items()}
        common = set(cells.values())
        if len(common) == 1 and None not in common:
            reasons[one] = common.pop()
        else:
            reasons |= {f"{name} with {one}": reason for name, reason in cells.items() if reason}
    if reasons:
        session.put("")
        table(["REFUSED", "REASON"], [list(pair) for pair in reasons.items()])


def _mark(cell: dict[str, Any]) -> str:
    return "-" if not cell["trains"] else "layers" if cell["layers"] else "yes"


def matrix(backend: Backend) -> dict[str, dict[str, Any]]:
    """Each method of the table, with its task, and for each adapter whether the back end trains it, or why not."""
    from cloudtune.methods import METHODS
    from cloudtune.spec_trained import AdapterName

    found = {}
    for name, method in METHODS.items():
        reason = _refusal(backend, {"method": name})
        cells = {}
        for adapter in get_args(AdapterName):
            cell = reason or _refusal(backend, {"method": name, "adapter": adapter})
            schedule = cell or _refusal(backend, {"method": name, "adapter": adapter, "layers": _SCHEDULE})
            cells[adapter] = {"trains": cell is None, "layers": schedule is None, "reason": cell}
        found[name] = {"task": method.task, "trains": reason is None, "reason": reason, "adapters": cells}
    return found


def _refusal(backend: Backend, wanted: dict[str, Any]) -> str | None:
    """Why the back end refuses a spec with these parts, or None."""
    from cloudtune.spec import JobSpec

    spec = JobSpec.model_validate({"model": "any", "data": {"train": "rows.jsonl"}, **wanted})
    capabilities = backend.capabilities
    features = [one for one in spec.requested_fields() if one.partition(":")[0].partition(".")[0] in wanted]
    missing = next((capabilities.why_not(one) for one in features if not capabilities.can(one)), None)
    if missing is not None:
        return missing
    fields = {f"{part}.{_PARTS[part]}" for part in _PARTS if part in wanted} | set(features) | {*wanted}
    errors = [one for one in backend.check(spec) if one.severity == "error" and one.field in fields]
    return errors[0].message if errors else None
