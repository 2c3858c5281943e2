"""``cloudtune doctor``: what is installed, reachable and configured. It never prints a secret."""

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
@click.option("--offline", is_flag=True, help="Ask no back end whether it answers.")
def doctor(session: Session, name: str | None, offline: bool) -> None:
    """Check what is installed, reachable and configured. Exits with 2 if something that is needed is wrong.

    With BACKEND, everything that a job there will need is looked at: identity, permissions, buckets, quotas. What may
    not be looked at is told apart from what is wrong.
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
    """What a back end looks at before a job. Raises UnsupportedError where it cannot."""
    from cloudtune.errors import UnsupportedError
    from cloudtune.optional import Preflight

    backend = session.client.backend(name)
    if not isinstance(backend, Preflight):
        raise UnsupportedError(f"{name} has nothing to look at before a job", hint="`cloudtune doctor` checks the rest")
    for check in backend.preflight(spec, plan):
        yield check.what, "bad" if check.verdict == "denied" else check.verdict, check.detail


def put_findings(session: Session, findings: list[Finding]) -> None:
    """One line for each."""
    marks = {"good": "ok     ", "warning": "warning", "bad": "WRONG  ", "cannot_verify": "unknown"}
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
        yield "data", "good", "rows are checked by the compiled function"
    else:
        yield "data", "warning", "without a C compiler at its installation it checks rows at less than half the speed"


def _configured(session: Session) -> Iterator[Finding]:
    from cloudtune.errors import CloudtuneError

    try:
        config = session.config
    except CloudtuneError as error:
        yield "configuration", "bad", _line(error)
        return
    yield "configuration", "good", ", ".join(map(str, config.files)) or "no file; defaults and environment"
    for problem in config.pending:
        yield "trust", "warning", f"no effect yet: {problem}"
    for name in config.ignored:
        yield "environment", "warning", f"{name} means nothing to cloudtune"
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
    yield "room", "good" if free > LITTLE_ROOM else "warning", f"{size(free)} free there"


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
        yield f"back end {chosen}", "bad", f"configured, but not known; known: {', '.join(names)}"
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
    except Exception as error:  # noqa: BLE001 - whatever it is, it belongs in the report
        return what, "bad" if needed else "warning", f"does not answer: {_line(error)}"
    return what, "good", "answers" + ("; it has jobs" if jobs else "; it has no jobs yet")


def _line(error: BaseException) -> str:
    return "; ".join(str(error).splitlines()) or type(error).__name__
