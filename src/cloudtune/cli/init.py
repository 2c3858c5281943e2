"""``cloudtune init``: create a commented spec."""

from __future__ import annotations

import json
import os.path
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from cloudtune.cli.options import command
from cloudtune.methods import DEFAULT_METHOD

if TYPE_CHECKING:
    from cloudtune.cli.session import Session
    from cloudtune.spec import JobSpec

TEMPLATE = """\
# A cloudtune job. Check it with: cloudtune plan {file}
# Run it with:                   cloudtune run {file}
# All fields, with explanations: cloudtune schema
version: 1
name: {name}
{backend}
# The base model: a folder, a GGUF file, a Hugging Face id or a vendor's model name;
# or one per back end: {{local: ./weights, openai: gpt-4.1-mini-2025-04-14}}
model: {model}

data:
  # JSONL (also .gz), JSON, CSV, TSV, Parquet or text. Paths are relative to this file's folder.
  train: {train}
  # Validation set: a file, or a share of the training rows.
  validation: {validation}
{test}
# Training method: sft (supervised fine-tuning), cpt (continued pretraining), dpo (preference pairs), ...
method: {method}

# Trained weights: lora (a small adapter) or full (all weights).
adapter:
  type: {adapter}
  # rank: 8
  # alpha: 16

# Fields left out use the back end's defaults; `cloudtune plan` shows them.
hyperparameters:
  epochs: {epochs}
  # learning_rate: 2e-4
  # batch_size: 8
  # max_length: 1024

# validation:
#   every: epoch
#   early_stopping: {{patience: 3}}

# limits:
#   max_time: 2h

# tags: {{team: search}}
seed: 0
"""


