"""Evaluates models on held-out rows: asks them and their baselines, and compares the answers."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from cloudtune.data.records import Text, compact
from cloudtune.errors import CloudtuneError, InputError, InvalidRequest, LedgerError, UnsupportedError
from cloudtune.evaluation import compare
from cloudtune.evaluation.answers import Answers
from cloudtune.evaluation.compare import Answered, Comparison
from cloudtune.evaluation.contamination import Overlap, overlap
from cloudtune.evaluation.costs import actual, check, estimate, price_of
from cloudtune.evaluation.judge import Judge, judged_models, read_judge
from cloudtune.evaluation.metrics import MOST_LABELS, confusion, tags_of
from cloudtune.evaluation.models import Address, EvaluatedModel, model_at, model_of_job, predicts, trained_with
from cloudtune.evaluation.prepared import guard_options, prepare
from cloudtune.evaluation.result import EvaluateOptions, Evaluation, Usage, save
from cloudtune.evaluation.rows import examples_of, expected_answers, with_examples
from cloudtune.evaluation.runs import Asking, ModelRun
from cloudtune.ledger.evaluations import answers_file, forget_if_deleted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cloudtune.backend import Backend
    from cloudtune.clock import Clock
    from cloudtune.cost import AnswerPrice
    from cloudtune.evaluation.costs import EvaluationCost, Questions
    from cloudtune.evaluation.metrics import Metric
    from cloudtune.evaluation.prepared import Prepared
    from cloudtune.evaluation.result import JudgeOptions
    from cloudtune.evaluation.rows import TestRow
    from cloudtune.job import Job
    from cloudtune.ledger.ledger import Ledger
    from cloudtune.optional import Input, Prompt
    from cloudtune.spec import Data, JobSpec, Source
    from cloudtune.state import Generation

    Progress = Callable[[str, int, int], None]
    """Called with a model's name, the number of rows that it has answered, and the number of all rows."""

Named = TypeVar("Named", Answered, ModelRun)
FEWEST_GROUPS = 20
"""Intervals from fewer groups are too narrow."""


