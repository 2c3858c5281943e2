"""Evaluates models on held-out rows: asks them and their baselines, and compares the answers."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cloudtune.data.records import compact
from cloudtune.errors import CloudtuneError, InputError, InvalidRequest, LedgerError, UnsupportedError
from cloudtune.evaluation import compare
from cloudtune.evaluation.answers import Answers
from cloudtune.evaluation.compare import Answered, Comparison
from cloudtune.evaluation.contamination import Overlap, overlap
from cloudtune.evaluation.metrics import MOST_LABELS, confusion, tags_of
from cloudtune.evaluation.models import Address, EvaluatedModel, model_at, model_of_job, predicts, trained_with
from cloudtune.evaluation.prepared import guard_options, prepare
from cloudtune.evaluation.result import EvaluateOptions, Evaluation, Usage
from cloudtune.evaluation.rows import examples_of, expected_answers, with_examples
from cloudtune.ledger.evaluations import answers_file
from cloudtune.state import Generation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cloudtune.backend import Backend
    from cloudtune.clock import Clock
    from cloudtune.evaluation.metrics import Metric
    from cloudtune.evaluation.prepared import Prepared
    from cloudtune.evaluation.rows import TestRow
    from cloudtune.job import Job
    from cloudtune.ledger.ledger import Ledger
    from cloudtune.optional import GenerateOptions, Input, Prompt
    from cloudtune.spec import Data, JobSpec, Source

    Progress = Callable[[str, int, int], None]
    """Called with a model's name, the number of rows that it has answered, and the number of all rows."""

FEWEST_GROUPS = 20
"""Intervals from fewer groups are too narrow."""


class ModelRun(NamedTuple):
    """One model with its prompts."""

    name: str
    role: compare.Role
    model: EvaluatedModel
    prompts: Sequence[Prompt | Input]
    base: bool = False


class Evaluator:
    """Asks models for answers, with the store of a ledger."""

    def __init__(
        self, ledger: Ledger, clock: Clock, backend_of: Callable[[str], Backend], progress: Progress, *,
        trust_remote_code: bool = False, trust_reward: bool = False,
    ) -> None:  # fmt: skip
        self._ledger, self._clock, self._backend_of = ledger, clock, backend_of
        self._answers = Answers(answers_file(ledger), clock)
        self._progress = progress
        self._trust, self._trust_reward = trust_remote_code, trust_reward

    def evaluate(
        self, subject: Job | Address, against: Sequence[Job | Address], data: Source | Data, options: EvaluateOptions,
        *, guard: Source | None = None,
    ) -> Evaluation:  # fmt: skip
        """Evaluate a model against its baselines and other models. See `Client.evaluate`."""
        spec = None if isinstance(subject, Address) else self._spec_of(subject)
        test = prepare(data, options, spec, trusted=self._trust_reward)
        general = None if guard is None else prepare(guard, guard_options(options), None)
        asked = predicts([test.rows[0].prompt])
        model = self._opened(subject, predicts=asked)
        others = [self._opened(one, predicts=asked) for one in against]
        found = self._evaluated(test, model, others, options)
        if general is None:
            return found
        forgot = self._evaluated(general, model, [], guard_options(options))
        return msgspec.structs.replace(found, guard=forgot)

    def _spec_of(self, job: Job) -> JobSpec | None:
        with suppress(LedgerError):
            return trained_with(self._ledger.of_ref(job.ref))
        return None

    def _opened(self, subject: Job | Address, *, predicts: bool) -> EvaluatedModel:
        if isinstance(subject, Address):
            found = model_at(subject.text, subject.backend, self._clock, trust_remote_code=self._trust)
            found.check(predicts=predicts)
            return found
        backend = self._backend_of(subject.ref.backend)
        return model_of_job(subject, backend, self._ledger, predicts=predicts, trust_remote_code=self._trust)

    def _evaluated(
        self, test: Prepared, model: EvaluatedModel, others: Sequence[EvaluatedModel], options: EvaluateOptions
    ) -> Evaluation:
        training = model.spec.data if model.spec is not None else None
        prompts = [row.prompt for row in test.rows]
        asking = _Asking(self._answers, test, options.parallel, self._progress)
        tuned = asking.ask(ModelRun(model.name, "tuned", model, prompts))
        if without := [one.name for one in test.metrics if tuned.rows(one, test.expected) is None]:
            raise InputError(f"{', '.join(without)} requires the probability of each label, which {model.name} does "
                             "not give", hint="use another metric")  # fmt: skip
        answered = _distinct([
            tuned, *self._baselines(model, test, training, options, asking),
            *(asking.ask(ModelRun(one.name, "other", one, prompts)) for one in others),
        ])  # fmt: skip
        notes = asking.notes
        if test.labels > MOST_LABELS:
            notes.insert(0, f"{test.labels:,} labels are many: there is no confusion matrix, and accuracy is the "
                         "default metric")  # fmt: skip
        if test.groups.count < FEWEST_GROUPS:
            subject = "1 independent row is" if test.groups.count == 1 else f"{test.groups.count} independent rows are"
            notes.append(f"{subject} few: take the intervals as rough")
        measured = compare.Measured(test.metrics, answered, test.expected, test.groups, options.seed)
        comparisons = measured.comparisons()
        return Evaluation(
            ref=model.address,
            data=tuple(dict.fromkeys(row.file for row in test.rows)),
            against=tuple(one.address for one in others), made_at=self._clock.now(), options=options,
            rows=len(test.rows), groups=test.groups.count, kind=test.kind, task=test.task,
            metrics=tuple(one.name for one in test.metrics), models=measured.scores(), comparisons=comparisons,
            verdict=_verdict(test.metrics[0], comparisons, len(test.rows)), overlap=_overlap(test.rows, training),
            notes=tuple(notes),
            confusion=_confusion(tuned, test.expected) if 0 < test.labels <= MOST_LABELS else None,
            answers=_by_row(test.rows, answered), usage=_usage(answered),
        )  # fmt: skip

    def _baselines(
        self, model: EvaluatedModel, test: Prepared, training: Data | None, options: EvaluateOptions, asking: _Asking
    ) -> list[Answered]:
        found: list[Answered] = []
        runs: list[ModelRun] = []
        if options.baselines and model.has_base:
            runs.append(ModelRun("base model", "base", model, [row.prompt for row in test.rows], base=True))
        if options.few_shot:
            examples = _examples(training, options, test.rows)
            prompts = [with_examples(row.prompt, examples) for row in test.rows]
            runs.append(ModelRun(f"base model, {len(examples)} examples", "few_shot", model, prompts, base=True))
        for one in runs:
            try:
                found.append(asking.ask(one))
            except (InvalidRequest, UnsupportedError) as error:
                asking.notes.append(f"{one.name}: not compared, because {error.message}")
        if options.baselines and test.task == "labels":
            label = _most_frequent(training, test.rows, lambda expected: [expected.strip()])
            found.append(Answered(f"always {label!r}", "majority", [label] * len(test.rows)))
        if options.baselines and test.kind == "tags":
            tag = _most_frequent(training, test.rows, tags_of)
            found.append(Answered(f"always {tag!r}", "majority", [compact([tag] * len(tags_of(one)))
                                                                  for one in test.expected]))  # fmt: skip
        if options.baselines and test.kind == "pair":
            found.append(Answered("copy of the source", "copy", [row.prompt_text for row in test.rows]))
        return found


