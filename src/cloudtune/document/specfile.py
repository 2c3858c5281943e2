"""Reads a JobSpec from a YAML, JSON or TOML file, from standard input, or from a mapping.

All problems are reported at once, with file, line and field. Paths are relative to the spec's folder. A spec is
stored, printed and sent, so it must not contain secrets or references to environment variables.
"""

from __future__ import annotations

import os.path
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from pydantic import ValidationError

from cloudtune.document.document import STDIN, Document, dotted, parse_value, read_document
from cloudtune.document.parsed import DEEPEST, Path_, SyntaxFault
from cloudtune.document.validation import problems_of, quoted
from cloudtune.errors import Problem, SpecError
from cloudtune.redaction.masking import looks_secret
from cloudtune.spec import SPEC_VERSION, JobSpec

SHORT_FOR: dict[Path_, str] = {
    ("method",): "name", ("adapter",): "type", ("data",): "train", ("data", "train"): "path",
    ("data", "validation"): "path", ("data", "test"): "path", ("method", "reward"): "function",
    ("evaluation",): "data", ("evaluation", "data"): "path", ("evaluation", "guard"): "path",
    ("evaluation", "judge"): "model",
}  # fmt: skip
_ALIASES = {
    "base_model": "model", "model_name_or_path": "model", "train_file": "data.train", "training_file": "data.train",
    "dataset": "data.train", "valid": "data.validation", "validation_file": "data.validation",
    "n_epochs": "hyperparameters.epochs", "num_train_epochs": "hyperparameters.epochs",
    "num_epochs": "hyperparameters.epochs", "lr": "hyperparameters.learning_rate",
    "per_device_train_batch_size": "hyperparameters.batch_size", "max_seq_length": "hyperparameters.max_length",
    "lr_scheduler_type": "hyperparameters.scheduler", "bf16": "hyperparameters.precision",
    "r": "adapter.rank", "lora_r": "adapter.rank", "lora_alpha": "adapter.alpha", "lora_dropout": "adapter.dropout",
    "target_modules": "adapter.targets", "num_virtual_tokens": "adapter.virtual_tokens", "lora": "adapter",
    "early_stopping": "validation.early_stopping",
    "save_steps": "checkpoints.every", "eval_steps": "validation.every", "random_seed": "seed",
}  # fmt: skip
_EXAMPLES = {
    "model": "model: ./folder-with-weights", "data": "data: {train: rows.jsonl}", "data.train": "train: rows.jsonl",
    "data.train.path": "path: rows.jsonl",
}  # fmt: skip
_SET = "--set"


@dataclass(frozen=True)
class _Places:
    """The location of each field: in the file, or on the command line."""

    document: Document
    overridden: frozenset[Path_] = frozenset()

    def __call__(self, path: Path_) -> tuple[str | None, int | None]:
        line = self.document.line(path)
        if self.is_overridden(path) or (line is None and any(one[: len(path)] == path for one in self.overridden)):
            return _SET, None
        return self.document.file or None, line

    def is_overridden(self, path: Path_) -> bool:
        return any(path[:end] in self.overridden for end in range(1, len(path) + 1))


@dataclass(frozen=True)
class SpecFile:
    """A spec, with the location of each field in its file."""

    spec: JobSpec
    _places: _Places

    def with_values(self, values: Mapping[str, Any], *, without: str) -> dict[str, Any]:
        """The file's own values, with others by path, and without a section."""
        found: dict[str, Any] = _copied(self._places.document.values)
        found.pop(without, None)
        for path, value in values.items():
            _put(found, tuple(path.split(".")), value)
        return found

    def placed(self, problem: Problem) -> Problem:
        """Return the problem with the location of its field, if it has a field and no location."""
        if problem.file is not None or not problem.field:
            return problem
        path = tuple(int(part) if part.isdigit() else part for part in problem.field.split("."))
        if path[:2] == ("tune", "parameters"):  # its keys are paths
            path = (*path[:2], dotted(path[2:]))
        file, line = self._places(path)
        return msgspec.structs.replace(problem, file=file, line=line) if line or file == _SET else problem


def load_spec(path: str | Path, *, set: Sequence[str] = ()) -> JobSpec:  # noqa: A002 - the option is called --set
    """Read a spec file. ``-`` is standard input. ``set`` has ``a.b=value`` strings that override the file.

    Raises SpecError with all problems.
    """
    return open_spec(path, set).spec


def open_spec(path: str | Path, changes: Sequence[str] = ()) -> SpecFile:
    """As `load_spec`, with the locations for later messages."""
    document = read_document(path, error=SpecError, what="a job spec")
    name = "job" if str(path) == STDIN else name_from(Path(path).stem)
    return _checked(document, changes, name)


def parse_spec(values: Mapping[str, Any], *, folder: Path | None = None, changes: Sequence[str] = ()) -> JobSpec:
    """Create a spec from plain values, as in a file. Paths are relative to ``folder`` or the working directory."""
    document = Document("", (folder or Path.cwd()).absolute(), _with_text_paths(values))
    return _checked(document, changes, "job").spec


