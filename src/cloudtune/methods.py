"""The table of training methods. Everything else that depends on a method's name derives from it.

A back end keeps only the vendor's own words for a method (its name in a request, its file format).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

MethodName = Literal[
    "sft", "cpt", "dpo", "ipo", "orpo", "simpo", "kto", "reward", "rft", "grpo", "rloo", "ppo", "distill",
    "classification", "token_classification", "question_answering", "seq2seq", "embedding", "image_classification",
    "speech_recognition",
]  # fmt: skip
TaskName = Literal[
    "causal_lm", "preference", "unpaired_preference", "reward_model", "reinforcement", "policy_optimization",
    "distillation", "sequence_classification", "token_classification", "question_answering", "seq2seq",
    "text_embedding", "image_classification", "speech_recognition",
]  # fmt: skip

LabelProblem = Literal["single_label", "multi_label", "regression"]
"""What the label of a text is: one class, a list of classes, or a number."""


EmbeddingLoss = Literal["multiple_negatives_ranking", "triplet", "cosent", "cosine_similarity"]
"""The losses of text embedding. The first two take rows of the kind ``contrastive``, the others ``similarity``."""
Pooling = Literal["mean", "cls", "last"]
"""Which of a text's token vectors become its embedding: their mean, the first, or the last."""


class TrainingMethod(NamedTuple):
    """What a method learns, and from what."""

    task: TaskName
    kinds: tuple[str, ...]
    """Kinds of records that it takes, the usual one first."""
    pairs: bool = False
    """Each row holds a chosen and a rejected answer."""
    reward: bool = False
    """A grader scores answers during training."""
    teacher: bool = False
    """A larger model answers the rows that have no answer."""
    reference: bool = False
    """It compares the trained model with the base model."""
    beta: bool = False
    """``method.beta`` applies to it."""
    labels: bool = False
    """Each row has one label, or one for each token."""
    every_token: bool = False
    """It learns every token of a row, so that a conversation may end with any turn."""
    media: Literal["image", "audio"] | None = None
    """What the files are that its rows name."""
    predict_input: str | None = None
    """What ``cloudtune predict`` takes after the job's reference, if the model does not continue a prompt."""


METHODS: dict[str, TrainingMethod] = {
    "sft": TrainingMethod("causal_lm", ("chat", "text")),
    "cpt": TrainingMethod("causal_lm", ("text", "chat"), every_token=True),
    "dpo": TrainingMethod("preference", ("preference",), pairs=True, reference=True, beta=True),
    "ipo": TrainingMethod("preference", ("preference",), pairs=True, reference=True, beta=True),
    "orpo": TrainingMethod("preference", ("preference",), pairs=True, beta=True),
    "simpo": TrainingMethod("preference", ("preference",), pairs=True, beta=True),
    "kto": TrainingMethod("unpaired_preference", ("rated",), reference=True, beta=True),
    "reward": TrainingMethod("reward_model", ("preference",), pairs=True, predict_input="--file ROWS.jsonl"),
    "rft": TrainingMethod("reinforcement", ("item",), reward=True),
    "grpo": TrainingMethod("policy_optimization", ("item",), reward=True, reference=True, beta=True),
    "rloo": TrainingMethod("policy_optimization", ("item",), reward=True, reference=True, beta=True),
    "ppo": TrainingMethod("policy_optimization", ("item",), reward=True, reference=True, beta=True),
    "distill": TrainingMethod("distillation", ("chat", "item"), teacher=True),
    "classification": TrainingMethod("sequence_classification", ("text_label",), labels=True, predict_input="'a text'"),
    "token_classification": TrainingMethod("token_classification", ("tags",), labels=True, predict_input="'a text'"),
    "question_answering": TrainingMethod(
        "question_answering", ("question",), predict_input="--question 'a question' 'a context'"
    ),
    "seq2seq": TrainingMethod("seq2seq", ("pair", "chat"), predict_input="'a text'"),
    "embedding": TrainingMethod("text_embedding", ("contrastive", "similarity"), predict_input="'a text'"),
    "image_classification": TrainingMethod(
        "image_classification", ("image_label",), labels=True, media="image", predict_input="IMAGE.png"
    ),
    "speech_recognition": TrainingMethod(
        "speech_recognition", ("speech",), media="audio", predict_input="RECORDING.wav"
    ),
}
CLASSIFYING: tuple[TaskName, ...] = ("sequence_classification", "image_classification")
"""Tasks that learn labels of rows."""
DEFAULT_METHOD: MethodName = "sft"
TRAINER_TASKS: tuple[TaskName, ...] = (
    "causal_lm", "preference", "unpaired_preference", "reward_model", "policy_optimization", "distillation",
    "sequence_classification", "token_classification", "question_answering", "seq2seq", "text_embedding",
    "image_classification", "speech_recognition",
)  # fmt: skip
"""Tasks of cloudtune's own trainer, which runs on several back ends."""


def method_for(kind: str) -> str:
    """The usual method for records of that kind: the first one in the table that takes them."""
    return next((name for name, method in METHODS.items() if kind in method.kinds), DEFAULT_METHOD)


def only_items(name: str | None) -> bool:
    """Whether the method takes nothing but tasks for a grader."""
    method = METHODS.get(name or DEFAULT_METHOD)
    return method is not None and method.kinds == ("item",)


def methods_of(*tasks: TaskName) -> tuple[str, ...]:
    """The methods that train these tasks."""
    return tuple(name for name, method in METHODS.items() if method.task in tasks)
