"""Engines run jobs and generate their models' answers: the interface of both engines, and the scripted one."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from cloudtune_emulator import rowcheck
from cloudtune_emulator.job_timeline import Actions, JobStatus, Script, TrainingPlan, results, status_at

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """The model of an inference request: a tuned model has the job that created it."""

    name: str
    base: str
    job: dict[str, Any] | None = None
    step: int | None = None
    """The checkpoint's step, where it is one."""
    training_file: Path | None = None
    folder: Path | None = None
    """An imported model's files."""


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """The sampling parameters of an answer."""

    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    may_call: bool = False
    """Whether tools are offered."""


class Spoken(msgspec.Struct, frozen=True, kw_only=True):
    """An answer."""

    pieces: tuple[str, ...]
    """The chunks of the answer when it streams."""
    finish_reason: str
    """stop, length or tool_calls."""
    prompt_tokens: int
    completion_tokens: int
    tool_calls: tuple[dict[str, Any], ...] = ()
    """Tool calls, as in OpenAI's messages."""

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)


class Engine(Protocol):
    """Runs jobs. A job is a document in the store with ``course`` and ``acts``."""

    def begin(self, job: dict[str, Any], training: Path, validation: Path | None) -> None:
        """Start a new job; may modify the document."""

    def status(self, job: dict[str, Any], now: float) -> JobStatus:
        """The job's current state."""

    def results(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        """The rows of a finished job's result file."""

    def act(self, job: dict[str, Any], kind: str, now: float) -> None:
        """Cancel, pause or resume a job; the API has checked that this is allowed now."""

    def answer(self, model: Served, messages: Sequence[Mapping[str, Any]], sampling: Sampling) -> Spoken:
        """The answer. Raises ApiError."""

    def close(self) -> None:
        """Stop or detach the running jobs."""


class ScriptEngine:
    """Jobs progress with the clock; nothing is trained.

    A tuned model answers a question of its training file with that file's answer, so that a test can check which model
    answered.
    """

    def __init__(self) -> None:
        self.script = Script()
        """The script of jobs created from now on."""

    def begin(self, job: dict[str, Any], training: Path, validation: Path | None) -> None:
        """See `Engine.begin`: the job keeps the current script."""
        job["script"] = msgspec.to_builtins(self.script)

    def status(self, job: dict[str, Any], now: float) -> JobStatus:
        """See `Engine.status`."""
        return status_at(
            job["id"], job["created"], job["seed"], msgspec.convert(job["script"], Script),
            msgspec.convert(job["course"], TrainingPlan), Actions(tuple((at, kind) for at, kind in job["acts"])), now,
        )  # fmt: skip

    def results(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        """See `Engine.results`."""
        return results(
            job["seed"], msgspec.convert(job["script"], Script), msgspec.convert(job["course"], TrainingPlan)
        )

    def act(self, job: dict[str, Any], kind: str, now: float) -> None:
        """See `Engine.act`."""
        job["acts"].append([now, kind])

    def answer(self, model: Served, messages: Sequence[Mapping[str, Any]], sampling: Sampling) -> Spoken:
        """See `Engine.answer`."""
        question = text_of(next((m for m in reversed(messages) if m.get("role") == "user"), {}))
        known = _learnt(model.training_file, question) if model.training_file else None
        text = text_of(known) if known is not None else f"{model.name} received: {question}"
        # An estimate: four characters per token, and a few tokens for each turn.
        prompted = sum(len(text_of(message)) // 4 + 4 for message in messages)
        if sampling.may_call and known is not None and known.get("tool_calls"):
            calls = tuple(known["tool_calls"])
            length = sum(len(msgspec.json.encode(call)) for call in calls) // 4
            return Spoken(
                pieces=(text,) if text else (), finish_reason="tool_calls", tool_calls=calls, prompt_tokens=prompted,
                completion_tokens=max(1, length),
            )  # fmt: skip
        words = text.split(" ")
        said = [word if index == 0 else f" {word}" for index, word in enumerate(words[: sampling.max_tokens])]
        return Spoken(
            pieces=tuple(said),
            finish_reason="length" if len(said) < len(words) else "stop",
            prompt_tokens=prompted,
            completion_tokens=len(said),
        )

    def close(self) -> None:
        """See `Engine.close`."""


def _learnt(training_file: Path, question: str) -> dict[str, Any] | None:
    """The turn that follows that text in the training file."""
    if not training_file.exists():
        return None
    for row in rowcheck.objects(training_file):
        turns = [*(row.get("input") or row).get("messages", ()), *row.get("preferred_output", ())]
        for before, after in pairwise(turns):
            if before["role"] == "user" and after["role"] == "assistant" and text_of(before) == question:
                return dict(after)
    return None


def text_of(message: Mapping[str, Any]) -> str:
    """A message's text: content is a string, or a list of parts of which some are text."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if isinstance(part, dict))