class _Asking:
    """Asks models about the same rows, and collects notes."""

    def __init__(self, answers: Answers, test: Prepared, parallel: int, progress: Progress) -> None:
        self.notes: list[str] = []
        self._answers, self._test, self._parallel, self._progress = answers, test, parallel, progress

    def ask(self, run: ModelRun) -> Answered:
        """The model's answers. Raises what its back end raises."""
        options = msgspec.structs.replace(self._test.options, base=run.base)
        answers = self._answers.get_or_generate(
            run.model.base_identity if run.base else run.model.identity, run.prompts, options,
            lambda prompts: _answers_of(run, prompts, options),
            lambda done, count: self._progress(run.name, done, count),
            asked_for=run.model.address,
            parallel=self._parallel if run.model.backend.capabilities.remote else None,
        )  # fmt: skip
        if cut := sum(answer.finish_reason == "length" for answer in answers):
            subject = "1 answer was" if cut == 1 else f"{cut:,} answers were"
            self.notes.append(f"{run.name}: {subject} cut at {options.max_tokens} tokens")
        return Answered(run.name, run.role, [answer.text for answer in answers], answers)


def _answers_of(run: ModelRun, prompts: Sequence[Any], options: GenerateOptions) -> Iterator[Generation]:
    if not predicts(run.prompts):
        return run.model.generate(prompts, options)
    if run.base:
        raise UnsupportedError("it is not trained to predict this")
    return (
        Generation(text=compact([tag.tag for tag in one.tags]) if one.tags is not None else one.text)
        for one in run.model.predict(prompts)
    )


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


def _examples(
    training: Data | None, options: EvaluateOptions, rows: Sequence[TestRow]
) -> list[tuple[Prompt | Input, str]]:
    if training is None:
        raise InputError("this ledger does not have the job of the model, so its training rows are unknown",
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
        return Overlap(checked=False, reason="this ledger does not have the job of the model")
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


def _usage(models: Sequence[Answered]) -> dict[str, Usage]:
    return {
        one.name: Usage(
            prompt_tokens=sum(answer.prompt_tokens or 0 for answer in one.generations),
            completion_tokens=sum(answer.completion_tokens or 0 for answer in one.generations),
        )
        for one in models
        if any(answer.prompt_tokens is not None for answer in one.generations)
    }


def _by_row(rows: Sequence[TestRow], models: Sequence[Answered]) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "file": row.file,
            "line": row.line,
            "prompt": row.prompt_text,
            "expected": row.expected,
            "answers": {one.name: one.answers[number] for one in models},
            "tokens": {
                one.name: [answer.prompt_tokens, answer.completion_tokens]
                for one in models
                for answer in one.generations[number : number + 1]
                if answer.prompt_tokens is not None and answer.completion_tokens is not None
            },
        }
        for number, row in enumerate(rows)
    )
