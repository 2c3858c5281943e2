"""``cloudtune models``: what can be tuned where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cloudtune.cli.options import command

if TYPE_CHECKING:
    from cloudtune.cli.session import Session

_COLUMNS = {
    "model": "MODEL", "backend": "BACKEND", "method": "METHOD", "training": "TRAINING",
    "no_new_jobs_from": "JOBS UNTIL", "ends": "ENDS", "read": "READ",
}  # fmt: skip


@command("models")
@click.option("--method", metavar="METHOD", help="Only models that can be tuned with this method, e.g. dpo.")
@click.option("--all", "everything", is_flag=True, help="Also list models that accept no new jobs.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
def models(session: Session, method: str | None, everything: bool, as_csv: bool) -> None:
    """List which base models can be tuned on which back end: method, price of training, end dates.

    The catalogs of the back ends have the figures, each with its source and the day it was read. Back ends that take
    any model, such as local, have no catalog.
    """
    from cloudtune.catalog import TunableModel, load, tunable, vendors
    from cloudtune.cli.render import csv_text, table
    from cloudtune.errors import InputError
    from cloudtune.methods import METHODS
    from cloudtune.registry import backend_names
    from cloudtune.state import to_json

    if method is not None and method not in METHODS:
        raise InputError(f"unknown method {method!r}", hint=f"known: {', '.join(METHODS)}")
    names = backend_names() if session.backend is None else [session.backend]
    services = {name: service.title for name in names if (service := session.service_of(name)) is not None}
    known = [name for name in names if name in vendors() and name not in services]
    if not known and not services:
        load(names[0])  # reports that there is no catalog
    today = session.client.clock.now().date()
    found = [one for name in known for one in tunable(load(name), today, method) if everything or one.open]
    rows = [to_json(one) for one in found]
    session.result({"models": rows, "without_catalog": [name for name in names if name not in known]})
    if session.json:
        return
    if as_csv:
        session.put(csv_text(rows, TunableModel.__struct_fields__), end="")
        return
    if found:
        table(list(_COLUMNS.values()), [[_cell(row, name) for name in _COLUMNS] for row in rows])
    else:
        session.say("no model accepts new jobs with that method; --all lists the others")
    for name, title in services.items():
        session.say(f"{name} is set to {title}, which is not in the catalog; its profile has its models")
    if others := [name for name in names if name not in known and name not in services]:
        session.say(f"without a catalog: {', '.join(others)}; `cloudtune backends NAME` shows what they train")
    if old := dict.fromkeys(one.backend for one in found if one.stale):
        session.say(f"old figures of {', '.join(old)}: run `cloudtune catalog refresh`")
    for source in dict.fromkeys(f"{one.source}, seen {one.read}" for one in found):
        session.say(f"source: {source}")
    for source in dict.fromkeys(one.price_source for one in found if one.price_source):
        session.say(f"price: {source}")


def _cell(row: dict[str, Any], name: str) -> str:
    if name != "training":
        return str(row[name] or "")
    if row["training_usd"] is None:
        return "unknown"
    return f"${row['training_usd']:g} per {row['per']}" + (f" ({row['tier']})" if row["tier"] else "")
