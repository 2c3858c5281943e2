"""The report of a job: what the ledger, the back end and an evaluation know about it."""

from __future__ import annotations

import os
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec

from cloudtune.cost import ActualCost
from cloudtune.errors import CloudtuneError, InputError, LedgerError
from cloudtune.evaluation.result import Evaluation, load
from cloudtune.ledger.costs import recorded_cost
from cloudtune.plan import Plan
from cloudtune.redaction.redactor import Redactor, environment_secrets
from cloudtune.report.rows import RowComparison, compared_rows
from cloudtune.spending import settle
from cloudtune.state import JobRef, JobSnapshot, Metric, TunedModel, Value, to_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cloudtune.backend import Backend
    from cloudtune.job import Job
    from cloudtune.ledger.ledger import Ledger

T = TypeVar("T")
REPORT_VERSION = 1
_MOST_ANCESTORS = 20
_HOW_TO_WRITE = "write it with: cloudtune evaluate JOB --data FILE --json"


class Report(Value, frozen=True, kw_only=True):
    """Everything about one job. Values that are not known are None or empty, and ``missing`` says why."""

    schema_version: int = REPORT_VERSION
    ref: JobRef
    name: str
    created_at: datetime
    """When the report was made."""
    cloudtune_version: str
    job: JobSnapshot | None = None
    """The state of the job. The vendor's response is left out."""
    plan: Plan | None = None
    """The plan that the job was submitted with: data, settings with their sources, and cost."""
    metrics: tuple[Metric, ...] = ()
    cost: ActualCost | None = None
    """What the job cost. None until it has ended, or if the back end has no prices."""
    model: TunedModel | None = None
    evaluation: Evaluation | None = None
    rows: RowComparison | None = None
    """The evaluated rows, each compared between the tuned model and a baseline."""
    ancestors: tuple[JobRef, ...] = ()
    """The job that this one continues, the one that that one continues, and so on."""
    missing: tuple[str, ...] = ()
    """What the report lacks, and why."""

    def html(self) -> str:
        """Return the report as one HTML page of at most 1.5 MB. It loads nothing."""
        from cloudtune.report.page import html_page

        return html_page(self)

    def markdown(self) -> str:
        """Return the report as GitHub-flavored Markdown."""
        from cloudtune.report.markdown import markdown_text

        return markdown_text(self)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON types."""
        found: dict[str, Any] = to_json(self)
        return found


def make_report(job: Job, backend: Backend, ledger: Ledger, now: datetime, evaluation: Evaluation | None) -> Report:
    """Gather the report. What the back end cannot return is listed in ``missing``. See `Client.report`."""
    missing: list[str] = []

    def known(what: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except CloudtuneError as error:
            missing.append(f"{what}: {error.message}")
            return None

    attempt = known("plan", lambda: ledger.of_ref(job.ref))
    snapshot = known("state", job.snapshot) if attempt is not None else job.snapshot()
    if attempt is None and not missing:
        missing.append("plan: the job was not submitted with this ledger")
    metrics = known("metrics", job.metrics) if snapshot is not None else None
    if snapshot is not None:
        known("cost", lambda: settle(ledger, backend, snapshot, now))
    cost = known("cost", lambda: recorded_cost(ledger, job.ref))
    model = known("model", job.model) if snapshot is not None and snapshot.has_ended else None
    if evaluation is None:
        evaluation = known("evaluation", lambda: load(ledger, job.ref))
    if evaluation is None and not any(one.startswith("evaluation: ") for one in missing):
        missing.append("evaluation: the job has not been evaluated")
    rows = known("rows", lambda: compared_rows(evaluation)) if evaluation is not None else None
    report = Report(
        ref=job.ref, name=(attempt.name if attempt is not None else "") or (snapshot and snapshot.name) or job.ref.id,
        created_at=now, cloudtune_version=_version(),
        job=msgspec.structs.replace(snapshot, raw={}) if snapshot is not None else None,
        plan=attempt.plan if attempt is not None else None,
        metrics=tuple(metrics or ()), cost=cost,
        model=msgspec.structs.replace(model, raw={}) if model is not None else None,
        evaluation=evaluation, rows=rows,
        ancestors=_ancestors(attempt.plan.parent if attempt is not None else None, ledger), missing=tuple(missing),
    )  # fmt: skip
    return Redactor(environment_secrets(os.environ)).data(report)


_Count = Annotated[int, msgspec.Meta(ge=0)]


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    file: str
    line: int
    expected: str
    answers: dict[str, str]
    group: int
    prompt: str = ""
    tokens: dict[str, tuple[_Count, _Count]] = {}


class _Confusion(msgspec.Struct, frozen=True):
    labels: list[str]
    counts: list[list[int]]


class _Printed(msgspec.Struct, frozen=True):
    """The parts of a printed evaluation that `Evaluation` does not describe."""

    answers: tuple[_Row, ...]
    confusion: _Confusion | None


def evaluation_from_json(document: bytes, file: str, ref: JobRef | None) -> Evaluation:
    """Read an evaluation that ``cloudtune evaluate --json`` printed: of the job, if one is given.

    Raises InputError for anything else.
    """
    try:
        printed = msgspec.json.decode(document, type=_Printed)
        found = msgspec.json.decode(document, type=Evaluation)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{file} is not an evaluation: {error}", hint=_HOW_TO_WRITE) from error
    if ref is not None and found.ref != str(ref):
        message = f"{file} is an evaluation of {found.ref or 'an unknown model'}, not of {ref}"
        raise InputError(message, hint=_HOW_TO_WRITE)
    names = {one.name for one in found.models}
    confusion = printed.confusion
    complete = (
        all(names <= row.answers.keys() for row in printed.answers)
        and (confusion is None or {len(row) for row in confusion.counts} == {len(confusion.labels) + 1})
        and (confusion is None or len(confusion.counts) == len(confusion.labels))
    )
    if found.comparisons:
        complete = complete and len(found.verdict.split("\n")) == len(found.comparisons)
    if not (found.models and found.metrics and complete):
        raise InputError(f"{file} is not a complete evaluation", hint=_HOW_TO_WRITE)
    return found


def _ancestors(parent: str | None, ledger: Ledger) -> tuple[JobRef, ...]:
    found: list[JobRef] = []
    while parent is not None and len(found) < _MOST_ANCESTORS:
        found.append(JobRef.parse(parent))
        try:
            attempt = ledger.of_ref(found[-1])
        except LedgerError:
            break
        parent = attempt.plan.parent if attempt is not None else None
    return tuple(found)


def _version() -> str:
    try:
        return version("cloudtune")
    except PackageNotFoundError:
        return "unknown"
