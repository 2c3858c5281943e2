"""A plan: everything that a submit would do, written down before it does any of it. JSON, and no secret in it.

`PlanRequest` is all that a back end's ``plan`` may look at; `Plan` is what it returns. Core counts the data once and
hands the counts over (`SplitInfo`), so no plan reads a row.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from cloudtune.errors import Problem
from cloudtune.state import JobRef, Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune.spec import JobSpec  # noqa: TC004 - a PlanRequest is never decoded, and spec loads pydantic

PLAN_VERSION = 1


class RowLimit(Value, frozen=True, kw_only=True):
    """How long a row may be, and what counts it."""

    tokens: int
    tokenizer: str
    """A folder that holds the model's tokenizer.json (and its chat template)."""
    cut: bool = False
    """Longer rows are cut there, and the plan warns of them; otherwise they are refused."""


class Resolved(Value, frozen=True, kw_only=True):
    """What had to be looked up in the world before planning; never secrets. Plain JSON."""

    scope: str
    """Account, region, project or folder that the job will live in: part of its `JobRef`."""
    facts: dict[str, Any] = {}
    identity: dict[str, Any] = {}
    """Facts that make it another job when they change, e.g. the fingerprint of a model in a folder."""
    row_limit: RowLimit | None = None
    """Where the model's own tokenizer can be had: rows over the limit are found by plan, with their lines."""
    at: datetime | None = None


class SplitInfo(Value, frozen=True, kw_only=True):
    """One side of the data, counted once."""

    rows: int
    bytes: int
    """Of the canonical records, in UTF-8."""
    sha256: str
    """Of the canonical records in order: the same rows give the same hash, whatever file format held them."""
    kind: str
    """chat or text: the canonical kind of the records."""
    longest_chars: int = 0


class DataReport(Value, frozen=True, kw_only=True):
    """What planning learnt of the data."""

    splits: dict[str, SplitInfo]
    """``train`` and, where asked for, ``validation`` and ``test``."""
    fingerprint: str
    """Hash over all splits."""
    problems: tuple[Problem, ...] = ()
    """Warnings; errors are raised as DataError before a report exists."""


class PlanRequest(Value, frozen=True, kw_only=True):
    """All that ``plan`` may look at."""

    spec: JobSpec
    data: DataReport
    resolved: Resolved
    key: str
    """Hash of (spec, data, back end, scope): the job's identity."""
    attempt: int
    token: str
    """Hash of (key, attempt), 32 hex digits: what names and idempotency tokens are derived from."""
    parent: JobRef | None = None
    """The ended job whose newest good checkpoint this one starts from."""

    @property
    def slug(self) -> str:
        """A readable name of this very attempt, unique through the token: letters, digits and hyphens, at most 51."""
        return f"{self.spec.name}-{self.token[:10]}"


class Step(Value, frozen=True, kw_only=True):
    """One act, with the exact request that it will send.

    A value in ``request`` may refer to an earlier step's output: ``{"$step": "upload_train", "output": "file_id"}``.
    Core fills it in before it runs the step.
    """

    id: str
    kind: Literal["encode", "upload", "call", "await"]
    """``encode`` is core's own: it writes a split in a format and outputs path, sha256, bytes and rows."""
    title: str
    request: dict[str, Any] = {}
    once: Literal["pure", "atomic", "reconciled"] = "pure"
    """How it happens only once: nothing to repeat; the vendor enforces a token or name; we find before we send."""
    token: str = ""
    settle_s: float = 0.0
    """After a send without an answer: how long absence is not believed (request timeout plus the vendor's list lag)."""
    limit_s: float | None = None
    """For ``await``: give up after this many seconds."""
    makes_job: bool = False
    """Its outputs hold ``ref``, the new job's reference as a string. The plan's last step, and no other, does."""


class Setting(Value, frozen=True, kw_only=True):
    """One value that will be in force, and who chose it."""

    field: str
    value: Any
    source: str
    """``spec``, ``override``, ``default of <back end>``, ``derived: ...``."""


class Dropped(Value, frozen=True, kw_only=True):
    """A field that the back end cannot apply and that ``unsupported: drop`` left out."""

    field: str
    value: Any
    reason: str


class CostEstimate(Value, frozen=True, kw_only=True):
    """What the job is expected to cost, and how old the prices are."""

    usd: float | None
    """The expected sum; None where only bounds, or the price of an hour, are known."""
    basis: str
    prices_as_of: str | None = None
    at_least_usd: float | None = None
    at_most_usd: float | None = None


class Plan(Value, frozen=True, kw_only=True):
    """Everything that submit would do, before it does any of it. JSON, and no secret in it."""

    schema_version: int = PLAN_VERSION
    purpose: Literal["job", "deploy", "remove"] = "job"  # the latter two have no step that makes a job
    name: str
    backend: str
    scope: str
    key: str
    attempt: int
    token: str
    spec: dict[str, Any]
    """The spec as it will be carried out, after drops."""
    steps: tuple[Step, ...]
    data: DataReport
    resolved: Resolved
    settings: tuple[Setting, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    warnings: tuple[Problem, ...] = ()
    cost: CostEstimate | None = None
    parent: str | None = None
    """Reference of the ended job that this one starts from."""


def filled(request: Any, outputs: Mapping[str, Mapping[str, Any]]) -> Any:
    """Replace every output reference in a request. Raises KeyError if a step has no outputs yet."""
    if isinstance(request, dict):
        if "$step" in request:
            return outputs[request["$step"]][request["output"]]
        return {key: filled(value, outputs) for key, value in request.items()}
    if isinstance(request, list | tuple):
        return [filled(value, outputs) for value in request]
    return request


def output_ref(step: str, output: str) -> dict[str, str]:
    """A reference to an output of an earlier step, which `filled` replaces."""
    return {"$step": step, "output": output}


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain JSON types."""
    return msgspec.to_builtins(plan, enc_hook=_encode)  # type: ignore[no-any-return]


def plan_from_json(document: Any) -> Plan:
    """Read what ``plan_to_json`` wrote."""
    return msgspec.convert(document, Plan)


# msgspec works out a struct's types when it is first decoded, which two threads must not do at once (seen: a crash with
# msgspec 0.22). An import is made by one thread.
msgspec.json.Decoder(Plan)


def _encode(value: Any) -> Any:
    raise TypeError(f"a plan cannot contain {type(value).__name__}")
