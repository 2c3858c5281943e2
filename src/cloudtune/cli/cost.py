"""``cloudtune cost``: what jobs cost, beside their estimates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cloudtune.cli.options import command

if TYPE_CHECKING:
    from cloudtune.cli.session import Session
    from cloudtune.ledger.costs import JobCost

_FIELDS = ("job", "name", "backend", "model", "month", "state", "tokens", "seconds", "estimate_usd", "actual_usd",
           "error_percent", "basis")  # fmt: skip


@command("cost")
@click.argument("job", metavar="[JOB]", required=False)
@click.option("--by", default="job", metavar="WHAT", help="Add up by job, backend, model, month or tag:NAME.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
def cost(session: Session, job: str | None, by: str, as_csv: bool) -> None:
    """Show what jobs cost, beside their estimates, newest first.

    The cost is the vendor's record of tokens or seconds at the prices of the job's plan. An unknown cost is not zero:
    it is counted in its own column.
    """
    if by not in ("job", "backend", "model", "month") and not (by.startswith("tag:") and by[4:]):
        raise click.BadParameter("choose job, backend, model, month or tag:NAME", param_hint="--by")
    client = session.client
    found = client.costs(backend=session.backend)
    if job is not None:
        ref = session.job(job).ref
        found[:] = [one for one in found if one.attempt.ref == ref]
    rows = [_row(one) for one in found]
    if by != "job":
        groups: dict[str, list[dict[str, Any]]] = {}
        for one, row in zip(found, rows, strict=True):
            groups.setdefault(_group(one, row, by), []).append(row)
        rows = [_sum(by, name, group) for name, group in groups.items()]
    session.result({"by": by, "costs": rows, "damaged_rows": len(found.damaged)})
    if session.json:
        return
    if as_csv:
        from cloudtune.cli.render import csv_text

        columns = _FIELDS if by == "job" else (by, "jobs", "unknown", "estimate_usd", "actual_usd", "error_percent")
        session.put(csv_text(rows, columns), end="")
    elif rows:
        _show(rows, by)
    else:
        session.say("no jobs yet")


def _row(one: JobCost) -> dict[str, Any]:
    made, actual, estimate = one.attempt, one.actual, one.attempt.plan.cost
    usd, expected = (actual.usd if actual else None), (estimate.usd if estimate else None)
    model = made.plan.spec.get("model")
    basis = actual.basis if actual else "it has not ended" if estimate is None else f"estimate: {estimate.basis}"
    return {
        "job": str(made.ref), "name": made.name, "backend": made.backend,
        "model": model.get(made.backend) if isinstance(model, dict) else model, "month": made.begun_at[:7],
        "state": actual.state if actual else None, "tokens": actual.usage.tokens if actual else None,
        "seconds": actual.usage.seconds if actual else None, "estimate_usd": expected, "actual_usd": usd,
        "error_percent": _error(expected, usd), "basis": basis,
    }  # fmt: skip


def _error(expected: float | None, usd: float | None) -> float | None:
    return None if expected is None or not usd else round(100 * (expected - usd) / usd, 1)


def _group(one: JobCost, row: dict[str, Any], by: str) -> str:
    if by.startswith("tag:"):
        return str(one.attempt.plan.spec.get("tags", {}).get(by[4:], ""))
    return str(row[by])


def _sum(by: str, name: str, group: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up a group. Estimate and error are those of the jobs with both figures."""
    known = [row["actual_usd"] for row in group if row["actual_usd"] is not None]
    both = [row for row in group if row["error_percent"] is not None]
    expected, cost = (sum(row[what] for row in both) for what in ("estimate_usd", "actual_usd"))
    return {
        by: name, "jobs": len(group), "unknown": len(group) - len(known),
        "estimate_usd": round(expected, 4) if both else None,
        "actual_usd": round(sum(known), 4) if known else None,
        "error_percent": _error(expected, cost) if both else None,
    }  # fmt: skip


def _show(rows: list[dict[str, Any]], by: str) -> None:
    from cloudtune.cli.render import table

    figures = {"estimate_usd": "ESTIMATE", "actual_usd": "COST", "error_percent": "ERROR"}
    names = {"job": "JOB", "state": "STATE"} if by == "job" else {by: by.upper(), "jobs": "JOBS", "unknown": "UNKNOWN"}
    shown = [[_cell(row, name) for name in (*names, *figures)] for row in rows]
    columns = [*names.values(), *figures.values()]
    if by == "job":
        columns, shown = [*columns, "BASIS"], [[*line, row["basis"]] for line, row in zip(shown, rows, strict=True)]
    table(columns, shown, right=("JOBS", "UNKNOWN", *figures.values()))


def _cell(row: dict[str, Any], name: str) -> str:
    value = row[name]
    if value is None:
        return {"error_percent": "", "state": "not ended"}.get(name, "unknown")
    if name.endswith("_usd"):
        return f"${value:,.4f}" if value < 1 else f"${value:,.2f}"
    return f"{value:+.1f} %" if name == "error_percent" else str(value)
