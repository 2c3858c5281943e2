"""`cloudtune serve`: OpenAI's own client against a job's model."""

from __future__ import annotations

import http.client
import io
import json
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import openai
import pytest
from werkzeug.test import EnvironBuilder

from cloudtune.client import Client
from cloudtune.errors import InputError, Unavailable
from cloudtune.state import Generation, JobState
from cloudtune.testing.scripted_world import ScriptedWorld
from cloudtune_emulator.model_server import ModelServer
from cloudtune_emulator.wsgi_bridge import BodyTimeout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloudtune.optional import GenerateOptions, Prompt

QUESTION: list[Any] = [{"role": "user", "content": "abc"}]


def counting(prompt: Prompt, options: GenerateOptions) -> Iterator[Generation]:
    """Streams the numbers to the token limit."""
    words = [f"{number} " for number in range(options.max_tokens)]
    if options.stream:
        yield from (Generation(text=word, partial=True) for word in words)
    yield Generation(text="".join(words), finish_reason="length", prompt_tokens=3, completion_tokens=len(words))


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer(counting, "mine") as running:
        yield running


def client_of(server: ModelServer, key: str = "any") -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key=key, max_retries=0)


def test_a_jobs_model_and_its_base_answer(memory_path: Path) -> None:
    world = ScriptedWorld(memory_path)
    job = Client(world.backend(), ledger=f"{world.root}/ledger.db", clock=world.clock).submit(world.spec())
    world.reach(job.ref, JobState.SUCCEEDED)
    model = job.wait()
    with ModelServer(lambda prompt, options: job.generate([prompt], options), "job") as server:
        client = client_of(server)
        assert [one.id for one in client.models.list()] == ["job", "base"]
        assert client.models.retrieve("base").owned_by == "cloudtune"
        answer = client.chat.completions.create(model="job", messages=QUESTION)
        assert answer.choices[0].message.content == f"cba says {model.id}"
        assert client.chat.completions.create(model="base", messages=QUESTION).choices[0].message.content != (
            answer.choices[0].message.content
        )


@pytest.mark.parametrize(("stop", "text", "reason"), [
    (None, "0 1 2 3 4 ", "length"), ("2 3", "0 1 ", "stop"), (["9", "4 "], "0 1 2 3 ", "stop"), ("0", "", "stop"),
])  # fmt: skip
def test_a_stream_has_the_text_of_the_whole_answer(
    server: ModelServer, stop: str | list[str] | None, text: str, reason: str
) -> None:
    asked: dict[str, Any] = {"model": "mine", "messages": QUESTION, "max_tokens": 5, "stop": stop}
    whole = client_of(server).chat.completions.create(**asked)
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (text, reason)
    *chunks, last = client_of(server).chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    )
    deltas = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(deltas) == text
    assert chunks[-1].choices[0].finish_reason == reason
    assert last.usage.total_tokens == (8 if stop is None else last.usage.total_tokens)
    assert stop is not None or len([delta for delta in deltas if delta]) == 5


def test_a_stream_arrives_while_it_is_generated() -> None:
    goes_on = threading.Event()

    def waiting(prompt: Prompt, options: GenerateOptions) -> Iterator[Generation]:
        yield Generation(text="first", partial=True)
        assert goes_on.wait(60)
        yield Generation(text="first second", finish_reason="stop")

    with ModelServer(waiting, "mine") as server:
        chunks = client_of(server).chat.completions.create(model="mine", messages=QUESTION, stream=True)
        seen = ""
        for chunk in chunks:
            seen += chunk.choices[0].delta.content or ""
            if seen == "first":
                goes_on.set()
        assert seen == "first second"


@pytest.mark.parametrize(("change", "status"), [
    ({"model": "other"}, 404), ({"messages": []}, 400), ({"n": 2}, 400), ({"temperature": 3}, 400),
    ({"response_format": {"type": "json_object"}}, 400), ({"unknown": 1}, 400),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 400), ({"stream": "false"}, 400),
    ({"messages": [{"content": "abc"}]}, 400),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.png"}}]}]}, 400),
])  # fmt: skip
def test_what_is_not_supported_is_refused(server: ModelServer, change: dict[str, Any], status: int) -> None:
    asked = {"model": "mine", "messages": QUESTION, **change}
    with pytest.raises(openai.APIStatusError) as refused:
        client_of(server).post("/chat/completions", cast_to=object, body=asked)
    assert refused.value.status_code == status
    assert client_of(server).chat.completions.create(model="mine", messages=QUESTION, max_tokens=1)


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_of_the_back_end_is_a_status(stream: bool) -> None:
    def failing(prompt: Prompt, options: GenerateOptions) -> Iterator[Generation]:
        raise Unavailable("the service is down")
        yield

    with ModelServer(failing, "mine") as server, pytest.raises(openai.APIStatusError) as refused:
        client_of(server).chat.completions.create(model="mine", messages=QUESTION, stream=stream)
    assert (refused.value.status_code, "the service is down" in refused.value.message) == (502, True)


def test_only_the_token_opens_it() -> None:
    with ModelServer(counting, "mine", key="secret") as server:
        for key in ("", "secre", "secret2"):
            with pytest.raises(openai.AuthenticationError):
                client_of(server, key or "none").models.list()
        assert client_of(server, "secret").models.list().data


@pytest.mark.parametrize("headers", [
    {"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"},
])  # fmt: skip
def test_web_pages_are_refused(server: ModelServer, headers: dict[str, str]) -> None:
    address = urlsplit(server.url)
    channel = http.client.HTTPConnection(str(address.hostname), address.port)
    channel.request("POST", "/v1/chat/completions", json.dumps({"model": "mine", "messages": QUESTION}), headers)
    answer = channel.getresponse()
    assert (answer.status, b"choices" in answer.read()) in {(421, False), (403, False)}
    channel.close()


def test_text_parts_are_one_text() -> None:
    asked: list[Prompt] = []

    def noting(prompt: Prompt, options: GenerateOptions) -> Iterator[Generation]:
        asked.append(prompt)
        yield Generation(text="answer", finish_reason="stop")

    parts: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "bc"}]}]
    with ModelServer(noting, "mine") as server:
        client_of(server).chat.completions.create(model="mine", messages=parts)
    assert asked == [QUESTION]


def test_an_error_within_a_stream_reaches_the_client() -> None:
    def breaking(prompt: Prompt, options: GenerateOptions) -> Iterator[Generation]:
        yield Generation(text="first", partial=True)
        raise Unavailable("the service is down")

    with ModelServer(breaking, "mine") as server, pytest.raises(openai.APIError, match="the service is down"):
        list(client_of(server).chat.completions.create(model="mine", messages=QUESTION, stream=True))


def test_a_model_does_not_hide_its_base() -> None:
    with pytest.raises(InputError, match="before training"):
        ModelServer(counting, "base")


class _Broken(io.BytesIO):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def read(self, size: int | None = -1, /) -> bytes:
        raise self.error


def test_a_body_that_does_not_arrive_is_no_error_of_the_server(server: ModelServer) -> None:
    started: list[str] = []

    def post(error: Exception) -> None:
        environ = EnvironBuilder("/v1/chat/completions", method="POST", input_stream=_Broken(error)).get_environ()
        server(
            environ | {"CONTENT_LENGTH": "9", "wsgi.input_terminated": True},
            lambda status, headers: started.append(status),
        )

    post(BodyTimeout())
    with pytest.raises(ConnectionAbortedError):  # the HTTP server closes the connection
        post(ConnectionAbortedError())
    assert started == ["408 Request Timeout"]
