"""``cloudtune chat``: a conversation with a tuned model in the terminal."""

from __future__ import annotations

import importlib
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from cloudtune.cli.options import command, ref_argument, trust_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.cli.session import Session


@command("chat", without=("backend",))
@ref_argument
@click.option("--system", metavar="TEXT", help="The system message.")
@click.option("--base", is_flag=True, help="Talk to the base model instead.")
@click.option("--max-tokens", type=int, default=512, show_default=True)
@click.option("--temperature", type=float, default=0.0, show_default=True, help="0 always picks the most likely token.")
@trust_option
def chat(
    session: Session, ref: str, system: str | None, base: bool, max_tokens: int, temperature: float,
    trust_remote_code: bool,
) -> None:  # fmt: skip
    """Talk to the model of a job. Each line of standard input is a turn, and the model sees the turns before it.

    /new starts another conversation. Ctrl-D ends.
    """
    from cloudtune.optional import GenerateOptions

    job = session.job(ref)
    options = GenerateOptions(max_tokens=max_tokens, temperature=temperature, base=base, stream=True)
    start = [] if system is None else [{"role": "system", "content": system}]
    turns, said = list(start), []
    if sys.stdin.isatty():
        session.say("/new starts another conversation; Ctrl-D ends")
    for line in _lines():
        if line == "/new":
            turns = list(start)
            continue
        turns.append({"role": "user", "content": line})
        text, streamed = "", False
        for part in job.generate([turns], options, trust_remote_code=trust_remote_code):
            if part.partial:
                session.answer(part.text, end="")
                streamed = True
            else:
                text = part.text
        session.answer("" if streamed else text)
        turns.append({"role": "assistant", "content": text})
        said.append({"prompt": line, "text": text})
    session.result({"ref": str(job.ref), "answers": said})


def _lines() -> Iterator[str]:
    """The user's turns: with line editing in a terminal."""
    from cloudtune.errors import InputError

    is_terminal = sys.stdin.isatty()
    if is_terminal:
        with suppress(ImportError):  # some builds of Python lack it
            importlib.import_module("readline")  # `input` then edits lines, and recalls those of this conversation
    while True:
        try:
            line = input("> " if is_terminal else "").strip()
        except EOFError:
            return
        except UnicodeDecodeError as error:
            raise InputError("standard input is not UTF-8 text", hint="convert it to UTF-8") from error
        if line:
            yield line
