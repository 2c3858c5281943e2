"""Inputs of predictions: all are checked before the first one is computed, and every kind of bad input is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import transformers

from cloudtune_trainer.generate import Model
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.tasks.embedding import Embedder
from cloudtune_trainer.tasks.question_answering import Answerer
from cloudtune_trainer.tasks.reward import RewardModel
from cloudtune_trainer.tasks.seq2seq import Seq2SeqGenerator
from cloudtune_trainer.tasks.sequence_classification import Classifier
from cloudtune_trainer.tasks.token_classification import Tagger

from .conftest import write_encoder

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtune_trainer.tasks.predictor import Predictor

USER, ANSWER = {"role": "user", "content": "one two"}, {"role": "assistant", "content": "uno"}
PARTS = {"role": "assistant", "content": [{"type": "text", "text": "uno"}]}


class Case(NamedTuple):
    kind: type[Predictor]
    auto: str
    good: Any
    bad: tuple[Any, ...]


CASES = {
    "classification": Case(
        Classifier, "AutoModelForSequenceClassification", "one",
        ("", 5, None, ["one"], [], {"text": 5}, {"label": "a"}, [USER, ANSWER], [PARTS], [{"content": "one"}]),
    ),
    "token_classification": Case(
        Tagger, "AutoModelForTokenClassification", "one two",
        (" ", 5, ["one"], {"tokens": []}, {"tokens": "one"}, {"tokens": ["one", 2]}, [PARTS]),
    ),
    "question_answering": Case(
        Answerer, "AutoModelForQuestionAnswering", {"question": "one?", "context": "one two"},
        ("one", 5, {"question": "one?"}, {"question": " ", "context": "one"},
         {"question": "one " * 40, "context": "a"}),
    ),
    "seq2seq": Case(
        Seq2SeqGenerator, "AutoModelForSeq2SeqLM", {"source": "one two"},
        ("", 5, ["one"], [], {"text": "one"}, [ANSWER], [PARTS], {"messages": "one"}, {"messages": [ANSWER]},
         {"messages": [{"role": "user", "content": ["one"]}]}, "one " * 300),
    ),
    "embedding": Case(
        Embedder, "AutoModel", "one",
        ("", 5, [], {"text": 5}, {"anchor": "a"}, {"sentence1": "a"}, {"sentence1": "a", "sentence2": ""},
         [USER, ANSWER], [PARTS]),
    ),
    "reward": Case(
        RewardModel, "AutoModelForSequenceClassification", {"messages": [USER, ANSWER]},
        ("one", 5, [USER, ANSWER], {"messages": [USER]}, {"messages": "one"}, {"messages": ["one"]},
         {"messages": [USER, PARTS]}, {"messages": [USER], "completion": ["one"]}),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def predictors(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Models with random weights."""
    folders = {kind: write_encoder(tmp_path_factory.mktemp(kind), tiny_model, kind) for kind in ("bert", "bart")}
    found = {}
    for method, case in CASES.items():
        folder = folders["bart" if method == "seq2seq" else "bert"]
        network = getattr(transformers, case.auto).from_pretrained(folder)
        tuned = {"labels": ["a", "b"], "max_length": 64, "method": method}
        found[method] = case.kind(network, transformers.AutoTokenizer.from_pretrained(folder), tuned)
    found["embedding"].pooling = "mean"
    return found


@pytest.mark.parametrize(("method", "bad"), [(method, bad) for method, case in CASES.items() for bad in case.bad])
def test_a_bad_input_is_named_before_any_prediction(predictors: dict[str, Any], method: str, bad: Any) -> None:
    found = predictors[method].predict([CASES[method].good, bad], batch_size=1)
    with pytest.raises(TrainingProblem, match=r"^input 2: ") as refused:
        next(found)
    assert refused.value.code == "bad_data"


@pytest.mark.parametrize(("method", "rows"), [
    ("classification", '"text"'), ("token_classification", '"tokens" or "text"'),
    ("seq2seq", '"source" or "messages"'), ("embedding", '"text" or with "sentence1" and "sentence2"'),
])  # fmt: skip
def test_the_error_of_a_row_names_what_the_model_takes(predictors: dict[str, Any], method: str, rows: str) -> None:
    with pytest.raises(TrainingProblem) as refused:
        predictors[method].read_all([{"anchor": "a", "positive": "b"}])
    takes = f"input 1: it takes a text, a row with {rows}, or a conversation with one turn"
    assert refused.value.message == f"{takes}, not a row with 'anchor', 'positive'"


def test_a_good_input_is_predicted(predictors: dict[str, Any]) -> None:
    for method, case in CASES.items():
        assert len(list(predictors[method].predict([case.good] * 2))) == 2
    writer, one = predictors["seq2seq"], {"messages": [USER]}
    rows = [one, {"messages": [USER, ANSWER]}, [USER, ANSWER], (USER,), "one two", {"source": "one two"}]
    assert len(set(map(tuple, writer.read_all(rows)))) == 1
    answers = list(predictors["classification"].generate(["one", [USER]]))
    assert [answer.prompt_tokens for answer in answers] == list(map(len, predictors["classification"].read_all(
        ["one", "one two"]
    )))  # fmt: skip


@pytest.mark.parametrize(("bad", "message"), [
    ("", "^empty prompts: 2$"), (["one"], "list of messages"), (5, "list of messages"),
    ("one " * 3000, "^prompt 2 has"),
])  # fmt: skip
def test_a_bad_prompt_is_named_before_any_answer(tiny_model: Path, bad: Any, message: str) -> None:
    network, tokenizer = (
        auto.from_pretrained(tiny_model) for auto in (transformers.AutoModelForCausalLM, transformers.AutoTokenizer)
    )
    model = Model(network, tokenizer, continues=True)
    with pytest.raises(TrainingProblem, match=message):
        next(model.generate(["one", bad], max_tokens=1, batch_size=1))
