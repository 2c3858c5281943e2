"""Evaluates the models of jobs on held-out rows: asks them and their baselines, and compares the answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cloudtune.data.records import Labelled, compact
from cloudtune.errors import CloudtuneError, InputError, InvalidRequest, LedgerError, UnsupportedError
from cloudtune.evaluation import compare
from cloudtune.evaluation.answers import Answers
from cloudtune.evaluation.compare import Answered, Comparison, ModelScores
from cloudtune.evaluation.metrics import MOST_LABELS, Task, chosen_metrics, confusion, labels_of, tags_of, task_of
from cloudtune.evaluation.rows import (
    Overlap,
    examples_of,
    expected_answers,
    group_names,
    overlap,
    read_rows,
    with_examples,
)
from cloudtune.evaluation.statistics import Groups
from cloudtune.ledger.rows import spec_of
from cloudtune.optional import GenerateOptions
from cloudtune.state import Generation, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cloudtune.clock import Clock
    from cloudtune.evaluation.metrics import Metric
    from cloudtune.evaluation.rows import TestRow
    from cloudtune.job import Job
    from cloudtune.ledger.ledger import Ledger
    from cloudtune.ledger.rows import Attempt
    from cloudtune.optional import Input, Prompt
    from cloudtune.spec import Data, JobSpec, Source

    Progress = Callable[[str, int, int], None]
    """Called with a model's name, the number of rows that it has answered, and the number of all rows."""

FEWEST_GROUPS = 20
"""Intervals from fewer groups are too narrow."""
_MAX_TOKENS = (16, 1024)


class EvaluateOptions(Value, frozen=True, kw_only=True):
    """What to ask and to compare."""

    metrics: tuple[str, ...] = ()
    """Names of metrics, the deciding one first. Default: those of the rows' task."""
    baselines: bool = True
    """Compare with the base model, and with the most frequent label or a copy of the source."""
    few_shot: int = 0
    """Also compare with the base model after this many training rows as examples."""
    max_tokens: int | None = None
    """Limit of each answer. Default: half the characters of the longest expected answer, from 16 to 1,024."""
    group: str | None = None
    """The field of the test rows that names their source: rows with one source are resampled together.

    Default: the prompt."""
    seed: int = 0
    """Of resampling, and of the choice of examples."""


class Evaluation(Value, frozen=True, kw_only=True):
    """Models compared on held-out rows."""

    rows: int
    groups: int
    """Groups of rows that are resampled together."""
    kind: str
    task: Task
    metrics: tuple[str, ...]
    """The verdict is about the first one."""
    models: tuple[ModelScores, ...]
    """The evaluated model first."""
    comparisons: tuple[Comparison, ...]
    verdict: str
    """The comparisons in words, one per line."""
    overlap: Overlap
    """Test rows that are also training rows."""
    notes: tuple[str, ...] = ()
    """What limits the result: cut answers, few groups, baselines that do not apply."""
    confusion: dict[str, Any] | None = None
    """For labels: ``labels``, and ``counts`` of the evaluated model's answers by expected label, other answers last."""
    answers: tuple[dict[str, Any], ...] = ()
    """Each row: ``file``, ``line``, ``prompt``, ``expected``, and ``answers`` by model."""


class ModelRun(NamedTuple):
    """One model with its prompts."""

    name: str
    role: compare.Role
    job: Job
    prompts: Sequence[Prompt | Input]
    base: bool = False

    @property
    def predicts(self) -> bool:
        """Whether the prompts are rows for `Job.predict`."""
        return isinstance(self.prompts[0], Mapping)


