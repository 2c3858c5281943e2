"""What is known before any model is asked: the rows, their task, the metrics, and how many answers there will be."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cloudtune.data.records import Labelled
from cloudtune.errors import CloudtuneError, InputError, PolicyRefused, Problem
from cloudtune.evaluation.choosing import check_files, chosen_metrics
from cloudtune.evaluation.function_trust import are_functions_trusted
from cloudtune.evaluation.judge import read_judge
from cloudtune.evaluation.metrics import MOST_LABELS, labels_of, task_of
from cloudtune.evaluation.models import Address, predicts, trained_with
from cloudtune.evaluation.result import EvaluateOptions, JudgeOptions
from cloudtune.evaluation.rows import group_names, read_rows
from cloudtune.evaluation.statistics import Groups
from cloudtune.install_command import install_command
from cloudtune.optional import GenerateOptions
from cloudtune.plan import PlannedEvaluation
from cloudtune.prompts import ToolPrompt
from cloudtune.trust import is_function

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloudtune.evaluation.metrics import Metric, Task
    from cloudtune.evaluation.rows import TestRow
    from cloudtune.job import Job
    from cloudtune.ledger.ledger import Ledger
    from cloudtune.spec import Data, JobSpec, Source

_MAX_TOKENS = (16, 1024)


class Requested(NamedTuple):
    """The evaluation that a spec asks for."""

    data: Source | Data
    against: tuple[str, ...]
    guard: Source | None
    options: EvaluateOptions


def requested(spec: JobSpec) -> Requested | None:
    """The evaluation that the spec asks for, if it does."""
    asked = spec.evaluation
    if asked is None:
        return None
    options = EvaluateOptions(
        metrics=asked.metrics, baselines=asked.baselines, few_shot=asked.few_shot, max_rows=asked.max_rows,
        max_tokens=asked.max_tokens, group=asked.group, seed=asked.seed,
        max_cost_usd=asked.max_cost_usd,
        judge=None if asked.judge is None else JudgeOptions(**asked.judge.model_dump()),
    )  # fmt: skip
    return Requested(asked.data or spec.data, asked.against, asked.guard, options)


def evaluation_in_spec(
    ledger: Ledger, model: Job | Address, spec: JobSpec | None, trust_reward: bool
) -> tuple[Requested, bool]:
    """The evaluation that a spec asks for, and whether its functions can run.

    Without a spec, it is that of the model's job: the submission has confirmed its functions. Raises InputError if the
    spec has no evaluation.
    """
    if spec is None and not isinstance(model, Address) and (made := ledger.of_ref(model.ref)) is not None:
        spec = trained_with(made)
        trust_reward = trust_reward or are_functions_trusted(made.plan.spec)
    asked = None if spec is None else requested(spec)
    if asked is None:
        raise InputError("no rows are given, and the spec of the model has no evaluation",
                         hint="name the file with the held-out rows")  # fmt: skip
    return asked, trust_reward


class Prepared(NamedTuple):
    """Rows with what follows from them."""

    kind: str
    rows: Sequence[TestRow]
    expected: Sequence[str]
    task: Task
    labels: int
    metrics: Sequence[Metric]
    groups: Groups
    options: GenerateOptions

    @property
    def generates(self) -> bool:
        """Whether models write answers: texts without a prompt only get a probability."""
        return self.task != "passages"

    @property
    def scores(self) -> bool:
        """Whether models give the probability of the expected texts."""
        return any(metric.of_likelihoods for metric in self.metrics)


def prepare(
    data: Source | Data, options: EvaluateOptions, spec: JobSpec | None, *, load: bool = True, trusted: bool = False
) -> Prepared:
    """Read the rows, and choose and check the metrics. Asks no model.

    Args:
        data: The rows, or the data of a spec.
        options: What to measure.
        spec: The job's spec, if it is known.
        load: Import the functions that are metrics, and read the schemas.
        trusted: Importing functions is allowed.

    Raises:
        PolicyRefused: A metric is a function, and that is not allowed.
        DataError: Rows that cannot be evaluated, all of them.
        InputError: A metric that does not fit, or a package that is missing.
    """
    functions = [name for name in options.metrics if is_function(name)]
    if functions and load and not trusted:
        raise PolicyRefused(
            f"nothing was asked: the metric {', '.join(functions)} runs a Python function with your permissions",
            hint="if you trust it, pass --trust-reward, or trust_reward=True in Python",
        )
    need_numpy()
    kind, rows = read_rows(data, options.max_rows, options.seed)
    expected = [row.expected for row in rows]
    tools = any(isinstance(row.prompt, ToolPrompt) for row in rows)
    if options.few_shot and (tools or kind == "text"):
        what = "rows with tools" if tools else "texts"
        raise InputError(f"{what} cannot have examples in the prompt", hint="leave out the examples")
    task = task_of(kind, expected, regression=is_regression(spec, rows), tools=tools)
    labels = len(labels_of(expected)) if task == "labels" else 0
    default = ("wer", "cer") if kind == "speech" else ("accuracy",) if labels > MOST_LABELS else ()
    metrics = chosen_metrics(options.metrics or default, task, load=load)
    for metric in metrics if load else ():
        if not (metric.of_scores or metric.of_likelihoods):
            metric.rows(expected[:1], expected[:1])  # reports a missing package or a failing function
    groups = Groups(group_names(rows, options.group))
    return Prepared(kind, rows, expected, task, labels, metrics, groups, _limit(options, expected))


def guard_options(options: EvaluateOptions) -> EvaluateOptions:
    """The options for guard rows, whose task can be another one: their metrics follow from the rows."""
    return EvaluateOptions(baselines=options.baselines, max_rows=options.max_rows, max_tokens=options.max_tokens,
                           seed=options.seed, parallel=options.parallel)  # fmt: skip


def need_numpy() -> None:
    """Raise InputError if numpy is missing."""
    try:
        import numpy as np  # noqa: F401
    except ImportError as error:
        raise InputError("an evaluation requires numpy", hint=f"run: {install_command('evaluate')}") from error


def _limit(options: EvaluateOptions, expected: Sequence[str]) -> GenerateOptions:
    low, high = _MAX_TOKENS
    usual = min(max(low, max(map(len, expected)) // 2), high)
    return GenerateOptions(max_tokens=usual if options.max_tokens is None else options.max_tokens)


def is_regression(spec: JobSpec | None, rows: Sequence[TestRow]) -> bool:
    """Whether the labels are numbers: the job learns a regression, or some label has a fraction."""
    if spec is not None and spec.method.label_problem == "regression":
        return True
    return any(isinstance(row.record, Labelled) and isinstance(row.record.label, float) for row in rows)


def planned(spec: JobSpec, open_model: Callable[[str], object]) -> PlannedEvaluation | None:
    """The size of the evaluation that a spec asks for. Reads its rows, and raises as `prepare`.

    ``open_model`` raises a CloudtuneError for a model that cannot be found. Such models are an InputError too.
    """
    asked = requested(spec)
    if asked is None:
        return None
    _check_models(asked, open_model)
    check_files(asked.options.metrics)
    judge = None if asked.options.judge is None else read_judge(asked.options.judge)
    test = prepare(asked.data, asked.options, spec, load=False)
    options = asked.options
    models = [
        *_tuned_and_base(test, options),
        *([f"base model, {options.few_shot} examples"] if options.few_shot and _asks_base(test) else []),
        *asked.against,
    ]
    guard = None if asked.guard is None else prepare(asked.guard, guard_options(options), spec, load=False)
    answers = _prompts(test) * len(models)
    if guard is not None:
        answers += _prompts(guard) * len(_tuned_and_base(guard, options))
    return PlannedEvaluation(
        rows=len(test.rows), metrics=tuple(one.name for one in test.metrics), models=tuple(models),
        guard_rows=0 if guard is None else len(guard.rows),
        answers=answers, max_tokens=test.options.max_tokens,
        judge="" if options.judge is None else options.judge.model,
        judge_questions=0 if judge is None else judge.questions_about(len(test.rows), len(models)),
        max_cost_usd=options.max_cost_usd,
    )  # fmt: skip


def _check_models(asked: Requested, open_model: Callable[[str], object]) -> None:
    named = [(f"evaluation.against[{number}]", model) for number, model in enumerate(asked.against)]
    if asked.options.judge is not None:
        named.append(("evaluation.judge.model", asked.options.judge.model))
    problems: list[Problem] = []
    for field, model in named:
        try:
            open_model(model)
        except CloudtuneError as error:
            problems.append(Problem(code="model", field=field, message=error.message, fix=error.hint))
    if problems:
        raise InputError(problems)


def _asks_base(test: Prepared) -> bool:
    """Whether a base model can answer: it is not trained to predict."""
    return not predicts([test.rows[0].prompt])


def _tuned_and_base(test: Prepared, options: EvaluateOptions) -> list[str]:
    return ["tuned model", *(["base model"] if options.baselines and _asks_base(test) else [])]


def _prompts(test: Prepared) -> int:
    """The number of questions: each different prompt is asked once, and each text for its probability."""
    return len({row.prompt_text for row in test.rows}) * (test.generates + test.scores)