class Evaluator:
    """Asks models for answers, with the store of a ledger."""

    def __init__(
        self, ledger: Ledger, clock: Clock, backend_of: Callable[[str], Backend], *, progress: Progress | None = None,
        on_cost: Callable[[EvaluationCost], None] | None = None, trust_remote_code: bool = False,
        trust_reward: bool = False,
    ) -> None:  # fmt: skip
        self._ledger, self._clock, self._backend_of = ledger, clock, backend_of
        self._answers = Answers(answers_file(ledger), clock)
        self._progress, self._on_cost = progress or (lambda name, done, count: None), on_cost or (lambda cost: None)
        self._trust, self.trust_reward = trust_remote_code, trust_reward

    def evaluate(
        self, subject: Job | Address, against: Sequence[Job | Address], data: Source | Data, options: EvaluateOptions,
        *, guard: Source | None = None, judge: Job | Address | None = None, from_spec: bool = False, store: bool = True,
    ) -> Evaluation:  # fmt: skip
        """Evaluate a model against its baselines and other models. See `Client.evaluate`.

        ``judge`` is the model of ``options.judge``. ``from_spec``: the spec of the job asks for this evaluation.
        """
        if twice := [_address(one) for one, count in Counter([subject, *against]).items() if count > 1]:
            raise InputError(f"named twice: {', '.join(twice)}", hint="name different models")
        jobs = [one.ref for one in (subject, *against, judge) if one is not None and not isinstance(one, Address)]
        with forget_if_deleted(self._ledger, jobs):
            found = self._evaluate(subject, against, data, options, guard, judge)
            found = msgspec.structs.replace(found, from_spec=from_spec)
            if store and not isinstance(subject, Address):
                save(self._ledger, subject.ref, found)
        return found

    def _evaluate(
        self, subject: Job | Address, against: Sequence[Job | Address], data: Source | Data, options: EvaluateOptions,
        guard: Source | None, judge: Job | Address | None,
    ) -> Evaluation:  # fmt: skip
        spec = None if isinstance(subject, Address) else self._spec_of(subject)
        test = prepare(data, options, spec, trusted=self.trust_reward)
        of_guard = guard_options(options)
        general = None if guard is None else prepare(guard, of_guard, None)
        model = self._opened(subject, test, *([] if general is None else [general]))
        others = [self._opened(one, test) for one in against]
        parts = [_Part(test, self._asking(test, options), self._runs(test, model, others, options))]
        if general is not None:
            parts.append(_Part(general, self._asking(general, options), self._runs(general, model, [], of_guard)))
        asked = [part.asking.questions(run) for part in parts for run in part.runs]
        referee = None
        if judge is not None and options.judge is not None:
            referee, questions = self._judge(self._opened(judge), options.judge, options.parallel, parts[0])
            asked.append(questions)
        self._check_cost(asked, options)
        found = self._evaluated(parts[0], model, others, options, referee)
        forgot = None if general is None else self._evaluated(parts[1], model, [], of_guard)
        return msgspec.structs.replace(found, guard=forgot)

    def answered(
        self, jobs: Mapping[str, Sequence[Job]], test: Prepared, options: EvaluateOptions
    ) -> dict[str, list[Answered]]:
        """The answers of the models of jobs to the rows. Raises what `evaluate` raises."""
        asking, prompts = self._asking(test, options), [row.prompt for row in test.rows]
        models = {name: [self._opened(job, test) for job in some] for name, some in jobs.items()}
        runs = {name: [ModelRun(model.name, "other", model, prompts) for model in some]
                for name, some in models.items()}  # fmt: skip
        self._check_cost([asking.questions(run) for some in runs.values() for run in some], options)
        return {name: [asking.ask(run) for run in some] for name, some in runs.items()}

    def _check_cost(self, asked: Sequence[Questions], options: EvaluateOptions) -> None:
        cost = estimate(asked)
        self._on_cost(cost)
        check(cost, options.max_cost_usd)

    def _judge(self, model: EvaluatedModel, asked: JudgeOptions, parallel: int, part: _Part) -> tuple[Judge, Questions]:
        """The judge, and what it is asked about the stored answers and those that are not known yet."""
        test, plan = part.test, read_judge(asked)
        if not test.generates:
            raise InputError("the rows are texts without a prompt, so there are no answers to judge")
        if not (judged := judged_models(part.runs, plan)):
            hint = "give a rubric, or another model to compare with"
            raise InputError("without a rubric, the judge compares two models, and there is one", hint=hint)
        judge = Judge(
            model, plan, self._answers, self._clock, parallel,
            lambda done, count: self._progress("judge", done, count), judged=[run.model.address for run in part.runs],
        )  # fmt: skip
        if model.identity in {run.identity for run in part.runs}:
            part.asking.notes.append("the judge also judges its own answers, and models can prefer their own")
        known = [[part.asking.stored(run) for run in some] for some in judged]
        return judge, judge.questions(test.rows, known, test.options.max_tokens)

    def _asking(self, test: Prepared, options: EvaluateOptions) -> Asking:
        return Asking(self._answers, test, options.parallel, self._progress)

    def _spec_of(self, job: Job) -> JobSpec | None:
        with suppress(LedgerError):
            return trained_with(self._ledger.of_ref(job.ref))
        return None

    def _opened(self, subject: Job | Address, *tests: Prepared) -> EvaluatedModel:
        """The model, if it can answer the rows; without any, if it can answer texts."""
        prompts = [row.prompt for test in tests for row in test.rows] or [""]
        if isinstance(subject, Address):
            found = model_at(subject.text, subject.backend, self._clock, trust_remote_code=self._trust)
        else:
            found = model_of_job(subject, self._backend_of(subject.ref.backend), self._ledger,
                                 predicts=predicts(prompts), trust_remote_code=self._trust)  # fmt: skip
        found.check(prompts, scores=any(test.scores for test in tests))
        return found

    def _evaluated(
        self, part: _Part, model: EvaluatedModel, others: Sequence[EvaluatedModel], options: EvaluateOptions,
        referee: Judge | None = None,
    ) -> Evaluation:  # fmt: skip
        test, asking = part.test, part.asking
        training = model.spec.data if model.spec is not None else None
        tuned = asking.ask(part.runs[0])
        if without := [one.name for one in test.metrics if tuned.rows(one, test.expected) is None]:
            raise InputError(f"{', '.join(without)} requires the probability of each label, which {model.name} does "
                             "not give", hint="use another metric")  # fmt: skip
        answered = _distinct([tuned, *_baselines(part, training, options),
                              *(asking.ask(run) for run in part.runs if run.role == "other")])  # fmt: skip
        notes = asking.notes
        if test.labels > MOST_LABELS:
            notes.insert(0, f"{test.labels:,} labels are many: there is no confusion matrix, and accuracy is the "
                         "default metric")  # fmt: skip
        if test.groups.count < FEWEST_GROUPS:
            subject = "1 independent row is" if test.groups.count == 1 else f"{test.groups.count} independent rows are"
            notes.append(f"{subject} few: take the intervals as rough")
        usage = _usage(answered, part.runs)
        judged = None
        if referee is not None:
            with_model = [one for one in answered if one.generations]
            if some := judged_models(with_model, referee.plan):
                judged = referee.judge(test.rows, some, test.groups.of_row.tolist())
                if (used := _tokens(referee.generations, price_of(referee.model, base=False))) is not None:
                    usage["judge"] = used
            else:
                notes.append("the judge compares nothing: there is no other model")
            if referee.plan.rubric is None and len(with_model) > 2:
                notes.append(f"the judge only compares {some[0][0].name} with {some[0][1].name}")
        measured = compare.Measured(test.metrics, answered, test.expected, test.groups, options.seed)
        comparisons = measured.comparisons()
        return Evaluation(
            ref=model.address,
            data=tuple(dict.fromkeys(row.file for row in test.rows)),
            against=tuple(one.address for one in others), made_at=self._clock.now(), options=options,
            rows=len(test.rows), groups=test.groups.count, kind=test.kind, task=test.task,
            metrics=tuple(one.name for one in test.metrics), models=measured.scores(), comparisons=comparisons,
            verdict=_verdict(test.metrics[0], comparisons, len(test.rows)), overlap=overlap_of(test.rows, training),
            notes=tuple(notes),
            confusion=_confusion(tuned, test.expected) if 0 < test.labels <= MOST_LABELS else None,
            answers=_by_row(test, answered), usage=usage, judged=judged,
        )  # fmt: skip

    def _runs(
        self, test: Prepared, model: EvaluatedModel, others: Sequence[EvaluatedModel], options: EvaluateOptions
    ) -> list[ModelRun]:
        """Each model that is asked, the evaluated one first."""
        prompts = [row.prompt for row in test.rows]
        found = [ModelRun(model.name, "tuned", model, prompts)]
        if options.baselines and model.has_base:
            found.append(ModelRun("base model", "base", model, prompts, base=True))
        if options.few_shot:
            training = model.spec.data if model.spec is not None else None
            examples = _examples(training, options, test.rows)
            shown = [with_examples(prompt, examples) for prompt in prompts]
            found.append(ModelRun(f"base model, {len(examples)} examples", "few_shot", model, shown, base=True))
        return _distinct([*found, *(ModelRun(one.name, "other", one, prompts) for one in others)])


