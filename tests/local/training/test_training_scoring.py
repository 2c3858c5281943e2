"""The probability of a text: equal to that of a plain forward pass, alone, in batches and in windows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cloudtune.client import Client
from cloudtune.errors import UnsupportedError
from cloudtune.evaluation.result import EvaluateOptions
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options
from cloudtune_trainer.generate import Model
from cloudtune_trainer.scoring import log_probabilities
from cloudtune_trainer.tiny import write_tiny_model

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = ["One.", "A longer text with some more words.", "Übung 日本", " ", "x"]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = write_tiny_model(tmp_path_factory.mktemp("tiny") / "model", vocab_texts=TEXTS)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def model(network: Any) -> Model:
    return Model(network, AutoTokenizer.from_pretrained(network.name_or_path))


def by_hand(network: Any, ids: list[int], first: int) -> float:
    with torch.no_grad():
        scores = torch.log_softmax(network(torch.tensor([ids])).logits[0].double(), -1)
    return sum(float(scores[place - 1, ids[place]]) for place in range(first, len(ids)))


def test_a_text_follows_the_token_that_starts_texts(network: Any, model: Model) -> None:
    tokenizer = model._tokenizer
    start = [tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id]
    found = list(model.score([(None, text) for text in TEXTS]))
    for text, (log_probability, tokens) in zip(TEXTS, found, strict=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokens == len(ids)
        assert log_probability == pytest.approx(by_hand(network, start + ids, 1), rel=1e-4)
    assert [next(model.score([(None, text)])) for text in TEXTS] == [
        (pytest.approx(one, rel=1e-4), count) for one, count in found
    ]  # fmt: skip


def test_an_answer_follows_its_prompt(network: Any, model: Model) -> None:
    prompt = [{"role": "user", "content": "How many?"}]
    ((log_probability, tokens),) = model.score([(prompt, "One.")])
    before, answer = (model._tokenizer(text, add_special_tokens=False)["input_ids"]
                      for text in (model._text(prompt), "One."))  # fmt: skip
    assert tokens == len(answer)
    assert log_probability == pytest.approx(by_hand(network, before + answer, len(before)), rel=1e-4)


@pytest.mark.parametrize(("first", "last", "context"), [
    (1, 40, 16), (0, 40, 16), (25, 40, 16), (39, 40, 16), (3, 3, 16), (1, 40, 40), (1, 40, None), (30, 40, 2),
])  # fmt: skip
def test_windows_count_each_token_once(network: Any, first: int, last: int, context: int | None) -> None:
    ids = [int(token) for token in torch.randint(5, 200, (40,), generator=torch.Generator().manual_seed(1))]
    ((log_probability, tokens),) = log_probabilities(network, [(ids, first, last)], context=context, batches=True)
    assert tokens == last - max(first, 1)
    if context is None or context >= len(ids):
        assert log_probability == pytest.approx(by_hand(network, ids[:last], max(first, 1)), rel=1e-4)
    else:
        assert math.isfinite(log_probability)
        assert (log_probability < 0) is (tokens > 0)


def test_texts_are_evaluated_by_their_perplexity(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 1)):
        write_tiny_model(tmp_path / name, vocab_texts=TEXTS if seed else (), seed=seed)
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(f'{{"text": "number {n} of some texts"}}\n' for n in range(20)))
    client = Client(LocalBackend(Options(root=tmp_path / "runs")), ledger=f"sqlite:///{tmp_path}/ledger.db")
    found = client.evaluate(f"{tmp_path}/one", str(file), against=[f"{tmp_path}/two"])
    assert (found.task, found.metrics) == ("passages", ("byte_perplexity", "perplexity"))
    per_byte, per_token = (found.models[0].scores[name].value for name in found.metrics)
    assert per_byte == pytest.approx(per_token)  # the tokens of the first tokenizer are bytes
    assert found.models[1].scores["byte_perplexity"].value < found.models[1].scores["perplexity"].value
    assert found.comparisons[0].same_answers == 0
    asked: list[tuple[str, int]] = []
    again = client.evaluate(f"{tmp_path}/one", str(file), against=[f"{tmp_path}/two"],
                            on_progress=lambda name, done, count: asked.append((name, done)))  # fmt: skip
    assert again.models == found.models
    assert asked == [("one", 20), ("two", 20)]
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"prompt": "q {n}", "completion": "answer number {n}"}}\n' for n in range(4)))
    options = EvaluateOptions(metrics=("perplexity", "exact_match"), max_tokens=2)
    scores = client.evaluate(f"{tmp_path}/one", str(rows), options=options).models[0].scores
    assert scores["perplexity"].value > 1
    with pytest.raises(UnsupportedError, match="which openai does not give"):
        client.evaluate("openai=gpt-4.1-mini", str(rows), options=options)
