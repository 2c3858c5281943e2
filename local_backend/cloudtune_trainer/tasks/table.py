"""The tasks by name. Which method trains which task: ``run_spec.TASKS``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cloudtune_trainer import run_spec
from cloudtune_trainer.generate import Model
from cloudtune_trainer.tasks.causal_lm import CausalLM
from cloudtune_trainer.tasks.distillation import Distillation
from cloudtune_trainer.tasks.embedding import Embedder, TextEmbedding
from cloudtune_trainer.tasks.image_classification import ImageClassification, ImageClassifier
from cloudtune_trainer.tasks.ppo import policy_task
from cloudtune_trainer.tasks.preference import Preferences
from cloudtune_trainer.tasks.question_answering import Answerer, QuestionAnswering
from cloudtune_trainer.tasks.reward import RewardModel, RewardModeling
from cloudtune_trainer.tasks.seq2seq import Seq2Seq, Seq2SeqGenerator
from cloudtune_trainer.tasks.sequence_classification import Classifier, SequenceClassification
from cloudtune_trainer.tasks.speech_recognition import SpeechRecognition, Transcriber
from cloudtune_trainer.tasks.token_classification import Tagger, TokenClassification
from cloudtune_trainer.tasks.unpaired_preference import UnpairedPreferences
from cloudtune_trainer.tuned import read_tuned_or_plain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cloudtune_trainer.run_spec import RunSpec
    from cloudtune_trainer.tasks.predictor import Predictor
    from cloudtune_trainer.tasks.task import Task


class TaskEntry(NamedTuple):
    """The classes for training a task, and for inference."""

    train: Callable[[RunSpec], Task]
    predictor: type[Model | Predictor]


TASKS: dict[str, TaskEntry] = {
    "causal_lm": TaskEntry(CausalLM, Model),
    "preference": TaskEntry(Preferences, Model),
    "distillation": TaskEntry(Distillation, Model),
    "policy_optimization": TaskEntry(policy_task, Model),
    "unpaired_preference": TaskEntry(UnpairedPreferences, Model),
    "reward_model": TaskEntry(RewardModeling, RewardModel),
    "sequence_classification": TaskEntry(SequenceClassification, Classifier),
    "seq2seq": TaskEntry(Seq2Seq, Seq2SeqGenerator),
    "text_embedding": TaskEntry(TextEmbedding, Embedder),
    "question_answering": TaskEntry(QuestionAnswering, Answerer),
    "token_classification": TaskEntry(TokenClassification, Tagger),
    "speech_recognition": TaskEntry(SpeechRecognition, Transcriber),
    "image_classification": TaskEntry(ImageClassification, ImageClassifier),
}


def task_for(spec: RunSpec) -> Task:
    """The task of the spec's method."""
    return TASKS[run_spec.TASKS[spec.method]].train(spec)


def open_model(folder: Path, *, base: bool = False, trust_remote_code: bool = False) -> Model | Predictor:
    """Load the model of the folder that training wrote, or its base model, for inference.

    A folder in the transformers layout that training did not write has a model that generates text.
    """
    task = run_spec.TASKS.get(read_tuned_or_plain(folder)["method"], "causal_lm")
    return TASKS[task].predictor.open(folder, base=base, trust_remote_code=trust_remote_code)
