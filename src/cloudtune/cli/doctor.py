"""``cloudtune doctor``: check what is installed, reachable and configured. Never prints a secret."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal

import click

from cloudtune.cli.options import command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.cli.session import Session
    from cloudtune.plan import Plan
    from cloudtune.spec import JobSpec

Verdict = Literal["good", "warning", "bad", "cannot_verify"]
Finding = tuple[str, Verdict, str]
LITTLE_ROOM = 2 * 1000**3


@command("doctor")
@click.argument("name", metavar="[BACKEND]", required=False)
@click.option("--offline", is_flag=True, help="Do not contact any back end.")
def doctor(session: Session, name: str | None, offline: bool) -> None:
    """Check what is installed, reachable and configured. Exits with 2 if a required check fails.

    With BACKEND, check everything that a job on it needs: identity, permissions, buckets, quotas. Checks that your
    permissions do not allow are reported as unknown, not as failed.
    """
    findings = [*preflight(session, name)] if name else [*_machine(), *_configured(session)]
    if not name:
        findings += _backends(session, offline)
    bad = any(verdict == "bad" for _, verdict, _ in findings)
    session.result(
        {"ok": not bad, "checks": [{"what": what, "verdict": how, "detail": text} for what, how, text in findings]}
    )
    put_findings(session, findings)
    if bad:
        click.get_current_context().exit(2)


def preflight(session: Session, name: str, spec: JobSpec | None = None, plan: Plan | None = None) -> Iterator[Finding]:
    """Run the preflight checks of a back end. Raises UnsupportedError if it has none."""
    from cloudtune.errors import UnsupportedError
    from cloudtune.optional import Preflight

    backend = session.client.backend(name)
    if not isinstance(backend, Preflight):
        raise UnsupportedError(
            f"{name} has no preflight checks", hint="run `cloudtune doctor` without a back end for the general checks"
        )
    for check in backend.preflight(spec, plan):
        yield check.what, "bad" if check.verdict == "denied" else check.verdict, check.detail


def put_findings(session: Session, findings: list[Finding]) -> None:
    """Print one line per finding."""
    marks = {"good": "ok     ", "warning": "warning", "bad": "FAILED ", "cannot_verify": "unknown"}
    width = max(len(what) for what, _, _ in findings)
    for what, verdict, text in findings:
        session.put(f"{marks[verdict]}  {what.ljust(width)}  {text}".rstrip())


def _machine() -> Iterator[Finding]:
    yield "cloudtune", "good", version("cloudtune")
    yield "python", "good", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    from cloudtune.registry import backends

    needed = [name.replace(".", "-") for info in backends().values() for name in info.needs]  # azure.core: azure-core
    installed = []
    for name in dict.fromkeys(["pydantic", "msgspec", *needed]):
        try:
            installed.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    yield "packages", "good", ", ".join(installed)
    from cloudtune.data.read.plain_blocks import compiled

    if compiled() is not None:
        yield "data", "good", "the compiled row checker is installed"
    else:
        yield (
            "data",
            "warning",
            "the compiled row checker is missing (no C compiler at install time); checks run at half speed",
        )


def _configured(session: Session) -> Iterator[Finding]:
    from cloudtune.errors import CloudtuneError

    try:
        config = session.config
    except CloudtuneError as error:
        yield "configuration", "bad", _line(error)
        return
    yield "configuration", "good", ", ".join(map(str, config.files)) or "no file; using defaults and environment"
    for problem in config.pending:
        yield "trust", "warning", f"not applied: {problem}"
    for name in config.ignored:
        yield "environment", "warning", f"{name} is not a cloudtune setting"
    try:
        ledger = session.client.ledger
        jobs = len(ledger.refs())
        folder = next(up for up in (ledger.folder, *ledger.folder.parents) if up.exists())
        writable, free = os.access(folder, os.W_OK), shutil.disk_usage(folder).free
    except (CloudtuneError, OSError) as error:
        yield "ledger", "bad", _line(error)
        return
    from cloudtune.cli.render import size

    yield "ledger", "good", f"{ledger}: {jobs} jobs"
    yield "disk", "good" if writable else "bad", f"{folder}: {'' if writable else 'not '}writable"
    yield "disk space", "good" if free > LITTLE_ROOM else "warning", f"{size(free)} free"


def _backends(session: Session, offline: bool) -> Iterator[Finding]:
    from cloudtune.cli.backends import inspect
    from cloudtune.errors import CloudtuneError
    from cloudtune.registry import backend_names

    try:
        chosen = session.config.backend
    except CloudtuneError:
        return
    names = backend_names()
    if chosen not in names:
        yield f"back end {chosen}", "bad", f"configured, but unknown; known back ends: {', '.join(names)}"
    for name in names:
        what, needed = f"back end {name}", name == chosen
        found = inspect(session, name)
        if not found["usable"]:
            detail = f"{found['problem']}; {found['hint']}" if found["hint"] else str(found["problem"])
            yield what, "bad" if needed else "warning", detail.replace("\n", "; ")
            continue
        yield _reached(session, name, what, needed) if not offline else (what, "good", "installed and configured")


def _reached(session: Session, name: str, what: str, needed: bool) -> Finding:
    from itertools import islice

    try:
        jobs: list[Any] = list(islice(session.client.backend(name).list(1), 1))
    except Exception as error:  # noqa: BLE001 - every error belongs in the report
        return what, "bad" if needed else "warning", f"no response: {_line(error)}"
    return what, "good", "answers" + ("; it has jobs" if jobs else "; it has no jobs yet")


def _line(error: BaseException) -> str:
    return "; ".join(str(error).splitlines()) or type(error).__name__
