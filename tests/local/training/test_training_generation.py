"""Answers at the limits: the end of the context, models without ends, settings and prompts that cannot be used."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cloudtune.optional import GENERATION_RANGES, GenerateOptions, check_generation
from cloudtune_trainer import sampling
from cloudtune_trainer.generate import Model, batches_of
from cloudtune_trainer.generation_settings import end_where_answers_end, padding_of
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.tiny import write_tiny_model

CONTEXT = 48


def opened(folder: Path) -> Model:
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return Model(network, AutoTokenizer.from_pretrained(folder))


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Positions of the one are a table, of the other a formula."""
    config = {"model_type": request.param, "max_position_embeddings": CONTEXT}
    return opened(write_tiny_model(tmp_path_factory.mktemp("tiny") / "model", model=config))


def test_an_answer_ends_with_the_context(model: Model) -> None:
    model._ends = []  # it never ends by itself
    prompts = ["One.", "One and two and three."]
    answers = list(model.generate(prompts, max_tokens=100))
    assert [answer.finish_reason for answer in answers] == ["length", "length"]
    assert [answer.prompt_tokens + answer.completion_tokens for answer in answers] == [CONTEXT, CONTEXT]
    *_, streamed = model.stream(prompts[1], max_tokens=100)
    assert streamed == answers[1]


WITH_TOOLS = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for turn in messages %}{{ turn.content }}"
    "{% for call in turn.tool_calls or [] %}{{ call.function.arguments.city }}{% endfor %}{% endfor %}"
)


def test_the_template_shows_tools_or_the_prompt_is_refused(tiny_model: Path) -> None:
    model = opened(tiny_model)
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"city": "Bonn"}'}}
    prompt = {
        "messages": ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "", "tool_calls": [call]}),
        "tools": ({"type": "function", "function": {"name": "f"}},),
    }
    with pytest.raises(TrainingProblem, match="does not show tools") as refused:
        next(model.generate([prompt], max_tokens=1))
    assert refused.value.code == "bad_data"
    model._tokenizer.chat_template = WITH_TOOLS
    assert model._text(prompt) == '[{"type": "function", "function": {"name": "f"}}]HiBonn'


def test_answers_keep_the_order_of_prompts_of_any_length(model: Model) -> None:
    prompts = [f"{'a' * ((7 * number) % 11)} {number}" for number in range(11)]
    alone = [next(model.generate([prompt], max_tokens=3)) for prompt in prompts]
    assert list(model.generate(prompts, max_tokens=3, batch_size=2)) == alone


@pytest.mark.parametrize(("size", "max_tokens", "sizes"), [(2, 1, [2, 2, 1]), (9, 1 << 14, [1] * 5), (9, 1, [5])])
def test_batches_are_limited_in_rows_and_tokens(size: int, max_tokens: int, sizes: list[int]) -> None:
    rows = [[1] * 500] * 5
    assert [len(batch) for batch in batches_of(range(5), rows, size, max_tokens)] == sizes


def test_prompts_beyond_the_context_are_refused_together(model: Model) -> None:
    with pytest.raises(TrainingProblem, match=rf"prompt 1 has \d+, prompt 3 has \d+ tokens.* has {CONTEXT}") as refused:
        next(model.generate(["word " * 200, "short", "another " * 200]))
    assert refused.value.code == "bad_data"


@pytest.mark.parametrize("ids", [{"pad_token_id": -1}, {"bos_token_id": -1, "eos_token_id": [-1, 2]},
                                 {"eos_token_id": -1, "pad_token_id": -1}], ids=str)  # fmt: skip
def test_a_negative_token_is_none(ids: dict[str, Any], tiny_model: Path, tmp_path: Path) -> None:
    network = AutoModelForCausalLM.from_pretrained(tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for name, value in ids.items():
        setattr(network.generation_config, name, value)
    end_where_answers_end(network, tokenizer)
    network.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "generation_config.json").read_text())
    assert saved["pad_token_id"] == tokenizer.pad_token_id
    assert saved["bos_token_id"] == tokenizer.bos_token_id
    assert "-1" not in str(saved["eos_token_id"])


def test_one_rule_selects_the_padding_token(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    assert padding_of(tokenizer, [9]) == tokenizer.pad_token_id
    tokenizer.pad_token = None
    assert padding_of(tokenizer, [9]) == 9
    assert padding_of(tokenizer) == tokenizer.eos_token_id
    tokenizer.eos_token = None
    assert padding_of(tokenizer) is None


def test_a_tokenizer_without_end_and_padding(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model", chat_template=None)
    for name, keys in {
        "tokenizer_config.json": ("eos_token", "pad_token"), "config.json": ("eos_token_id", "pad_token_id"),
        "generation_config.json": ("eos_token_id", "pad_token_id"),
    }.items():  # fmt: skip
        document = json.loads((folder / name).read_text())
        for key in keys:
            document.pop(key, None)
        (folder / name).write_text(json.dumps(document))
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = Model(network, AutoTokenizer.from_pretrained(folder), continues=True)
    answers = list(model.generate(["One follows", "Two"], max_tokens=5))
    assert [(answer.finish_reason, answer.completion_tokens) for answer in answers] == [("length", 5)] * 2


BAD: list[tuple[str, Any]] = [
    ("max_tokens", 0), ("max_tokens", -5), ("max_tokens", 2.5), ("max_tokens", 10**9), ("max_tokens", True),
    ("temperature", -0.1), ("temperature", 1e-45), ("temperature", 1e9), ("temperature", math.nan),
    ("temperature", math.inf), ("top_p", 0.0), ("top_p", 1.5), ("top_p", -1), ("top_p", math.nan), ("seed", -1),
    ("seed", 2**32), ("temperature", "hot"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_setting_out_of_its_range_is_refused(model: Model, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}: must be"):
        check_generation(["Hi"], GenerateOptions(**{name: value}))
    with pytest.raises(TrainingProblem, match=f"{name} must be"):
        next(model.generate(["Hi"], **{name: value}))


@pytest.mark.parametrize("setting", [{"temperature": 0.001}, {"temperature": 100.0}, {"temperature": 1, "top_p": 1e-6}])
def test_the_ends_of_the_ranges_work(model: Model, setting: dict[str, Any]) -> None:
    assert next(model.generate(["Hi"], max_tokens=2, seed=2**32 - 1, **setting)).prompt_tokens


def test_the_library_and_the_trainer_have_the_same_ranges() -> None:
    assert GENERATION_RANGES == sampling.RANGES


@pytest.mark.parametrize(
    ("prompt", "says"),
    [("", "prompt 2 is empty"), ([], "prompt 2 is empty"), ("caf\udce9", "prompt 2 is not UTF-8"),
     ([{"role": "user", "content": "\ud800"}], "prompt 2 is not UTF-8"), (["Hi"], "prompt 2 is neither a text nor")],
)  # fmt: skip
def test_a_prompt_that_cannot_be_used_is_refused(prompt: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_generation(["Hi", prompt], GenerateOptions())