def _with_text_paths(value: Any) -> Any:
    """The same values with paths as text, as they are in a file."""
    match value:
        case Path():
            return str(value)
        case Mapping():
            return {key: _with_text_paths(item) for key, item in value.items()}
        case list() | tuple():
            return [_with_text_paths(item) for item in value]
    return value


def name_from(text: str) -> str:
    """Return a valid name that resembles the text."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9]+", "-", plain).strip("-")[:40].rstrip("-") or "job"


def _checked(document: Document, changes: Sequence[str], name: str) -> SpecFile:
    problems = list(document.duplicates)
    values, overridden = _with_overrides(document.values, changes, problems)
    places = _Places(document, overridden)
    _refuse_newer(values, places)
    values = _pruned(values)
    problems += [problem for path, value in _texts(values) for problem in _secrets(path, value, places)]
    values = {"name": name} | _with_paths(values, places)
    try:
        spec = JobSpec.model_validate(values)
    except ValidationError as error:
        problems += problems_of(error, model=JobSpec, values=values, place=places, aliases=_ALIASES, examples=_EXAMPLES)
        raise SpecError(_in_order(problems)) from error
    if problems:
        raise SpecError(_in_order(problems))
    return SpecFile(spec, places)


def _in_order(problems: list[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: (problem.file == _SET, problem.line or 0))


def _refuse_newer(values: Mapping[str, Any], places: _Places) -> None:
    """Report only the version of a newer spec, whose keys are unknown."""
    version = values.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version <= SPEC_VERSION:
        return
    file, line = places(("version",))
    message = f"the spec has version {version}; this cloudtune supports version {SPEC_VERSION}"
    fix = "upgrade cloudtune, or write a spec of this version"
    raise SpecError([Problem(code="newer_version", message=message, file=file, line=line, field="version", fix=fix)])


def _pruned(values: Mapping[str, Any], above: Path_ = ()) -> dict[str, Any]:
    """Return the values without empty keys: an empty section is the same as a missing one."""
    if above[:1] == ("overrides",):
        return dict(values)
    return {
        key: _pruned(value, (*above, key)) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if value is not None
    }


# -- overrides on the command line ---------------------------------------------------------------------------------


def _with_overrides(
    values: Mapping[str, Any], texts: Sequence[str], problems: list[Problem]
) -> tuple[dict[str, Any], frozenset[Path_]]:
    found: dict[str, Any] = _copied(values)
    overridden: list[Path_] = []
    for text in texts:
        name, equals, written = text.partition("=")
        path = tuple(name.strip().split("."))
        if not equals or not all(path) or len(path) > DEEPEST:
            fix = "for example: --set hyperparameters.epochs=5"
            problems.append(Problem(code="set", message=f"expected a.b=value, got {text!r}", file=_SET, fix=fix))
            continue
        try:
            _put(found, path, parse_value(written) if written.strip() else None)
        except SyntaxFault as fault:
            problems.append(Problem(code="set", message=str(fault), file=_SET, field=dotted(path), fix=fault.fix))
        except TypeError as fault:
            problems.append(Problem(code="set", message=str(fault), file=_SET, field=dotted(path)))
        else:
            overridden.append(path)
    return found, frozenset(overridden)


def _put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    here = values
    for number, key in enumerate(path[:-1], 1):
        inner = here.get(key)
        short = SHORT_FOR.get(path[:number])
        if short and inner is not None and not isinstance(inner, dict):
            inner = {short: inner}  # `method: sft` with --set method.loss_on=all
        if inner is not None and not isinstance(inner, dict):
            raise TypeError(f"{dotted(path[:number])} is {quoted(inner)}, which has no field {path[number]!r}")
        here[key] = inner if inner is not None else {}
        here = here[key]
    here[path[-1]] = value


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list | tuple) else value


# -- no secrets ----------------------------------------------------------------------------------------------------


def _texts(value: Any, path: Path_ = ()) -> list[tuple[Path_, str]]:
    if isinstance(value, Mapping):
        return [found for key, item in value.items() for found in _texts(item, (*path, key))]
    if isinstance(value, list | tuple):
        return [found for number, item in enumerate(value) for found in _texts(item, (*path, number))]
    return [(path, value)] if isinstance(value, str) else []


def _secrets(path: Path_, value: str, places: _Places) -> list[Problem]:
    why = "specs are stored with the job and shown in plans"
    if "${" in value:
        code, message = "reference", f"a spec cannot contain ${{...}} references: {why}"
        fix = "write the value itself; put secrets in the vendor's credentials or in `cloudtune.toml`"
    elif looks_secret(tuple(str(part) for part in path), value):
        code, message = "secret", f"this looks like a secret: {why}"
        fix = "remove it; put secrets in the vendor's credentials, or reference them as ${NAME} in `cloudtune.toml`"
    else:
        return []
    file, line = places(path)
    return [Problem(code=code, message=message, file=file, line=line, field=dotted(path), fix=fix)]


# -- paths ---------------------------------------------------------------------------------------------------------


def _with_paths(values: dict[str, Any], places: _Places) -> dict[str, Any]:
    """Make data and model paths absolute: from the spec's folder, or the working directory for command-line values."""

    def base(path: Path_) -> Path:
        return Path.cwd() if places.is_overridden(path) else places.document.folder

    found = dict(values)
    if isinstance(data := found.get("data"), Mapping):
        found["data"] = {
            key: _source_path(value, ("data", key), base) if key in ("train", "validation", "test", "mix") else value
            for key, value in data.items()
        }
    evaluation = found.get("evaluation")
    if isinstance(evaluation, Mapping):
        found["evaluation"] = {
            key: _source_path(value, ("evaluation", key), base) if key in ("data", "guard")
            else _metric_paths(value, base(("evaluation", key))) if key == "metrics"
            else _judge_paths(value, base) if key == "judge"
            else _folders(value, base(("evaluation", key))) if key == "against" else value
            for key, value in evaluation.items()
        }  # fmt: skip
    elif evaluation is not None:
        found["evaluation"] = _source_path(evaluation, ("evaluation",), base)
    if isinstance(adapter := found.get("adapter"), Mapping):
        found["adapter"] = _source_path(adapter, ("adapter",), base)
    method = found.get("method")
    if isinstance(method, Mapping) and "reward" in method:
        found["method"] = {**method, "reward": _reward_path(method["reward"], base)}
    model = found.get("model")
    if isinstance(model, str):
        found["model"] = _model_path(model, base(("model",)))
    elif isinstance(model, Mapping):
        found["model"] = {
            key: _model_path(value, base(("model", key))) if isinstance(value, str) else value
            for key, value in model.items()
        }
    return found


