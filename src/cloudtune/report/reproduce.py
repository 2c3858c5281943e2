"""How to run a reported job again: its spec as a file, and the commands."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from cloudtune.document.document import as_yaml
from cloudtune.redaction.masking import masked

if TYPE_CHECKING:
    from cloudtune.evaluation.result import Evaluation
    from cloudtune.plan import Plan
    from cloudtune.report.document import Report


def spec_text(plan: Plan) -> str:
    """The spec of the plan as YAML, without fields that have no value."""
    return as_yaml(_without_empty(masked("", plan.spec)))


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: kept for name, item in value.items() if (kept := _without_empty(item)) not in (None, {}, [])}
    if isinstance(value, list | tuple):
        return [_without_empty(item) for item in value]
    return value


def commands(report: Report, *, only_evaluate: bool = False) -> str:
    """The commands that train, evaluate and report."""
    ref = shlex.quote(str(report.ref))
    found, plan = report.evaluation, report.plan
    options = " --data test.jsonl"
    if plan is not None and plan.spec.get("evaluation") and (found is None or found.from_spec):
        options = ""
    elif found is not None:
        options = "".join(f" {name} {shlex.quote(str(value))}" for name, value in _options(found) if value)
        options += "" if found.options.baselines else " --no-baselines"
    lines = [f"cloudtune evaluate {ref}{options}", f"cloudtune report {ref}"]
    if not only_evaluate:
        resume = " --resume" if plan is not None and plan.parent else ""
        lines.insert(0, f"cloudtune run job.yaml --backend {shlex.quote(report.ref.backend)}{resume} --yes")
        lines.insert(0, f"pip install cloudtune=={report.cloudtune_version}")
    return "\n".join(lines)


def _options(found: Evaluation) -> list[tuple[str, object]]:
    """The options of ``cloudtune evaluate`` that make the evaluation."""
    given = found.options
    judge = given.judge
    return [
        *(("--data", file) for file in found.data or ("test.jsonl",)), *(("--metric", name) for name in given.metrics),
        *(("--against", model) for model in found.against),
        ("--guard", found.guard.data[0] if found.guard is not None and found.guard.data else None),
        ("--few-shot", given.few_shot), ("--max-rows", given.max_rows), ("--max-tokens", given.max_tokens),
        *((("--judge", judge.model), ("--rubric", judge.rubric), ("--human-labels", judge.human_labels))
          if judge is not None else ()),
        ("--group", given.group), ("--seed", given.seed),
    ]  # fmt: skip
