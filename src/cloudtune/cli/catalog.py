"""``cloudtune catalog refresh``: read figures of the catalogs again from the vendors' own APIs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cloudtune.cli.options import command

if TYPE_CHECKING:
    from datetime import date

    from cloudtune.catalog import Catalog
    from cloudtune.cli.session import Session


@click.group("catalog")
def catalog() -> None:
    """Read models, prices and end dates of the back ends again."""


@command("refresh")
@click.option("--dry-run", is_flag=True, help="Show what would change, and write nothing.")
def refresh(session: Session, dry_run: bool) -> None:
    """Read models, end dates and prices again from the vendors' own APIs, for the account in use.

    Without --backend, all back ends that can do this are read. Later commands use the new figures. Your own file, in
    the folder `catalog` next to your config.toml, replaces both. Nothing else is changed, at the vendor or here.
    """
    from cloudtune.catalog import vendors
    from cloudtune.errors import CloudtuneError, UnsupportedError
    from cloudtune.optional import CatalogReader

    today = session.client.clock.now().date()
    done: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for name in vendors() if session.backend is None else (session.backend,):
        try:
            backend = session.client.backend(name)
            if not isinstance(backend, CatalogReader):
                raise UnsupportedError(f"the API of {name} has no figures for the catalog")
            done.append(_refreshed(name, backend.read_catalog(today), today, dry_run=dry_run))
        except (CloudtuneError, OSError) as error:
            if session.backend is not None:
                raise
            problem = error.message if isinstance(error, CloudtuneError) else str(error)
            failed.append({"backend": name, "problem": problem})
    session.result({"refreshed": done, "not_refreshed": failed, "dry_run": dry_run})
    for one in done:
        for line in one["changes"]:
            session.put(f"{one['backend']}: {line}")
        verb = "would write" if dry_run else "wrote"
        session.say(f"{one['backend']}: {len(one['changes'])} changes; {verb} {one['file']}")
    for one in failed:
        session.say(f"{one['backend']}: not refreshed: {one['problem']}")


def _refreshed(name: str, found: Catalog, today: date, *, dry_run: bool) -> dict[str, Any]:
    """Save what a back end has read, and describe what changes."""
    from cloudtune.catalog import current, overlay
    from cloudtune.catalog.reading import read_if_there
    from cloudtune.errors import BackendError

    if not found.sources:
        hint = "check the region and the permissions; the figures in use stay as they are"
        raise BackendError(f"the API of {name} lists no figures", hint=hint)
    path = dict(overlay.files(name))[overlay.REFRESHED]
    if (old := read_if_there(path)) is not None:
        found = overlay.with_other_regions(found, old)
    before, after = current(name), current(name, refreshed=found)
    if not dry_run:
        overlay.save(found, path)
    return {"backend": name, "file": str(path), "read": today.isoformat(), "models": len(found.models),
            "prices": len(found.prices) + sum(len(one.usd) for one in found.rates),
            "changes": list(_changes(before, after))}  # fmt: skip


def _changes(before: Catalog, after: Catalog) -> list[str]:
    listed = {model.id for model in after.models}
    lines = [f"{model.id}: no longer listed" for model in before.models if model.id not in listed]
    for model in after.models:
        old = before.model(model.id)
        if old is None:
            lines.append(f"{model.id}: new, {', '.join(model.methods) or 'cannot be tuned'}")
            continue
        for field in ("methods", "no_new_jobs_from", "ends"):
            was, now = getattr(old, field), getattr(model, field)
            if was != now:
                lines.append(f"{model.id}: {field.replace('_', ' ')}: {_shown(was)} -> {_shown(now)}")
    for rates in after.rates:
        for kind, usd in rates.usd.items():
            rate = before.rate(rates.use, kind, rates.region)
            if rates not in before.rates and (rate is None or rate.usd != usd):
                was = "unknown" if rate is None else f"${rate.usd:g}"
                lines.append(f"{kind} for {rates.use} in {rates.region}: {was} -> ${usd:g} per hour")
    for rates in before.rates:
        lines += [f"{kind} for {rates.use} in {rates.region}: ${usd:g} per hour -> unknown"
                  for kind, usd in rates.usd.items() if after.rate(rates.use, kind, rates.region) is None]  # fmt: skip
    return lines


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value or "none")


catalog.add_command(refresh)
