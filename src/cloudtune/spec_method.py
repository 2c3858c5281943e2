"""The method of a `JobSpec`: what to learn from the rows, and for policy optimization the reward."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cloudtune.methods import CLASSIFYING, DEFAULT_METHOD, METHODS, EmbeddingLoss, LabelProblem, MethodName, Pooling
from cloudtune.spec_types import Fraction, NaturalFloat, Part, PositiveFloat, PositiveInt, Seconds, short


class Reward(Part):
    """What scores the completions that the model samples. ``reward: FILE.py:name`` is short for ``function``."""

    function: Annotated[str, Field(pattern=r"^.+:[A-Za-z_]\w*$", examples=["rewards.py:score"])] | None = None
    """A Python function: ``FILE.py:name``, relative to the spec file's folder, or ``module:name``."""
    url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")] | None = None
    """An HTTP endpoint that gets prompts and completions, and returns rewards."""
    model: Annotated[str, Field(min_length=1)] | None = None
    """The folder of a trained reward model."""
    timeout: Seconds | None = None
    """Maximum time of one call, e.g. ``5m``."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if [self.function, self.url, self.model].count(None) != 2:
            raise ValueError("set exactly one of function, url and model")
        return self


class Method(Part):
    """Training method. ``method: sft`` is short for ``method: {name: sft}``."""

    name: MethodName = DEFAULT_METHOD
    loss_on: Literal["assistant", "last_assistant", "all"] | None = None
    """Tokens that contribute to the loss: all assistant turns, the last one, or every token of the record."""
    beta: NaturalFloat | None = None
    """Strength of the penalty for deviating from the reference model. Policy optimization takes 0: no penalty."""
    reward: Annotated[Reward | None, short("function", Reward | str)] = None
    """What scores the completions that the model samples, for policy optimization."""
    num_generations: PositiveInt | None = None
    """Completions of each prompt, for policy optimization."""
    temperature: PositiveFloat | None = None
    """Sampling temperature of completions; for distillation, of the distributions that are compared; for embedding,
    what divides cosines in the losses ``multiple_negatives_ranking`` and ``cosent``."""
    max_new_tokens: PositiveInt | None = None
    """Maximum tokens of a completion."""
    problem: LabelProblem | None = None
    """What the label of a text is, for ``classification``: one class (default), a list of classes, or a number."""
    class_weights: Literal["balanced"] | dict[str, PositiveFloat] | None = None
    """Factors of the losses of the rows of a class, for a single label; 1 for a class that is not named. ``balanced``:
    all classes have the same sum."""
    label_smoothing: Fraction | None = None
    """The share of the target probability that is divided among all classes, tags or tokens. For ``classification``
    with a single label, ``token_classification``, ``sft``, ``cpt`` and ``seq2seq``."""
    loss: EmbeddingLoss | None = None
    """The loss of ``embedding``. Default: the first one for the kind of the rows."""
    pooling: Pooling | None = None
    """Which token vectors become a text's embedding. Default: what the model was trained with, if it says so."""
    margin: PositiveFloat | None = None
    """For the loss ``triplet``: by how much the cosine of the positive must exceed that of the negative."""

    @property
    def label_problem(self) -> LabelProblem | None:
        """The problem of the method that learns labels of rows; None for other methods."""
        return (self.problem or "single_label") if METHODS[self.name].task in CLASSIFYING else None

    @model_validator(mode="after")
    def _beta_of_pairs(self) -> Self:
        if self.beta == 0 and not METHODS[self.name].reward:
            raise ValueError(f"beta must be greater than 0 for {self.name}")
        return self
