"""Models that can be evaluated: the model of a job, in a folder, of a deployment, or with a vendor's id."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cloudtune.errors import InputError, LedgerError, UnsupportedError
from cloudtune.hosting import hosts
from cloudtune.ledger.rows import spec_of
from cloudtune.optional import Generator, Host, Predictor, Scorer, ToolCaller, check_generation, check_inputs
from cloudtune.prompts import ToolPrompt
from cloudtune.retry import reading
from cloudtune.state import TunedModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloudtune.backend import Backend
    from cloudtune.clock import Clock
    from cloudtune.job import Job
    from cloudtune.ledger.ledger import Ledger
    from cloudtune.ledger.rows import Attempt
    from cloudtune.optional import GenerateOptions, Input, Prompt
    from cloudtune.prompts import Passage
    from cloudtune.spec import JobSpec
    from cloudtune.state import Generation, JobRef, Likelihood, Prediction


class Address(NamedTuple):
    """A model without a job: a folder, a deployment, or a vendor's id, on a back end."""

    text: str
    backend: Backend

    def __str__(self) -> str:
        return f"{self.backend.name}={self.text}"


class EvaluatedModel(NamedTuple):
    """A model that answers, and what its answers are stored under."""

    name: str
    backend: Backend
    tuned: TunedModel
    identity: str
    attempt: Attempt | None = None
    """The submission that trained it, if this ledger has it."""

    @property
    def ref(self) -> JobRef | None:
        """The job that trained it."""
        return self.tuned.ref

    @property
    def address(self) -> str:
        """What `Client.evaluate` takes for it."""
        return f"{self.backend.name}={self.tuned.id}" if self.ref is None else str(self.ref)

    @property
    def has_base(self) -> bool:
        """Whether the back end can ask its base model."""
        return self.ref is not None

    @property
    def spec(self) -> JobSpec | None:
        """The spec that it was trained with, if it is known."""
        return trained_with(self.attempt)

    @property
    def base_identity(self) -> str:
        """What the base model's answers are stored under: the same for jobs with one method and base model."""
        spec = self.spec
        if self.attempt is None or spec is None or "model" not in self.attempt.plan.resolved.identity:
            return f"base of {self.identity}"
        weights = self.attempt.plan.resolved.identity["model"]
        return f"base {self.backend.name} {self.tuned.scope} {spec.method.name} {self.attempt.model} {weights}"

    def check(self, prompts: Sequence[Prompt | Input], *, scores: bool = False) -> None:
        """Raise UnsupportedError if the back end cannot answer such prompts, or with ``scores`` cannot score texts."""
        self._predictor() if predicts(prompts) else self._generator()
        if any(isinstance(prompt, ToolPrompt) for prompt in prompts) and (reason := self._why_no_tools()):
            raise UnsupportedError(f"some rows have tools, and {self.name} cannot be given tools: {reason}",
                                   hint="remove these rows, or evaluate the model on another back end")  # fmt: skip

        if scores:
            self._scorer()

    def score(self, passages: Sequence[Passage], *, base: bool) -> Iterator[Likelihood]:
        """The probability of each text."""
        return self._scorer().score(self.tuned, passages, base=base)

    def _scorer(self) -> Scorer:
        if not isinstance(self.backend, Scorer):
            raise UnsupportedError(f"perplexity requires the probability of texts, which {self.backend.name} does not "
                                   "give", hint="use the local back end, or other metrics")  # fmt: skip
        return self.backend

    def _why_no_tools(self) -> str:
        if not isinstance(self.backend, ToolCaller):
            return f"cloudtune does not send tools to {self.backend.name}"
        return self.backend.why_no_tools(self.tuned)

    def generate(self, prompts: Sequence[Prompt], options: GenerateOptions) -> Iterator[Generation]:
        """Answers in the order of the prompts."""
        check_generation(prompts, options)
        return self._generator().generate(self.tuned, prompts, options)

    def predict(self, inputs: Sequence[Input]) -> Iterator[Prediction]:
        """Predictions in the order of the inputs."""
        check_inputs(inputs)
        return self._predictor().predict(self.tuned, inputs)

    def _generator(self) -> Generator:
        if not isinstance(self.backend, Generator):
            reason = self.backend.capabilities.why_not("verb:generate")
            raise UnsupportedError(f"{self.backend.name} cannot generate: {reason}")
        return self.backend

    def _predictor(self) -> Predictor:
        if not isinstance(self.backend, Predictor):
            raise UnsupportedError(f"{self.backend.name} has only models that generate text")
        return self.backend


def trained_with(attempt: Attempt | None) -> JobSpec | None:
    """The spec of a submission. None for an import, which has no rows, and for a job that this ledger does not have."""
    return None if attempt is None or "data" not in attempt.plan.spec else spec_of(attempt.plan)


def model_of_job(
    job: Job, backend: Backend, ledger: Ledger, *, predicts: bool, trust_remote_code: bool
) -> EvaluatedModel:
    """The model of a job. Raises a CloudtuneError if there is none, or if it cannot answer."""
    attempt = None
    with suppress(LedgerError):
        attempt = ledger.of_ref(job.ref)
    tuned = job._answering_model(predicts=predicts, trust_remote_code=trust_remote_code)
    name = attempt.name if attempt is not None and attempt.name else job.ref.id
    identity = f"job {job.ref} {job.snapshot().finished_at}"
    return EvaluatedModel(name, backend, tuned, identity, attempt)


def model_at(address: str, backend: Backend, clock: Clock, *, trust_remote_code: bool) -> EvaluatedModel:
    """The model in a folder, of a deployment, or with a vendor's id.

    The id is not checked: the vendor refuses the first question to a model that it does not have.
    """
    if not address.strip():
        raise InputError("the name of the model is empty")
    folder = Path(address).expanduser()
    if folder.is_dir():
        path = str(folder.resolve())
        tuned = _direct(backend, path, trust_remote_code=trust_remote_code)
        return EvaluatedModel(folder.resolve().name, backend, tuned, f"folder {backend.name} {path} {_state(folder)}")
    if isinstance(backend, Host) and hosts(backend):
        for one in reading(clock, lambda: list(backend.deployments())):
            if address in (one.id, one.model):
                tuned = _direct(backend, one.model, scope=one.scope, needs_deploy=True)
                made = f"{one.id} {one.created_at}"
                return EvaluatedModel(address, backend, tuned, f"deployment {backend.name} {one.scope} {made}")
    scope = reading(clock, backend.scope) if isinstance(backend, Generator) else ""
    return EvaluatedModel(address, backend, _direct(backend, address), f"model {backend.name} {scope} {address}")


def _direct(backend: Backend, address: str, *, scope: str = "", **more: Any) -> TunedModel:
    return TunedModel(id=address, base=address, backend=backend.name, scope=scope, uri=address, **more)


def _state(folder: Path) -> str:
    """A hash of the names, sizes and times of all files."""
    found = blake2b(digest_size=16)
    for path in sorted(folder.rglob("*")):
        status = path.stat()
        found.update(f"{path.relative_to(folder)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "replace"))
    return found.hexdigest()


def is_folder(text: str) -> bool:
    """Whether an argument names an existing folder and not a job."""
    return os.sep in text and Path(text).expanduser().is_dir()


def predicts(prompts: Sequence[Any]) -> bool:
    """Whether the prompts are rows for `Predictor.predict`."""
    return isinstance(prompts[0], Mapping)
