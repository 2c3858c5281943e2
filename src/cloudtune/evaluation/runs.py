"""One model with its prompts: what is asked, and the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cloudtune.data.records import compact
from cloudtune.errors import UnsupportedError
from cloudtune.evaluation.compare import Answered
from cloudtune.evaluation.costs import Questions
from cloudtune.evaluation.likelihoods import as_answer, passages
from cloudtune.evaluation.models import predicts
from cloudtune.evaluation.rows import text_of
from cloudtune.optional import GenerateOptions
from cloudtune.prompts import ToolPrompt
from cloudtune.state import Generation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cloudtune.evaluation.answers import Answers
    from cloudtune.evaluation.asking import Ask, Question
    from cloudtune.evaluation.compare import Role
    from cloudtune.evaluation.models import EvaluatedModel
    from cloudtune.evaluation.prepared import Prepared
    from cloudtune.optional import Input, Prompt

    Progress = Callable[[str, int, int], None]
    """Called with a model's name, the number of rows that it has answered, and the number of all rows."""


class ModelRun(NamedTuple):
    """One model with its prompts."""

    name: str
    role: Role
    model: EvaluatedModel
    prompts: Sequence[Prompt | Input]
    base: bool = False

    @property
    def identity(self) -> str:
        """What its answers are stored under."""
        return self.model.base_identity if self.base else self.model.identity


class Asking:
    """Asks models about the same rows, and collects notes."""

    def __init__(self, answers: Answers, test: Prepared, parallel: int, progress: Progress) -> None:
        self.notes: list[str] = []
        self._answers, self._test, self._parallel, self._progress = answers, test, parallel, progress

    def questions(self, run: ModelRun) -> Questions:
        """What is not stored, to estimate its cost."""
        missing = {
            text_of(prompt): (prompt, row.expected)
            for prompt, row, known in zip(run.prompts, self._test.rows, self.stored(run), strict=True) if known is None
        }  # fmt: skip
        return Questions(
            run.name, run.model, run.base, len(missing), sum(_size(prompt) for prompt, _ in missing.values()),
            sum(_size(expected) for _, expected in missing.values()), self._test.options.max_tokens,
        )  # fmt: skip

    def stored(self, run: ModelRun) -> list[Generation | None]:
        """The stored answers to the rows. None for a row without one."""
        return self._answers.stored(run.identity, run.prompts, self._options(run))

    def _options(self, run: ModelRun) -> GenerateOptions:
        return msgspec.structs.replace(self._test.options, base=run.base)

    def ask(self, run: ModelRun) -> Answered:
        """The model's answers. Raises what its back end raises."""
        options = self._options(run)
        likelihoods: Sequence[Generation] = ()
        if self._test.scores:
            texts = passages(run.prompts, self._test.expected, alone=not self._test.generates)
            likelihoods = self._stored(run, texts, GenerateOptions(base=run.base),
                                       lambda some: map(as_answer, run.model.score(some, base=run.base)))  # fmt: skip
        if not self._test.generates:
            return Answered(run.name, run.role, [one.text for one in likelihoods], likelihoods, likelihoods)
        answers = self._stored(run, run.prompts, options, lambda prompts: _answers_of(run, prompts, options))
        if cut := sum(answer.finish_reason == "length" for answer in answers):
            subject = "1 answer was" if cut == 1 else f"{cut:,} answers were"
            self.notes.append(f"{run.name}: {subject} cut at {options.max_tokens} tokens")
        return Answered(run.name, run.role, [answer.text for answer in answers], answers, likelihoods)

    def _stored(
        self, run: ModelRun, prompts: Sequence[Question], options: GenerateOptions, ask: Ask
    ) -> list[Generation]:
        return self._answers.get_or_generate(
            run.identity, prompts, options, ask,
            lambda done, count: self._progress(run.name, done, count),
            asked_for=run.model.address,
            parallel=self._parallel if run.model.backend.capabilities.remote else None,
        )  # fmt: skip


def _size(prompt: Prompt | Input) -> int:
    """The bytes of what is sent. The definitions of tools are sent with each prompt."""
    if isinstance(prompt, ToolPrompt):
        return len(compact(msgspec.to_builtins(prompt)).encode(errors="replace"))
    return len(text_of(prompt).encode(errors="replace"))


def _answers_of(run: ModelRun, prompts: Sequence[Any], options: GenerateOptions) -> Iterator[Generation]:
    if not predicts(run.prompts):
        return run.model.generate(prompts, options)
    if run.base:
        raise UnsupportedError("it is not trained to predict this")
    return (
        Generation(text=compact([tag.tag for tag in one.tags]) if one.tags is not None else one.text, scores=one.scores)
        for one in run.model.predict(prompts)
    )
