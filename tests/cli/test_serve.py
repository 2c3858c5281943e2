"""`cloudtune serve` and `cloudtune chat`, over the scripted vendor."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import openai

if TYPE_CHECKING:
    from tests.cli.conftest import Desk

QUESTION: list[Any] = [{"role": "user", "content": "abc"}]


def test_other_addresses_need_a_token(desk: Desk) -> None:
    refused = desk.run("serve", "job", "--host", "0.0.0.0")
    assert (refused.code, "CLOUDTUNE_SERVE_KEY" in refused.err) == (2, True)


def test_the_command_serves_until_it_is_stopped(desk: Desk) -> None:
    ref = desk.submit()
    desk.finish(ref)
    words = [sys.executable, "-m", "cloudtune", "serve", ref, "--port", "0"]
    with subprocess.Popen(words, cwd=desk.folder, env=desk.environment(), stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        url = running.stdout.readline().strip()
        client = openai.OpenAI(base_url=url, api_key="any", max_retries=0)
        (name, base) = [one.id for one in client.models.list()]
        assert base == "base"
        assert client.chat.completions.create(model=name, messages=QUESTION).choices[0].message.content
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0


def test_chat_keeps_the_conversation(desk: Desk) -> None:
    ref = desk.submit()
    desk.finish(ref)
    done = desk.run("chat", ref, "--json", input="abc\n\n/new\nxyz\n")
    assert done.code == 0, done.err
    first, second = done.json["answers"]
    assert (first["prompt"], second["prompt"]) == ("abc", "xyz")
    assert first["text"].startswith("cba says")
    assert second["text"].startswith("zyx says")