class _Part(NamedTuple):
    """Rows with the models that are asked about them."""

    test: Prepared
    asking: Asking
    runs: list[ModelRun]


def _baselines(part: _Part, training: Data | None, options: EvaluateOptions) -> list[Answered]:
    """The base model, and the baselines without a model."""
    found: list[Answered] = []
    test = part.test
    for run in part.runs:
        if run.base:
            try:
                found.append(part.asking.ask(run))
            except (InvalidRequest, UnsupportedError) as error:
                part.asking.notes.append(f"{run.name}: not compared, because {error.message}")
    if options.baselines and test.task == "labels":
        label = _most_frequent(training, test.rows, lambda expected: [expected.strip()])
        found.append(Answered(f"always {label!r}", "majority", [label] * len(test.rows)))
    if options.baselines and test.kind == "tags":
        tag = _most_frequent(training, test.rows, tags_of)
        always = [compact([tag] * len(tags_of(one))) for one in test.expected]
        found.append(Answered(f"always {tag!r}", "majority", always))
    if options.baselines and test.kind == "pair":
        found.append(Answered("copy of the source", "copy", [row.prompt_text for row in test.rows]))
    return found


def _address(model: Job | Address) -> str:
    return str(model if isinstance(model, Address) else model.ref)


def _distinct(models: Sequence[Named]) -> list[Named]:
    """The models with a number after names that occur twice."""
    found: dict[str, Named] = {}
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


def overlap_of(rows: Sequence[TestRow], training: Data | None) -> Overlap:
    """Test rows that are also training rows, or why that is not known."""
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


def _usage(models: Sequence[Answered], runs: Sequence[ModelRun]) -> dict[str, Usage]:
    prices = {run.name: price_of(run.model, base=run.base) for run in runs}
    found = {one.name: _tokens(one.generations, prices.get(one.name)) for one in models}
    return {name: usage for name, usage in found.items() if usage is not None}


def _tokens(answers: Sequence[Generation], price: AnswerPrice | None) -> Usage | None:
    """The tokens and their cost. None if no answer has them; the cost is unknown if some answers do not."""
    counted = [(one.prompt_tokens, one.completion_tokens) for one in answers
               if one.prompt_tokens is not None and one.completion_tokens is not None]  # fmt: skip
    if not counted:
        return None
    prompt, completion = (sum(one) for one in zip(*counted, strict=True))
    usd = actual(price, prompt, completion) if len(counted) == len(answers) else None
    return Usage(prompt_tokens=prompt, completion_tokens=completion, usd=usd)


def _by_row(test: Prepared, models: Sequence[Answered]) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "file": row.file,
            "line": row.line,
            "group": group,
            "prompt": "" if isinstance(row.record, Text) else row.prompt_text,
            "expected": row.expected,
            "answers": {one.name: one.answers[number] for one in models},
            "tokens": {
                one.name: [answer.prompt_tokens, answer.completion_tokens]
                for one in models
                for answer in one.generations[number : number + 1]
                if answer.prompt_tokens is not None and answer.completion_tokens is not None
            },
        }
        for number, (row, group) in enumerate(zip(test.rows, test.groups.of_row.tolist(), strict=True))
    )
