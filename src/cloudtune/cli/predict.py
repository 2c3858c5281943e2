"""``cloudtune predict``: labels, tags, answers or short texts from a tuned model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudtune.cli.options import command, ref_argument, trust_option
from cloudtune.cli.terminal import one_line

if TYPE_CHECKING:
    from cloudtune.cli.session import Session
    from cloudtune.optional import Input
    from cloudtune.state import Prediction


@command("predict", without=("backend",))
@ref_argument
@click.argument("inputs", nargs=-1, metavar="[TEXT]...")
@click.option("--file", "file", type=click.Path(path_type=Path, allow_dash=True), help="Inputs: one text per line, or "
              "JSONL with rows as in training, without the answer. - reads standard input.")  # fmt: skip
@click.option("--question", help="A question. Each TEXT is a context in which to find the answer.")
@trust_option
def predict(
    session: Session, ref: str, inputs: tuple[str, ...], file: Path | None, question: str | None,
    trust_remote_code: bool,
) -> None:  # fmt: skip
    """Predict labels, tags, answers or vectors with a tuned model, and print them with their scores."""
    from cloudtune.errors import InputError
    from cloudtune.state import to_json

    given: list[Input] = [*inputs, *(read_inputs(file) if file else [])]
    if not given:
        raise InputError("no input given", hint="pass a text, or --file with one input per line")
    if question is not None:
        given = [{"question": question, "context": one} if isinstance(one, str) else one for one in given]
    job = session.job(ref)
    found = []
    for one, prediction in zip(given, job.predict(given, trust_remote_code=trust_remote_code), strict=True):
        found.append({"input": one} | {name: value for name, value in to_json(prediction).items() if value is not None})
        head = f"> {one_line(shown(one))}\n" if len(given) > 1 else ""
        session.put(head, end="")
        session.answer(lines_of(prediction), end="\n\n" if head else "\n")
    session.result({"ref": str(job.ref), "text": found[0]["text"], "predictions": found})


def read_inputs(path: Path) -> list[Input]:
    """Read the inputs of a file. Raises InputError with every invalid line."""
    from cloudtune.cli.generate import read_lines

    return list(read_lines(path, _input, "input"))


def _input(row: Any) -> Input:
    if not isinstance(row, str | dict):
        raise ValueError("not an object or a text")  # noqa: TRY004 - as json.loads raises it
    return row


def shown(given: Input) -> str:
    """Return the input in one line."""
    if isinstance(given, str):
        return given
    if "tokens" in given:
        return " ".join(map(str, given["tokens"]))
    for name in ("completion", "messages"):
        if isinstance(turns := given.get(name), list) and turns and isinstance(turns[-1], dict):
            return str(turns[-1].get("content", ""))
    if "sentence1" in given:
        return f"{given['sentence1']} | {given.get('sentence2', '')}"
    return next((str(given[name]) for name in ("question", "text", "source") if name in given), json.dumps(dict(given)))


def lines_of(found: Prediction) -> str:
    """Return the prediction for people: a line for each word, or the text with its scores.

    Labels come with the model and are escaped. A text that the model writes is not changed.
    """
    if found.tags is not None:
        rows = [(one_line(one.token), one_line(one.tag), one.score) for one in found.tags]
        width = max((len(token) for token, _, _ in rows), default=0)
        return "\n".join(f"{token:{width}}  {tag}  {score:.3f}" for token, tag, score in rows)
    if found.scores is not None:
        scores = ", ".join(f"{label} {score:.3f}" for label, score in found.scores.items())
        return one_line(f"{found.text}  ({scores})")
    if found.score is None:
        return found.text
    place = "" if found.start is None else f", characters {found.start} to {found.end}"
    return f"{found.text or '(no answer)'}  ({found.score:.3f}{place})"
