"""An emulator whose clock is paused until the test advances it, and the vendors' own clients for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import openai
import pytest

from cloudtune_emulator import Emulator, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = "gpt-4.1-mini-2025-04-14"


def chat_rows(count: int = 12) -> bytes:
    """Training rows whose answers identify their question."""
    rows = [
        {"messages": [{"role": "user", "content": f"question {i}"}, {"role": "assistant", "content": f"answer {i}"}]}
        for i in range(count)
    ]
    return "\n".join(json.dumps(row) for row in rows).encode()


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Script engine, time in the test's hand."""
    with Emulator(Settings(), scale=0) as emulator:
        yield emulator


@pytest.fixture
def client(emulator: Emulator) -> Iterator[openai.OpenAI]:
    """The real SDK; an answer that does not fit its types raises."""
    with openai.OpenAI(
        base_url=emulator.openai_url, api_key=emulator.settings.api_key, max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


@pytest.fixture
def training_file(client: openai.OpenAI) -> str:
    """A good file's id."""
    return client.files.create(file=("train.jsonl", chat_rows()), purpose="fine-tune").id


@pytest.fixture
def loose(emulator: Emulator) -> Iterator[openai.OpenAI]:
    """The SDK as users have it: words that its types do not know, such as "paused", pass."""
    with openai.OpenAI(base_url=emulator.openai_url, api_key=emulator.settings.api_key, max_retries=0) as client:
        yield client