class Evaluator:
    """Asks models for answers, with the store of a ledger."""

    def __init__(self, ledger: Ledger, clock: Clock, progress: Progress, *, trust_remote_code: bool = False) -> None:
        self._ledger = ledger
        self._answers = Answers(ledger.folder / "answers" / "answers.db", clock)
        self._progress = progress
        self._trust = trust_remote_code

    def evaluate(self, job: Job, against: Sequence[Job], source: Source, options: EvaluateOptions) -> Evaluation:
        """Evaluate the job's model against its baselines and other jobs. See `Client.evaluate`."""
        need_numpy()
        kind, rows = read_rows(source)
        expected = [row.expected for row in rows]
        attempt = self._attempt(job)
        spec = spec_of(attempt.plan) if attempt is not None else None
        task = task_of(kind, expected, regression=_is_regression(spec, rows))
        notes: list[str] = []
        labels = len(labels_of(expected)) if task == "labels" else 0
        if labels > MOST_LABELS:
            notes.append(
                f"{labels:,} labels are many: there is no confusion matrix, and accuracy is the default metric"
            )
        default = ("accuracy",) if labels > MOST_LABELS else ()
        metrics = chosen_metrics(options.metrics or default, task)
        for metric in metrics:
            metric.rows(expected[:1], expected[:1])  # a missing package is reported before any model is asked
        groups = Groups(group_names(rows, options.group))
        training = spec.data if spec is not None else None
        for one in (job, *against):
            one._check_can_answer(predicts=isinstance(rows[0].prompt, Mapping))
        generate_options = _limit(options, expected)
        prompts = [row.prompt for row in rows]
        model = self._ask(ModelRun(_name(job, attempt), "tuned", job, prompts), generate_options, notes)
        others = [*self._baselines(job, rows, kind, task, training, options, generate_options, notes),
                  *(self._ask(ModelRun(_name(one, self._attempt(one)), "other", one, prompts), generate_options, notes)
                    for one in against)]  # fmt: skip
        models = _distinct([model, *others])
        if groups.count < FEWEST_GROUPS:
            subject = "1 independent row is" if groups.count == 1 else f"{groups.count} independent rows are"
            notes.append(f"{subject} few: take the intervals as rough")
        measured = compare.Measured(metrics, models, expected, groups, options.seed)
        comparisons = measured.comparisons()
        return Evaluation(
            rows=len(rows), groups=groups.count, kind=kind, task=task, metrics=tuple(one.name for one in metrics),
            models=measured.scores(), comparisons=comparisons, verdict=_verdict(metrics[0], comparisons, len(rows)),
            overlap=_overlap(rows, training), notes=tuple(notes),
            confusion=_confusion(model, expected) if 0 < labels <= MOST_LABELS else None,
            answers=_by_row(rows, models),
        )  # fmt: skip

    def _baselines(
        self, job: Job, rows: Sequence[TestRow], kind: str, task: str, training: Data | None,
        options: EvaluateOptions, generate_options: GenerateOptions, notes: list[str],
    ) -> list[Answered]:  # fmt: skip
        found: list[Answered] = []
        runs: list[ModelRun] = []
        if options.baselines:
            runs.append(ModelRun("base model", "base", job, [row.prompt for row in rows], base=True))
        if options.few_shot:
            examples = _examples(training, options, rows)
            prompts = [with_examples(row.prompt, examples) for row in rows]
            runs.append(ModelRun(f"base model, {len(examples)} examples", "few_shot", job, prompts, base=True))
        for one in runs:
            try:
                found.append(self._ask(one, generate_options, notes))
            except (InvalidRequest, UnsupportedError) as error:
                notes.append(f"{one.name}: not compared, because {error.message}")
        if options.baselines and task == "labels":
            label = _most_frequent(training, rows, lambda expected: [expected.strip()])
            found.append(Answered(f"always {label!r}", "majority", [label] * len(rows)))
        if options.baselines and kind == "tags":
            tag = _most_frequent(training, rows, tags_of)
            found.append(Answered(f"always {tag!r}", "majority", [compact([tag] * len(tags_of(row.expected)))
                                                                  for row in rows]))  # fmt: skip
        if options.baselines and kind == "pair":
            found.append(Answered("copy of the source", "copy", [row.prompt_text for row in rows]))
        return found

    def _ask(self, run: ModelRun, options: GenerateOptions, notes: list[str]) -> Answered:
        options = msgspec.structs.replace(options, base=run.base)
        answers = self._answers.get_or_generate(
            self._identity(run), run.prompts, options,
            lambda prompts: self._answers_of(run, prompts, options),
            lambda done, count: self._progress(run.name, done, count),
        )  # fmt: skip
        if cut := sum(answer.finish_reason == "length" for answer in answers):
            subject = "1 answer was" if cut == 1 else f"{cut:,} answers were"
            notes.append(f"{run.name}: {subject} cut at {options.max_tokens} tokens")
        return Answered(run.name, run.role, [answer.text for answer in answers])

    def _answers_of(self, run: ModelRun, prompts: Sequence[Any], options: GenerateOptions) -> Iterator[Generation]:
        if not run.predicts:
            return run.job.generate(prompts, options, trust_remote_code=self._trust)
        if run.base:
            raise UnsupportedError("it is not trained to predict this")
        return (
            Generation(text=compact([tag.tag for tag in one.tags]) if one.tags is not None else one.text)
            for one in run.job.predict(prompts, trust_remote_code=self._trust)
        )

    def _identity(self, run: ModelRun) -> str:
        """What answers are stored under. Jobs with the same method and base model share the base model's answers."""
        ref = run.job.ref
        attempt = self._attempt(run.job)
        if run.base and attempt is not None and "model" in attempt.plan.resolved.identity:
            method = spec_of(attempt.plan).method.name
            return f"base {ref.backend} {ref.scope} {method} {attempt.model} {attempt.plan.resolved.identity['model']}"
        return f"{'base of' if run.base else 'job'} {ref} {run.job.snapshot().finished_at}"

    def _attempt(self, job: Job) -> Attempt | None:
        try:
            return self._ledger.of_ref(job.ref)
        except LedgerError:
            return None


