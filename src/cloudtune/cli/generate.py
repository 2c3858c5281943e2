"""``cloudtune generate``: generate text with a tuned model, optionally next to its base model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from cloudtune.cli.options import command, ref_argument, trust_option
from cloudtune.cli.terminal import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloudtune.cli.session import Session
    from cloudtune.optional import Prompt
    from cloudtune.state import Generation

T = TypeVar("T")


@command("generate", without=("backend",))
@ref_argument
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...")
@click.option("--file", "file", type=click.Path(path_type=Path, allow_dash=True), help="Prompts: one per line, or "
              "JSONL with `prompt` or `messages`. - reads standard input.")  # fmt: skip
@click.option("--base", is_flag=True, help="Also run the base model, to compare.")
@click.option("--max-tokens", type=int, default=128, show_default=True)
@click.option("--temperature", type=float, default=0.0, show_default=True, help="0 always picks the most likely "
              "token.")  # fmt: skip
@click.option("--top-p", type=float, default=1.0, show_default=True)
@click.option("--seed", type=int, help="Random seed, for temperatures above 0.")
@trust_option
@click.option("--stream", is_flag=True, help="Print output as it is generated.")
def generate(
    session: Session, ref: str, prompts: tuple[str, ...], file: Path | None, base: bool, max_tokens: int,
    temperature: float, top_p: float, seed: int | None, stream: bool, trust_remote_code: bool,
) -> None:  # fmt: skip
    """Generate text with a tuned model. With --base, also run the base model to compare."""
    from cloudtune.errors import InputError
    from cloudtune.optional import GenerateOptions, check_generation

    questions: list[Prompt] = [*prompts, *(read_prompts(file) if file else [])]
    if not questions:
        raise InputError("no prompt given", hint="pass a prompt, or --file with one per line")
    plain = GenerateOptions(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed, stream=stream)
    check_generation(questions, plain)
    job = session.job(ref)
    of_base = msgspec.structs.replace(plain, base=True, stream=False)
    from_base = list(job.generate(questions, of_base, trust_remote_code=trust_remote_code)) if base else []
    written = _Written(session, questions, from_base)
    try:
        for answer in job.generate(questions, plain, trust_remote_code=trust_remote_code):
            written.add(answer)
    finally:
        written.close()
    session.result(_json(str(job.ref), questions, written.answers, from_base))


class _Written:
    """Print generations as they arrive."""

    def __init__(self, session: Session, questions: Sequence[Prompt], from_base: Sequence[Generation]) -> None:
        self.answers: list[Generation] = []
        self._session = session
        self._asked = questions
        self._from_base = from_base
        self._begun = False

    def add(self, answer: Generation) -> None:
        """Write a generation, or a part of one."""
        number = len(self.answers)
        base = self._from_base[number] if self._from_base else None
        if answer.partial:
            if not self._begun and (head := _head(self._asked, number, base)):
                self._session.put(head, end="")
            self._session.answer(answer.text, end="")
            self._begun = True
            return
        self.answers.append(answer)
        if self._begun:  # its whole text has been printed
            self._session.put("" if len(self._asked) == 1 and base is None else "\n")
        else:
            _put(self._session, self._asked, number, answer, base)
        self._begun = False

    def close(self) -> None:
        """End the line of an incomplete answer. The error is printed below it."""
        if self._begun:
            self._session.put("")


_LARGEST_FILE = 256 << 20
_TABLES = (".csv", ".tsv", ".xlsx", ".parquet", ".arrow")
_AS_ROWS = (
    "write its rows first: cloudtune data convert {} --map COLUMN=prompt --map OTHER=completion --to cloudtune"
    " -o prompts.jsonl"
)


def read_lines(path: Path, parse: Callable[[Any], T], code: str, fix: str | None = None) -> list[T | str]:
    """Read the lines of a file that are not blank. Those of a JSONL file are decoded and parsed.

    Args:
        path: The file. - is standard input.
        parse: Called with each JSON value. It raises ValueError if the value is invalid.
        code: The code of problems.
        fix: How to fix an invalid line.

    Raises InputError with every invalid line.
    """
    from cloudtune.errors import InputError, Problem

    if path.suffix.lower() in _TABLES:
        raise InputError(f"{path} is a table, and each line of a text file is one prompt", hint=_AS_ROWS.format(path))
    label, lines = _numbered_lines(path)
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        return [line for _, line in lines]
    found: list[T | str] = []
    problems = []
    for number, line in lines:
        try:
            found.append(parse(json.loads(line)))
        except (ValueError, RecursionError) as error:
            problems.append(Problem(code=code, message=str(error), file=label, line=number, fix=fix))
    if problems:
        raise InputError(problems)
    return found


def _numbered_lines(path: Path) -> tuple[str, list[tuple[int, str]]]:
    """The name of a file, and its lines that are not blank with their numbers. Only a line feed ends a line."""
    from cloudtune.errors import InputError, Problem
    from cloudtune.files.regular_file import read_regular

    label = "<stdin>" if str(path) == "-" else str(path)
    try:
        text = sys.stdin.read() if label == "<stdin>" else read_regular(path, _LARGEST_FILE).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError([Problem(code="not_utf8", message="not UTF-8 text", file=label)]) from error
    except OSError as error:
        raise InputError([Problem(code="unreadable", message=str(error.strerror), file=label)]) from error
    return label, [(number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def read_prompts(path: Path) -> list[Prompt]:
    """Read the prompts of a file. Raises InputError with every invalid line."""
    fix = 'write {"prompt": "..."} or {"messages": [{"role": "user", "content": "..."}]}'
    return list(read_lines(path, _prompt, "prompt", fix))


def _prompt(row: Any) -> Prompt:
    from cloudtune.prompts import ToolPrompt

    if isinstance(row, str):
        return row
    if isinstance(row, dict) and isinstance(row.get("prompt"), str):
        return str(row["prompt"])
    if isinstance(row, dict) and isinstance(row.get("messages"), list) and row["messages"]:
        messages = row["messages"]
        if all(isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in messages):
            # A training row ends with the expected answer, which is not part of the prompt.
            kept = messages[:-1] if messages[-1]["role"] == "assistant" and len(messages) > 1 else messages
            if tools := row.get("tools"):
                return msgspec.convert({"messages": kept, "tools": tools}, ToolPrompt)
            return [dict(turn) for turn in kept]
    raise ValueError("this row has no prompt")


def _put(
    session: Session, questions: Sequence[Prompt], number: int, answer: Generation, base: Generation | None
) -> None:
    text = _with_scores(answer) if base is None else _indented(answer.text)
    session.put(_head(questions, number, base), end="")
    session.answer(text, end="\n" if len(questions) == 1 and base is None else "\n\n")


def _with_scores(answer: Generation) -> str:
    """The answer, and of a classifier the probability of each label."""
    if answer.scores is None:
        return answer.text
    return one_line(f"{answer.text}  ({', '.join(f'{label} {score:.3f}' for label, score in answer.scores.items())})")


def _head(questions: Sequence[Prompt], number: int, base: Generation | None) -> str:
    """Return the text printed before the tuned model's answer."""
    if base is None:
        return "" if len(questions) == 1 else f"> {words(questions[number])}\n"
    return f"> {words(questions[number])}\nbase:  {_indented(base.text)}\ntuned: "


def _indented(text: str) -> str:
    return "\n       ".join(text.strip().splitlines())


def words(prompt: Prompt) -> str:
    """Return the last turn of the prompt as text."""
    from cloudtune.prompts import ToolPrompt

    turns = prompt.messages if isinstance(prompt, ToolPrompt) else prompt
    return turns if isinstance(turns, str) else str(turns[-1].get("content", ""))


def _json(ref: str, questions: Sequence[Prompt], answers: list[Generation], base: list[Generation]) -> dict[str, Any]:
    from cloudtune.state import to_json

    found = [
        {"prompt": to_json(prompt)} | to_json(answer) | ({"base": to_json(base[number])} if base else {})
        for number, (prompt, answer) in enumerate(zip(questions, answers, strict=True))
    ]
    return {"ref": ref, "text": answers[0].text, "answers": found}
