"""Bedrock's OpenAI-shaped API: OpenAI's own SDK with a Bedrock API key, at the same place as OpenAI's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import openai
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune_emulator import Emulator

FUNCTION = "arn:aws:lambda:us-west-2:123456789012:function:grade"
MODEL = "openai.gpt-oss-20b"


@pytest.fixture
def mantle(emulator: Emulator) -> Iterator[openai.OpenAI]:
    key = emulator.settings.bedrock_api_key
    with openai.OpenAI(base_url=f"{emulator.url}/v1", api_key=key, max_retries=0) as client:
        yield client


@pytest.fixture
def file(mantle: openai.OpenAI) -> str:
    rows = [{"messages": [{"role": "user", "content": f"{n}+1?"}], "answer": str(n + 1)} for n in range(12)]
    data = "\n".join(json.dumps(row) for row in rows).encode()
    return mantle.files.create(file=("prompts.jsonl", data), purpose="fine-tune").id


def method(**changes: Any) -> Any:
    grader = {"type": "lambda", "lambda": {"function": FUNCTION}}
    config = {"grader": grader, "hyperparameters": {"n_epochs": 2}} | changes
    return {"type": "reinforcement", "reinforcement": config}


def test_a_job_from_prompts_to_an_answer(
    emulator: Emulator, mantle: openai.OpenAI, client: openai.OpenAI, file: str
) -> None:
    job = mantle.fine_tuning.jobs.create(model=MODEL, training_file=file, extra_body={"method": method()})
    emulator.clock.advance(200)
    done = mantle.fine_tuning.jobs.retrieve(job.id)
    assert done.status == "succeeded", done.error
    assert done.fine_tuned_model is not None
    assert list(mantle.fine_tuning.jobs.list_events(job.id))
    kept = mantle.fine_tuning.jobs.checkpoints.list(job.id).data
    requested: Any = [{"role": "user", "content": "1+1?"}]
    for model in (done.fine_tuned_model, kept[-1].fine_tuned_model_checkpoint):
        assert mantle.chat.completions.create(model=model, messages=requested).choices[0].message.content
    assert {one.id for one in mantle.models.list()} >= {MODEL, "qwen.qwen3-32b", done.fine_tuned_model}
    # Neither account sees the other's.
    assert not list(client.fine_tuning.jobs.list())
    assert not list(client.files.list())
    with pytest.raises(openai.BadRequestError):
        client.fine_tuning.jobs.create(model=MODEL, training_file=file)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"suffix": "mine"}, "suffix"),
        ({"model": "gpt-4.1-mini-2025-04-14"}, "not available"),
        ({"method": {"type": "supervised"}}, "grader"),
        ({"method": method(grader={"type": "string_check"})}, "type 'lambda'"),
        ({"method": method(grader={"type": "lambda", "lambda": {"function": "grade"}})}, "type 'lambda'"),
        ({"method": method(hyperparameters={"eval_samples": 3})}, "eval_samples"),
    ],
)
def test_what_it_does_not_take(mantle: openai.OpenAI, file: str, changes: dict[str, Any], words: str) -> None:
    request: dict[str, Any] = {"model": MODEL, "method": method()} | changes
    with pytest.raises(openai.BadRequestError, match=words):
        mantle.fine_tuning.jobs.create(model=request.pop("model"), training_file=file, extra_body=request)
    assert not list(mantle.fine_tuning.jobs.list())
