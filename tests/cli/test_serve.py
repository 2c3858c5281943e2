"""`cloudtune serve` and `cloudtune chat`, over the scripted vendor."""

from __future__ import annotations

import os
import pty
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


def test_chat_edits_lines_in_a_terminal(desk: Desk) -> None:
    ref = desk.submit()
    desk.finish(ref)
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "cloudtune", "chat", ref]
    environment = {**desk.environment(), "TERM": "xterm"}
    with subprocess.Popen(words, cwd=desk.folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs):
        os.close(theirs)
        _read_to(ours, b"> ")
        os.write(ours, b"xbc\x01\x04a\n")  # Ctrl-A goes to the start of the line, Ctrl-D deletes the x
        shown = _read_to(ours, b"says")
        _read_to(ours, b"> ")
        os.write(ours, b"\x04")
    os.close(ours)
    assert b"cba says" in shown


def _read_to(terminal: int, text: bytes) -> bytes:
    """What is shown, up to the text. Fails if the program ends before."""
    shown = b""
    while text not in shown:
        shown += os.read(terminal, 1)
    return shown


def test_chat_names_input_that_is_not_text(desk: Desk) -> None:
    ref = desk.submit()
    desk.finish(ref)
    words = [sys.executable, "-m", "cloudtune", "chat", ref]
    environment = {**desk.environment(), "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(
        words, cwd=desk.folder, env=environment, input=b"\xff\xfe\n", capture_output=True, check=False
    )
    assert (done.returncode, b"not UTF-8" in done.stderr) == (2, True), done.stderr