def need_numpy() -> None:
    """Raise InputError if numpy is not installed."""
    try:
        import numpy as np  # noqa: F401
    except ImportError as error:
        raise InputError("an evaluation requires numpy", hint='run: pip install "cloudtune[evaluate]"') from error


def _limit(options: EvaluateOptions, expected: Sequence[str]) -> GenerateOptions:
    low, high = _MAX_TOKENS
    usual = min(max(low, max(map(len, expected)) // 2), high)
    return GenerateOptions(max_tokens=usual if options.max_tokens is None else options.max_tokens)


def _name(job: Job, attempt: Attempt | None) -> str:
    return attempt.name if attempt is not None and attempt.name else job.ref.id


def _distinct(models: Sequence[Answered]) -> list[Answered]:
    """The models with a number after names that occur twice."""
    found: dict[str, Answered] = {}
    for model in models:
        name, number = model.name, 1
        while name in found:
            number += 1
            name = f"{model.name} ({number})"
        found[name] = model._replace(name=name)
    return list(found.values())


def _is_regression(spec: JobSpec | None, rows: Sequence[TestRow]) -> bool:
    """Whether the labels are numbers: the job learns a regression, or some label has a fraction."""
    if spec is not None and spec.method.label_problem == "regression":
        return True
    return any(isinstance(row.record, Labelled) and isinstance(row.record.label, float) for row in rows)


def _examples(
    training: Data | None, options: EvaluateOptions, rows: Sequence[TestRow]
) -> list[tuple[Prompt | Input, str]]:
    if training is None:
        raise InputError("the job was not submitted with this ledger, so its training rows are unknown",
                         hint="leave out the examples, or use the ledger of the job")  # fmt: skip
    return examples_of(training, options.few_shot, options.seed, rows)


def _most_frequent(training: Data | None, rows: Sequence[TestRow], values_of: Callable[[str], Iterable[str]]) -> str:
    """The label or tag of the test rows that is most frequent in training, or in the test if training has none of them.

    ``values_of`` returns the labels or tags of an expected answer.
    """
    tested = Counter(value for row in rows for value in values_of(row.expected))
    known: Counter[str] = Counter()
    if training is not None:
        with suppress(CloudtuneError):
            known.update(
                value for answer in expected_answers(training) for value in values_of(answer) if value in tested
            )
    return (known or tested).most_common(1)[0][0]


def _overlap(rows: Sequence[TestRow], training: Data | None) -> Overlap:
    if training is None:
        return Overlap(checked=False, reason="the job was not submitted with this ledger")
    try:
        return overlap(rows, training)
    except CloudtuneError as error:
        return Overlap(checked=False, reason=error.message)


def _confusion(model: Answered, expected: Sequence[str]) -> dict[str, Any]:
    labels, counts = confusion(model.answers, expected)
    return {"labels": labels, "counts": counts}


def _verdict(metric: Metric, comparisons: Sequence[Comparison], rows: int) -> str:
    if not comparisons:
        return "Nothing to compare with."
    return "\n".join(compare.sentence(metric, one, rows) for one in comparisons)


def _by_row(rows: Sequence[TestRow], models: Sequence[Answered]) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "file": row.file,
            "line": row.line,
            "prompt": row.prompt_text,
            "expected": row.expected,
            "answers": {one.name: one.answers[number] for one in models},
        }
        for number, row in enumerate(rows)
    )