@command("init", without=("ledger", "profile"))
@click.argument("file", default="job.yaml", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--model", metavar="MODEL", help="Base model: a folder, a file, a hub id or a vendor's model name.")
@click.option("--train", metavar="FILE", help="Training data.")
@click.option("--validation", metavar="FILE|SHARE", default="0.1", show_default=True, help="Validation set.")
@click.option("--test", metavar="FILE|SHARE", help="Test set, for the final evaluation.")
@click.option("--method", default=DEFAULT_METHOD, show_default=True)
@click.option("--adapter", default="lora", show_default=True)
@click.option("--epochs", type=click.FloatRange(min=0, min_open=True), default=3, show_default=True)
@click.option("--name", metavar="NAME", help="Job name. Default: the name of FILE.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def init(
    session: Session, file: Path, model: str | None, train: str | None, validation: str, test: str | None,
    method: str, adapter: str, epochs: float, name: str | None, force: bool,
) -> None:  # fmt: skip
    """Create a commented spec in FILE (job.yaml). Prompts for required values that are not given as options.

    With the name of a back end, as in `cloudtune init bedrock`, write the setup documents of that back end: the roles
    and policies to review and apply. Nothing is applied.
    """
    from cloudtune.document.specfile import name_from

    if not file.suffix and _is_backend(str(file)):
        _documents(session, str(file), force)
        return
    _refuse_file(file, force)
    given = {"--model": model, "--train": train}
    if sys.stdin.isatty() and sys.stderr.isatty():
        questions = {
            "--model": "Base model (folder, file, Hugging Face id or vendor's model name)",
            "--train": "Training data file",
        }
        given = {flag: value or click.prompt(questions[flag], err=True) for flag, value in given.items()}
    _refuse_missing(given)
    folder = file.absolute().parent
    text = TEMPLATE.format(
        file=file, name=scalar(name or name_from(file.stem)),
        backend=f"backend: {scalar(session.backend)}" if session.backend else "# backend: local",
        model=scalar(_model(str(given["--model"]), folder)), train=scalar(_from(str(given["--train"]), folder)),
        validation=_held_out(validation, folder), test=f"  test: {_held_out(test, folder)}\n" if test else "",
        method=scalar(method), adapter=scalar(adapter), epochs=f"{epochs:g}",
    )  # fmt: skip
    spec = _write(file, text)
    session.result({"file": str(file.absolute()), "spec": spec.model_dump(mode="json", exclude_none=True)})
    session.put(str(file))
    session.say(f"review it, then run: cloudtune plan {file}")


def _is_backend(word: str) -> bool:
    from cloudtune.registry import backend_names

    return word in backend_names()


def _documents(session: Session, name: str, force: bool) -> None:
    """Write the back end's setup documents into this folder."""
    from cloudtune.errors import UnsupportedError
    from cloudtune.optional import SetupDocuments

    backend = session.client.backend(name)
    if not isinstance(backend, SetupDocuments):
        raise UnsupportedError(f"{name} requires no setup", hint=f"to create a spec: cloudtune init {name}.yaml")
    texts = {Path(file): text for file, text in backend.documents().items()}
    for file in texts:
        if file.exists() and not force:
            refuse("exists", "the file already exists", file, "pass --force to overwrite it")
    for file, text in texts.items():
        file.write_text(text, encoding="utf-8")
        session.put(str(file))
    session.result({"backend": name, "files": [str(file.absolute()) for file in texts]})
    session.say("review the files, replace the placeholders in capitals, and apply them yourself; nothing was applied")


def _write(file: Path, text: str) -> JobSpec:
    """Write the spec to a draft file, load it as `run` does, and then rename it."""
    from cloudtune.document.specfile import load_spec

    draft = file.with_name(f".{file.name}.draft")
    try:
        draft.write_text(text, encoding="utf-8")
        spec = load_spec(draft)
        draft.replace(file)
    except OSError as error:
        refuse("not_written", f"cannot write the file: {error.strerror}", file, "choose another folder")
    finally:
        draft.unlink(missing_ok=True)
    return spec


def scalar(text: str) -> str:
    """Return the text as a YAML value."""
    plain = re.fullmatch(r"[A-Za-z_./~][\w./~@+-]*", text) and text.lower() not in ("null", "true", "false", "~")
    return text if plain else json.dumps(text, ensure_ascii=False)


def _held_out(text: str, folder: Path) -> str:
    try:
        return f"{float(text):g}"
    except ValueError:
        return scalar(_from(text, folder))


def _from(path: str, folder: Path) -> str:
    """Return the path relative to the folder of the file that names it."""
    if "://" in path or path.startswith(("/", "~")):
        return path
    return os.path.relpath(Path(path).absolute(), folder)


def _model(model: str, folder: Path) -> str:
    looks = model.startswith(("./", "../")) or model.endswith(".gguf") or Path(model).exists()
    if not looks or model.startswith(("/", "~")):
        return model
    there = _from(model, folder)
    return there if there.startswith("..") else f"./{there}"


def _refuse_file(file: Path, force: bool) -> None:
    if file.suffix.lower() not in (".yaml", ".yml"):
        refuse(
            "not_yaml",
            "init writes YAML files only, because JSON has no comments",
            file,
            "choose a name such as job.yaml",
        )
    if file.exists() and not force:
        refuse("exists", "the file already exists", file, "choose another name, or pass --force to overwrite it")
    if not file.absolute().parent.is_dir():
        refuse("no_folder", "the folder of the file does not exist", file, f"create it: mkdir -p {file.parent}")


def refuse(code: str, message: str, file: Path, fix: str) -> NoReturn:
    """Raise InputError about a file that cannot be written."""
    from cloudtune.errors import InputError, Problem

    raise InputError([Problem(code=code, message=message, file=str(file), fix=fix)])


def _refuse_missing(given: dict[str, str | None]) -> None:
    from cloudtune.errors import InputError, Problem

    missing = [flag for flag, value in given.items() if not value]
    if missing:
        raise InputError([Problem(code="missing", message=f"{flag} is missing", fix=f"pass {flag} ..., or run "
                                  "the command in a terminal to be prompted") for flag in missing])  # fmt: skip
