"""What a request for an answer may say: served, or refused as the vendor does, and never ignored without a word."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import openai
import pytest
from tests.emulator.conftest import MODEL

from cloudtune_emulator import Emulator, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
CALLED = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
ASKED: Any = [{"role": "user", "content": "question 3"}]


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator(Settings(), scale=0) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def tuned(emulator: Emulator) -> Iterator[tuple[openai.OpenAI, str]]:
    rows: list[Any] = [
        {"messages": [{"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": f"answer {n}"}]}
        for n in range(10)
    ]
    rows.append({"messages": [{"role": "user", "content": "weather?"}, {"role": "assistant", "tool_calls": [CALLED]}],
                 "tools": [TOOL]})  # fmt: skip
    data = "\n".join(json.dumps(row) for row in rows).encode()
    with openai.OpenAI(
        base_url=emulator.openai_url, api_key=emulator.settings.api_key, max_retries=0, _strict_response_validation=True
    ) as client:
        file = client.files.create(file=("t.jsonl", data), purpose="fine-tune").id
        job = client.fine_tuning.jobs.create(model=MODEL, training_file=file)
        emulator.clock.advance(100)
        name = client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model
        assert name is not None
        yield client, name


def test_several_choices(tuned: tuple[openai.OpenAI, str]) -> None:
    client, model = tuned
    said = client.chat.completions.create(model=model, messages=ASKED, n=3)
    assert [(one.index, one.message.content) for one in said.choices] == [(n, "answer 3") for n in range(3)]
    assert said.usage is not None
    assert said.usage.completion_tokens == 6
    found = ["", "", ""]
    for chunk in client.chat.completions.create(model=model, messages=ASKED, n=3, stream=True):
        for choice in chunk.choices:
            found[choice.index] += choice.delta.content or ""
    assert found == ["answer 3"] * 3


def test_a_tool_call_that_was_learnt_is_made_where_tools_are_offered(tuned: tuple[openai.OpenAI, str]) -> None:
    client, model = tuned
    requested: Any = [{"role": "user", "content": "weather?"}]
    said = client.chat.completions.create(model=model, messages=requested, tools=[TOOL]).choices[0]
    assert said.finish_reason == "tool_calls"
    assert said.message.content is None
    assert said.message.tool_calls is not None
    assert [call.model_dump(mode="json", exclude_none=True) for call in said.message.tool_calls] == [CALLED]
    chunks = list(client.chat.completions.create(model=model, messages=requested, tools=[TOOL], stream=True))
    (streamed,) = [chunk.choices[0].delta.tool_calls for chunk in chunks if chunk.choices[0].delta.tool_calls]
    assert streamed[0].function is not None
    assert streamed[0].function.arguments == CALLED["function"]["arguments"]  # type: ignore[index]
    for more in ({}, {"tools": [TOOL], "tool_choice": "none"}):
        assert (
            client.chat.completions.create(model=model, messages=requested, **more).choices[0].finish_reason == "stop"
        )


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"extra_body": {"temprature": 1}}, "Unrecognized request argument supplied: temprature"),
        ({"n": 0}, "'n'"),
        ({"n": 129}, "'n'"),
        ({"logprobs": True}, "'logprobs' is not emulated"),
        ({"top_logprobs": 3}, "'top_logprobs' is not emulated"),
        ({"frequency_penalty": 1.5}, "'frequency_penalty' is not emulated"),
        ({"response_format": {"type": "json_object"}}, "'json_object' is not emulated"),
        ({"tools": [TOOL], "tool_choice": "required"}, "'tool_choice' is not emulated"),
        ({"tool_choice": "auto"}, "only allowed when 'tools'"),
        ({"tools": [{"type": "function"}]}, r"tools\[0\]"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "'stop'"),
        ({"seed": "x"}, "'seed'"),
        ({"max_tokens": 3, "max_completion_tokens": 3}, "at the same time"),
        ({"stream_options": {"include_usage": True}}, "only allowed when 'stream'"),
    ],
)
def test_what_a_chat_does_not_take(tuned: tuple[openai.OpenAI, str], more: dict[str, Any], words: str) -> None:
    client, model = tuned
    with pytest.raises(openai.BadRequestError, match=words):
        client.chat.completions.create(model=model, messages=ASKED, **more)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"extra_body": {"mesages": []}}, "Unknown parameter: 'mesages'"),
        ({"tools": [{"type": "web_search"}]}, "'tools' is not emulated"),
        ({"reasoning": {"effort": "low"}}, "'reasoning' is not emulated"),
        ({"text": {"format": {"type": "json_object"}}}, "'json_object' is not emulated"),
        ({"previous_response_id": "resp_1"}, "'previous_response_id' is not emulated"),
    ],
)
def test_what_a_response_does_not_take(tuned: tuple[openai.OpenAI, str], more: dict[str, Any], words: str) -> None:
    client, model = tuned
    with pytest.raises(openai.BadRequestError, match=words):
        client.responses.create(model=model, input="question 3", **more)


def test_the_known_fields_are_those_of_the_sdk() -> None:
    from openai.types.chat.completion_create_params import CompletionCreateParamsBase
    from openai.types.responses.response_create_params import ResponseCreateParamsBase

    from cloudtune_emulator.openai import chat_params

    assert set(CompletionCreateParamsBase.__annotations__) <= chat_params.CHAT
    assert set(ResponseCreateParamsBase.__annotations__) <= chat_params.RESPONSES
