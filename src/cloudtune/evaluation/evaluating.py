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
from cloudtune.evaluation.metrics import Task, chosen_metrics, confusion, task_of
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
    from collections.abc import Callable, Iterator, Sequence

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
    """Each row: ``line``, ``expected``, and ``answers`` by model."""


class Asked(NamedTuple):
    """A model to ask."""

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
        _need_numpy()
        kind, rows = read_rows(source)
        expected = [row.expected for row in rows]
        made = self._made(job)
        spec = spec_of(made.plan) if made is not None else None
        task = task_of(kind, expected, regression=_is_regression(spec, rows))
        metrics = chosen_metrics(options.metrics, task)
        for metric in metrics:
            metric.rows(expected[:1], expected[:1])  # a missing package is reported before any model is asked
        groups = Groups(group_names(rows, options.group))
        training = spec.data if spec is not None else None
        notes: list[str] = []
        for one in (job, *against):
            one._check_can_answer(predicts=isinstance(rows[0].prompt, Mapping))
        asking = _limit(options, expected)
        prompts = [row.prompt for row in rows]
        model = self._ask(Asked(_name(job, made), "tuned", job, prompts), asking, notes)
        others = [*self._baselines(job, rows, kind, task, training, options, asking, notes),
                  *(self._ask(Asked(_name(one, self._made(one)), "other", one, prompts), asking, notes)
                    for one in against)]  # fmt: skip
        models = _distinct([model, *others])
        if groups.count < FEWEST_GROUPS:
            notes.append(f"{groups.count} independent rows are few: take the intervals as rough")
        measured = compare.Measured(metrics, models, expected, groups, options.seed)
        comparisons = measured.comparisons()
        return Evaluation(
            rows=len(rows), groups=groups.count, kind=kind, task=task, metrics=tuple(one.name for one in metrics),
            models=measured.scores(), comparisons=comparisons, verdict=_verdict(metrics[0], comparisons, len(rows)),
            overlap=_overlap(rows, training), notes=tuple(notes),
            confusion=_confusion(model, expected) if task == "labels" else None,
            answers=_by_row(rows, models),
        )  # fmt: skip

    def _baselines(
        self, job: Job, rows: Sequence[TestRow], kind: str, task: str, training: Data | None,
        options: EvaluateOptions, asking: GenerateOptions, notes: list[str],
    ) -> list[Answered]:  # fmt: skip
        found: list[Answered] = []
        to_ask: list[Asked] = []
        if options.baselines:
            to_ask.append(Asked("base model", "base", job, [row.prompt for row in rows], base=True))
        if options.few_shot:
            examples = _examples(training, options, rows)
            prompts = [with_examples(row.prompt, examples) for row in rows]
            to_ask.append(Asked(f"base model, {len(examples)} examples", "few_shot", job, prompts, base=True))
        for one in to_ask:
            try:
                found.append(self._ask(one, asking, notes))
            except (InvalidRequest, UnsupportedError) as error:
                notes.append(f"{one.name}: not compared, because {error.message}")
        if options.baselines and task == "labels":
            label = _most_frequent(training, rows)
            found.append(Answered(f"always {label!r}", "majority", [label] * len(rows)))
        if options.baselines and kind == "tags":
            found.append(_most_frequent_tag(rows))
        if options.baselines and kind == "pair":
            found.append(Answered("copy of the source", "copy", [row.question for row in rows]))
        return found

    def _ask(self, asked: Asked, options: GenerateOptions, notes: list[str]) -> Answered:
        options = msgspec.structs.replace(options, base=asked.base)
        answers = self._answers.of(
            self._identity(asked), asked.prompts, options,
            lambda prompts: self._answers_of(asked, prompts, options),
            lambda done, count: self._progress(asked.name, done, count),
        )  # fmt: skip
        if cut := sum(answer.finish_reason == "length" for answer in answers):
            notes.append(f"{asked.name}: {cut:,} answers were cut at {options.max_tokens} tokens")
        return Answered(asked.name, asked.role, [answer.text for answer in answers])

    def _answers_of(self, asked: Asked, prompts: Sequence[Any], options: GenerateOptions) -> Iterator[Generation]:
        if not asked.predicts:
            return asked.job.generate(prompts, options, trust_remote_code=self._trust)
        if asked.base:
            raise UnsupportedError("it is not trained to predict this")
        return (
            Generation(text=compact([tag.tag for tag in one.tags]) if one.tags is not None else one.text)
            for one in asked.job.predict(prompts, trust_remote_code=self._trust)
        )

    def _identity(self, asked: Asked) -> str:
        """What answers are stored under. Jobs with the same method and base model share the base model's answers."""
        ref = asked.job.ref
        made = self._made(asked.job)
        if asked.base and made is not None and "model" in made.plan.resolved.identity:
            method = spec_of(made.plan).method.name
            return f"base {ref.backend} {ref.scope} {method} {made.model} {made.plan.resolved.identity['model']}"
        return f"{'base of' if asked.base else 'job'} {ref} {asked.job.snapshot().finished_at}"

    def _made(self, job: Job) -> Attempt | None:
        try:
            return self._ledger.of_ref(job.ref)
        except LedgerError:
            return None


def _need_numpy() -> None:
    try:
        import numpy as np  # noqa: F401
    except ImportError as error:
        raise InputError("an evaluation requires numpy", hint='run: pip install "cloudtune[evaluate]"') from error


def _limit(options: EvaluateOptions, expected: Sequence[str]) -> GenerateOptions:
    low, high = _MAX_TOKENS
    usual = min(max(low, max(map(len, expected)) // 2), high)
    return GenerateOptions(max_tokens=usual if options.max_tokens is None else options.max_tokens)


def _name(job: Job, made: Attempt | None) -> str:
    return made.name if made is not None and made.name else job.ref.id


def _distinct(models: Sequence[Answered]) -> list[Answered]:
    """The models with a number after names that occur twice."""
    seen: Counter[str] = Counter()
    found = []
    for model in models:
        seen[model.name] += 1
        name = model.name if seen[model.name] == 1 else f"{model.name} ({seen[model.name]})"
        found.append(model._replace(name=name))
    return found


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


def _most_frequent(training: Data | None, rows: Sequence[TestRow]) -> str:
    """The label of the test rows that is most frequent in training, or in the test if training has none of them."""
    tested = Counter(row.expected.strip() for row in rows)
    known: Counter[str] = Counter()
    if training is not None:
        with suppress(CloudtuneError):
            known.update(label for label in expected_answers(training) if label in tested)
    return (known or tested).most_common(1)[0][0]


def _most_frequent_tag(rows: Sequence[TestRow]) -> Answered:
    tags = [msgspec.json.decode(row.expected, type=list[str]) for row in rows]
    usual = Counter(tag for row in tags for tag in row).most_common(1)[0][0]
    return Answered(f"always {usual!r}", "majority", [compact([usual] * len(row)) for row in tags])


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
        {"line": row.line, "expected": row.expected, "answers": {one.name: one.answers[number] for one in models}}
        for number, row in enumerate(rows)
    )