def _source_path(value: Any, path: Path_, base: Callable[[Path_], Path]) -> Any:
    if isinstance(value, str):
        return value if "://" in value or not value else str(_absolute(value, base(path)))
    if isinstance(value, list | tuple):
        return [_source_path(item, path, base) for item in value]
    if isinstance(value, Mapping) and "path" in value:
        return {**value, "path": _source_path(value["path"], (*path, "path"), base)}
    return value


def _reward_path(value: Any, base: Callable[[Path_], Path]) -> Any:
    """The paths of a reward: a function's file, and a model's folder."""
    reward = dict(value) if isinstance(value, Mapping) else {"function": value}
    for name, text in reward.items():
        folder = base(("method", "reward", name))
        file, colon, function = text.rpartition(":") if isinstance(text, str) else ("", "", "")
        if name == "function" and file.endswith(".py"):
            reward[name] = f"{_absolute(file, folder)}{colon}{function}"
        elif name == "model" and isinstance(text, str):
            reward[name] = _model_path(text, folder)
    return reward


def _metric_paths(value: Any, folder: Path) -> Any:
    """The files of metrics that are functions or JSON Schemas."""
    if isinstance(value, list):
        return [_metric_paths(item, folder) for item in value]
    if not isinstance(value, str) or value.startswith("regex:"):
        return value
    file, _, function = value.rpartition(":")
    if value.startswith("json_schema:"):
        return f"json_schema:{_absolute(value.removeprefix('json_schema:'), folder)}"
    return f"{_absolute(file, folder)}:{function}" if file.endswith(".py") else value


def _judge_paths(value: Any, base: Callable[[Path_], Path]) -> Any:
    """The folder of a judge, and its files: its rubric and the labels of people."""
    if not isinstance(value, Mapping):
        return _folders(value, base(("evaluation", "judge")))
    return {
        key: str(_absolute(one, base(("evaluation", "judge", key))))
        if key in ("rubric", "human_labels") and isinstance(one, str) and one
        else _folders(one, base(("evaluation", "judge", key))) if key == "model" else one
        for key, one in value.items()
    }  # fmt: skip


def _folders(value: Any, folder: Path) -> Any:
    """Models that are folders. Others are jobs, or a vendor's."""
    if isinstance(value, list):
        return [_folders(one, folder) for one in value]
    is_folder = isinstance(value, str) and value.startswith(("./", "../", "~"))
    return str(_absolute(value, folder)) if is_folder else value


def _model_path(model: str, folder: Path) -> str:
    """Return a path if it looks like one or exists. Otherwise it is a name for the back end."""
    if "://" in model or not model:
        return model
    there = _absolute(model, folder)
    looks = model.startswith(("./", "../", "/", "~")) or model in (".", "..") or model.lower().endswith(".gguf")
    return str(there) if looks or _exists(there) else model


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for a file name, or contains a NUL
        return False


def _absolute(text: str, folder: Path) -> Path:
    try:
        expanded = Path(text).expanduser()
    except RuntimeError:  # ~nobody
        expanded = Path(text)
    return Path(os.path.normpath(folder / expanded))
