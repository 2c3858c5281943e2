"""The model of a run: find it, run inference, export it. Large packages are imported inside the functions."""

from __future__ import annotations

import contextlib
import importlib.util
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.errors import BackendError, BackendNotInstalled, InvalidRequest, JobNotFound, QuotaExceeded
from cloudtune.install_command import install_command
from cloudtune.optional import GenerateOptions, check_generation
from cloudtune.prompts import ToolPrompt
from cloudtune.state import Generation, Likelihood, Prediction, Tag
from cloudtune_trainer.problems import TrainingProblem, recognized
from cloudtune_trainer.quiet import quietly
from cloudtune_trainer.tuned import CONFIG, TUNED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloudtune.optional import Input, Prompt
    from cloudtune.prompts import Passage
    from cloudtune.state import TunedModel

NEEDS = ("torch", "transformers", "peft", "accelerate", "safetensors")


class Answering:
    """Tuned models for inference in this process. The last one used stays loaded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: tuple[tuple[str, bool, bool], Any] | None = None

    def generate(
        self, model: TunedModel, prompts: Sequence[Prompt], options: GenerateOptions | None
    ) -> Iterator[Generation]:
        """Answers in order. All requests are validated before the first one runs."""
        options = options or GenerateOptions()
        check_generation(prompts, options)
        folder = _folder_of(model)
        _need()
        return self._answers(model, folder, prompts, options)

    def predict(self, model: TunedModel, inputs: Sequence[Input]) -> Iterator[Prediction]:
        """Predictions in order. Raises InvalidRequest for a model that only generates text."""
        folder = _folder_of(model)
        _need()
        with _translate_errors():
            from cloudtune_trainer.tasks.predictor import Predictor

            opened = self._opened(folder, base=False, trust_remote_code=model.trust_remote_code)
            if not isinstance(opened, Predictor):
                raise InvalidRequest("this model generates text", hint="use generate")
            for found in opened.predict(inputs):
                tags = None if found.tags is None else tuple(Tag(**tag) for tag in found.tags)
                yield Prediction(**vars(found) | {"tags": tags, "model": model.id})

    def score(self, model: TunedModel, passages: Sequence[Passage], *, base: bool) -> Iterator[Likelihood]:
        """The probability of each text. Raises InvalidRequest for a model that does not continue texts."""
        folder = _folder_of(model)
        _need()
        with _translate_errors():
            from cloudtune_trainer.generate import Model

            opened = self._opened(folder, base=base, trust_remote_code=model.trust_remote_code)
            if not isinstance(opened, Model):
                raise InvalidRequest("this model does not continue texts, so it gives texts no probability")
            asked = [(_with_tools(one.prompt) if isinstance(one.prompt, ToolPrompt) else one.prompt, one.text)
                     for one in passages]  # fmt: skip
            for log_probability, tokens in opened.score(asked):
                yield Likelihood(log_probability=log_probability, tokens=tokens)

    def _answers(
        self, model: TunedModel, folder: Path, prompts: Sequence[Prompt], options: GenerateOptions
    ) -> Iterator[Generation]:
        with _translate_errors():
            opened = self._opened(folder, base=options.base, trust_remote_code=model.trust_remote_code)
            asked = [_with_tools(prompt) if isinstance(prompt, ToolPrompt) else prompt for prompt in prompts]
            how = {
                "max_tokens": options.max_tokens, "temperature": options.temperature, "top_p": options.top_p,
                "seed": options.seed,
            }  # fmt: skip
            name = model.base if options.base else model.id
            if options.stream and hasattr(opened, "stream"):  # a classifier has only whole answers
                answers = (part for prompt in asked for part in opened.stream(prompt, **how))
            else:
                answers = opened.generate(asked, **how)
            for answer in answers:
                yield _generation(answer, name)

    def _opened(self, folder: Path, *, base: bool, trust_remote_code: bool) -> Any:
        from cloudtune_trainer.tasks.table import open_model

        key = (str(folder), base, trust_remote_code)
        with self._lock:
            if self._last is None or self._last[0] != key:
                self._last = None  # unload the old one first: two may not fit into memory
                with quietly():
                    self._last = (key, open_model(folder, base=base, trust_remote_code=trust_remote_code))
            return self._last[1]


def _generation(answer: Any, model: str) -> Generation:
    """An answer of the trainer's model, or a part of one."""
    if isinstance(answer, str):
        return Generation(text=answer, partial=True, model=model)
    return Generation(
        text=answer.text, finish_reason=answer.finish_reason, prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens, scores=answer.scores, model=model,
    )  # fmt: skip


def _with_tools(prompt: ToolPrompt) -> dict[str, Any]:
    return {"messages": prompt.messages, "tools": prompt.tools}


def export(model: TunedModel, to: Path, *, merged: bool) -> list[Path]:
    """Export the adapter, or the merged weights, to a new folder."""
    folder = _folder_of(model)
    if merged:
        _need()
    with _translate_errors(to.absolute().parent):
        from cloudtune_trainer.export import export as write

        with quietly() if merged else contextlib.nullcontext():
            return write(folder, to, merged=merged, trust_remote_code=model.trust_remote_code)


def _folder_of(model: TunedModel) -> Path:
    folder = Path(model.uri or "")
    is_plain = model.ref is None and (folder / CONFIG).is_file()
    if not (model.uri and ((folder / TUNED).is_file() or is_plain)):
        raise JobNotFound(f"the model {model.id} no longer exists: {model.uri}")
    return folder


def missing_here() -> list[str]:
    """The trainer's packages that this interpreter lacks. Imports nothing."""
    return [name for name in NEEDS if importlib.util.find_spec(name) is None]


def _need() -> None:
    missing = missing_here()
    if missing:
        raise BackendNotInstalled(
            f"running a local model requires {', '.join(missing)}, not installed for this interpreter",
            hint=f"run: {install_command('local')}",
        )


@contextlib.contextmanager
def _translate_errors(folder: Path | None = None) -> Iterator[None]:
    """Convert the errors of the trainer's code. ``folder`` is its output folder, if any."""
    try:
        yield
    except TrainingProblem as error:
        kind = InvalidRequest if error.code in ("bad_data", "base_changed") else BackendError
        raise kind(error.message, hint=error.hint) from error
    except FileExistsError as error:
        raise InvalidRequest(str(error), hint="choose a folder that does not exist yet") from error
    except ImportError as error:
        hint = f"run: {install_command('local')}"
        raise BackendNotInstalled(f"cannot import a package that local models require: {error}", hint=hint) from error
    except Exception as error:
        known = recognized(error)
        if known is not None and known.code == "disk_full" and folder is not None:
            hint = "free disk space, or choose a folder on another disk"
            raise QuotaExceeded(f"no space left in {folder}", hint=hint) from error
        if isinstance(error, OSError):
            raise BackendError(f"cannot read or write the model: {error}") from error
        raise
