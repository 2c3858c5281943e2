"""A plan: everything that a submission will do, as JSON without secrets.

`PlanRequest` is all that a back end's ``plan`` may look at; `Plan` is what it returns. Core counts rows, bytes and
tokens in one pass over the data and hands the counts over (`SplitInfo`), so no plan reads a row.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from cloudtune.cost import CostEstimate, Measured
from cloudtune.errors import Problem
from cloudtune.state import JobRef, Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune.spec import JobSpec  # noqa: TC004 - a PlanRequest is never decoded, and spec loads pydantic

PLAN_VERSION = 1


class RowLimit(Value, frozen=True, kw_only=True):
    """The maximum length of a row, and the tokenizer that measures it."""

    tokens: int
    tokenizer: str
    """A folder with the model's tokenizer.json and chat template."""
    cut: bool = False
    """If true, longer rows are truncated, with a warning in the plan. Otherwise they are rejected."""


class Resolved(Value, frozen=True, kw_only=True):
    """Facts looked up before planning, as plain JSON without secrets."""

    scope: str
    """Account, region, project or folder of the job: part of its `JobRef`."""
    facts: dict[str, Any] = {}
    identity: dict[str, Any] = {}
    """Facts that are part of the job's identity, e.g. the fingerprint of a model folder."""
    row_limit: RowLimit | None = None
    """Set if the model's tokenizer is available: the plan then reports rows over the limit, with their lines."""
    at: datetime | None = None


class TokenCount(Value, frozen=True, kw_only=True):
    """How many tokens the rows of a split have, each row once."""

    least: int
    most: int
    counted_by: str = ""
    """The tokenizer that counted them. Empty if ``least`` and ``most`` are bounds."""


class SplitInfo(Value, frozen=True, kw_only=True):
    """Statistics of one split."""

    rows: int
    bytes: int
    """Size of the canonical records in UTF-8."""
    sha256: str
    """Hash of the canonical records in order. It does not depend on the file format."""
    kind: str
    """The canonical kind of the records: chat or text."""
    longest_chars: int = 0
    tokens: TokenCount | None = None
    """None if they cannot be bounded, as those of images."""


class DataReport(Value, frozen=True, kw_only=True):
    """Statistics of the data, for planning."""

    splits: dict[str, SplitInfo]
    """``train`` and, if requested, ``validation`` and ``test``."""
    fingerprint: str
    """Hash over all splits."""
    problems: tuple[Problem, ...] = ()
    """Warnings. Errors are raised as DataError before a report exists."""


class PlanRequest(Value, frozen=True, kw_only=True):
    """The complete input of ``plan``."""

    spec: JobSpec
    data: DataReport
    resolved: Resolved
    key: str
    """Hash of (spec, data, back end, scope), the job's identity."""
    attempt: int
    token: str
    """Hash of (key, attempt), 32 hex digits. Names and idempotency tokens are derived from it."""
    parent: JobRef | None = None
    """The job whose newest valid checkpoint this one starts from."""
    measured: Measured | None = None
    """The speed of earlier jobs with the same settings, if there are any. Only estimates use it."""
    run_seconds: float | None = None
    """The run time in seconds at which the job's cost reaches its limit: it must have stopped by then."""

    @property
    def slug(self) -> str:
        """A readable, unique name of this attempt: letters, digits and hyphens, at most 51 characters."""
        return f"{self.spec.name}-{self.token[:10]}"


class Step(Value, frozen=True, kw_only=True):
    """One step, with the exact request that it sends.

    A value in ``request`` can refer to an earlier step's output: ``{"$step": "upload_train", "output": "file_id"}``.
    Core replaces it before it runs the step.
    """

    id: str
    kind: Literal["encode", "upload", "call", "await"]
    """``encode`` belongs to core: it writes a split in a format and outputs path, sha256, bytes and rows."""
    title: str
    request: dict[str, Any] = {}
    once: Literal["pure", "atomic", "reconciled"] = "pure"
    """How it happens only once: no effect to repeat; the vendor enforces a token or name; core checks first."""
    token: str = ""
    settle_s: float = 0.0
    """After a request without a response: seconds until absence is reliable (request timeout plus the vendor's lag)."""
    limit_s: float | None = None
    """For ``await``: give up after this many seconds."""
    makes_job: bool = False
    """True only for the plan's last step: its outputs include ``ref``, the new job's reference as a string."""


class Setting(Value, frozen=True, kw_only=True):
    """One effective setting, and its source."""

    field: str
    value: Any
    source: str
    """``spec``, ``override``, ``default of <back end>``, ``derived: ...``."""


class Dropped(Value, frozen=True, kw_only=True):
    """A field that the back end does not support and ``unsupported: drop`` removed."""

    field: str
    value: Any
    reason: str


class PlannedEvaluation(Value, frozen=True, kw_only=True):
    """What the spec's ``evaluation`` asks after the job has succeeded."""

    rows: int
    metrics: tuple[str, ...]
    models: tuple[str, ...]
    """Those that are asked."""
    answers: int
    """At most this many: equal prompts are asked once, and stored answers not again."""
    max_tokens: int
    """Limit of each answer."""
    guard_rows: int = 0
    judge: str = ""
    """The model that judges the answers."""
    judge_questions: int = 0
    """What it is asked at most: stored answers not again."""
    max_cost_usd: float | None = None
    """Nothing is asked if the answers may cost more."""


class Plan(Value, frozen=True, kw_only=True):
    """Everything that a submission will do, as JSON without secrets."""

    schema_version: int = PLAN_VERSION
    purpose: Literal["job", "deploy", "remove"] = "job"  # the latter two have no step that creates a job
    name: str
    backend: str
    scope: str
    key: str
    attempt: int
    token: str
    spec: dict[str, Any]
    """The spec without dropped fields."""
    steps: tuple[Step, ...]
    data: DataReport
    resolved: Resolved
    settings: tuple[Setting, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    warnings: tuple[Problem, ...] = ()
    cost: CostEstimate | None = None
    parent: str | None = None
    """Reference of the job that this one starts from."""
    evaluation: PlannedEvaluation | None = None


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
    """Return a reference to an output of an earlier step, which `filled` replaces."""
    return {"$step": step, "output": output}


def stale_steps(recorded: Plan, plan: Plan) -> set[str]:
    """Return the ids of recorded steps whose outcome is not valid for another plan of the same attempt.

    A step is stale if the other plan has no equal step, or if it uses the output of a stale step.
    """
    wanted = {step.id: msgspec.json.encode(step, order="deterministic") for step in plan.steps}
    stale: set[str] = set()
    for step in recorded.steps:
        text = msgspec.json.encode(step, order="deterministic")
        if text != wanted.get(step.id) or any(f'"$step":"{other}"'.encode() in text for other in stale):
            stale.add(step.id)
    return stale


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """Convert the plan to plain JSON types."""
    return msgspec.to_builtins(plan, enc_hook=_encode)  # type: ignore[no-any-return]


def plan_from_json(document: Any) -> Plan:
    """Convert the result of ``plan_to_json`` back to a plan."""
    return msgspec.convert(document, Plan)


# msgspec resolves a struct's types when it is first decoded, which is not thread-safe (msgspec 0.22 crashes).
# Imports run in one thread, so resolve them here.
msgspec.json.Decoder(Plan)


def _encode(value: Any) -> Any:
    raise TypeError(f"a plan cannot contain {type(value).__name__}")
