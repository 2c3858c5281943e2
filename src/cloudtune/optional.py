"""Optional protocols of a back end besides `cloudtune.backend.Backend`, one for each ability.

A back end implements only the protocols that it supports. `Capabilities.reasons` has the reasons for the others; no
method exists only to raise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path  # noqa: TC003
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import msgspec

from cloudtune.errors import InputError, Problem
from cloudtune.plan import Plan, Resolved
from cloudtune.prompts import Passage, ToolPrompt
from cloudtune.state import Deployment, Generation, JobRef, JobSnapshot, Likelihood, Prediction, TunedModel, Value

if TYPE_CHECKING:
    from datetime import date

    from cloudtune.backend import Backend, Capabilities
    from cloudtune.catalog.document import Catalog
    from cloudtune.cost import AnswerPrice, CostEstimate, Usage
    from cloudtune.data.checks.targets import Target
    from cloudtune.data.row_rules import VendorRule
    from cloudtune.plan import PlanRequest
    from cloudtune.spec import JobSpec


@runtime_checkable
class BatchStatus(Protocol):
    """A back end that can read many jobs in few calls."""

    def get_many(self, refs: Sequence[JobRef]) -> Mapping[JobRef, JobSnapshot]:
        """Return the requested jobs that exist."""


@runtime_checkable
class PerJobCapabilities(Protocol):
    """A back end whose capabilities depend on the job."""

    def capabilities_of(self, ref: JobRef) -> Capabilities:
        """Return the capabilities of that job; only its verbs are used. No I/O."""


def capabilities_of(backend: Backend, ref: JobRef) -> Capabilities:
    """Return the capabilities that apply to that job."""
    return backend.capabilities_of(ref) if isinstance(backend, PerJobCapabilities) else backend.capabilities


@runtime_checkable
class HoldsSecrets(Protocol):
    """A back end whose secrets are not in its settings, but come from an SDK's credential chain."""

    def secrets(self) -> Iterable[str]:
        """Return the secret values that are loaded. Core masks them in everything it stores. No I/O."""


@runtime_checkable
class Closeable(Protocol):
    """A back end that keeps connections open, such as those of an SDK's client."""

    def close(self) -> None:
        """Close the connections. May be called again; a call after it opens new ones.

        No other call may be running, and no stream may be half read.
        """


@runtime_checkable
class DataRules(Protocol):
    """A back end with rules for rows: the format of each method, and limits."""

    @classmethod
    def target_for(cls, model: str | None, method: str | None = None) -> Target:
        """The rules for a base model when every setting has its default: what ``data check --for`` uses. No I/O."""

    def data_target(self, spec: JobSpec) -> Target | None:
        """The rules for a job under this back end's settings; None = no rules. No I/O."""


@runtime_checkable
class RowRules(Protocol):
    """A back end with rules of its own for rows and datasets, besides those of the formats."""

    @classmethod
    def row_rules(cls, model: str | None, method: str | None) -> Sequence[VendorRule]:
        """The rules for a base model and a method. They apply where `Target.rules_of` names them. No I/O."""


class GenerateOptions(Value, frozen=True, kw_only=True):
    """Sampling options."""

    max_tokens: int = 128
    temperature: float = 0.0
    """0 always picks the most likely token."""
    top_p: float = 1.0
    seed: int | None = None
    base: bool = False
    """Use the base model instead of the tuned one, to compare."""
    stream: bool = False
    """Yield parts of each answer as they arrive (``Generation.partial``), then the whole, if supported."""


Prompt = str | Sequence[Mapping[str, Any]] | ToolPrompt
"""A user message, a list of ``{"role": ..., "content": ...}`` messages, or a conversation with tools."""


GENERATION_RANGES: dict[str, tuple[float, float]] = {
    "max_tokens": (1, 1_000_000),
    "temperature": (0.001, 100.0),
    "top_p": (1e-6, 1.0),
    "seed": (0, 2**32 - 1),
}
"""Smallest and largest values of `GenerateOptions`. ``temperature`` can also be 0. Vendors can be stricter."""
_WHOLE_NUMBERS = ("max_tokens", "seed")


def check_generation(prompts: Sequence[Prompt], options: GenerateOptions) -> None:
    """Check the prompts and options of `Generator.generate`. Raises InputError with all problems."""
    found = [problem for number, prompt in enumerate(prompts, 1) if (problem := _of_prompt(number, prompt))]
    for name, (low, high) in GENERATION_RANGES.items():
        value = getattr(options, name)
        kinds = int if name in _WHOLE_NUMBERS else (int, float)
        is_number = isinstance(value, kinds) and not isinstance(value, bool)
        if value is None or (is_number and (low <= value <= high or (name == "temperature" and value == 0))):
            continue
        also = "0 or " if name == "temperature" else ""
        message = f"must be {also}from {low:,} to {high:,}, not {value!r}"
        found.append(Problem(code="range", field=name, message=message))
    if found:
        raise InputError(found)


def _of_prompt(number: int, prompt: Prompt | Input) -> Problem | None:
    if isinstance(prompt, ToolPrompt):
        prompt = prompt.messages
    if not isinstance(prompt, str | Mapping) and not all(isinstance(turn, Mapping) for turn in prompt):
        message = f"prompt {number} is neither a text nor a list of messages"
        return Problem(code="bad_prompt", message=message, fix='a message is {"role": "user", "content": ...}')
    texts = [prompt] if isinstance(prompt, str | Mapping) else [turn.get("content") for turn in prompt]
    if texts in ([], [""], [{}]):
        return Problem(code="empty_prompt", message=f"prompt {number} is empty", fix="enter at least one word")
    try:
        msgspec.json.encode(prompt, enc_hook=str)
    except UnicodeEncodeError as error:
        message = f"prompt {number} is not UTF-8 text: {error.reason} at character {error.start + 1}"
        return Problem(code="not_utf8", message=message, fix="convert it to UTF-8")
    return None


@runtime_checkable
class Generator(Protocol):
    """A back end whose tuned models generate text, deployed or not."""

    def scope(self) -> str:
        """Return the account, region, project or folder in use, and the endpoint if it is not the vendor's own.

        It is the scope of new jobs. The same id of a model in another scope is another model.
        """

    def generate(
        self, model: TunedModel, prompts: Sequence[Prompt], options: GenerateOptions | None = None
    ) -> Iterator[Generation]:
        """Yield the answers in the order of the prompts. With ``options.stream``, yield the parts of an answer first.

        Raises:
            Unavailable: A response was interrupted. Incomplete answers are never yielded as complete.
        """


@runtime_checkable
class ToolCaller(Protocol):
    """A `Generator` that takes `ToolPrompt`. The text of an answer has its tool calls as `with_calls` writes them."""

    def why_no_tools(self, model: TunedModel) -> str:
        """Return why this model cannot be given tools; empty if it can. No I/O."""


@runtime_checkable
class Scorer(Protocol):
    """A back end that gives the probability of texts."""

    def score(self, model: TunedModel, passages: Sequence[Passage], *, base: bool = False) -> Iterator[Likelihood]:
        """Yield the probability of each text, after its prompt, in their order. ``base`` asks the base model."""


Input = str | Mapping[str, Any]
"""What to predict for: a text, or a row without its answer, such as ``{"question": ..., "context": ...}``."""


def check_inputs(inputs: Sequence[Input]) -> None:
    """Check the inputs of `Predictor.predict`. Raises InputError with all problems."""
    found = [problem for number, given in enumerate(inputs, 1) if (problem := _of_prompt(number, given))]
    if found:
        raise InputError(found)


@runtime_checkable
class Predictor(Protocol):
    """A back end whose tuned models also predict labels, tags or answers."""

    def predict(self, model: TunedModel, inputs: Sequence[Input]) -> Iterator[Prediction]:
        """Yield the predictions in the order of the inputs."""


@runtime_checkable
class Host(Protocol):
    """A back end that deploys models. Deployments can end, so core also calls ``find`` for completed steps."""

    def plan_deploy(self, model: TunedModel, **options: Any) -> Plan:
        """Return steps that deploy the model, keyed by model, scope and options. The last outputs ``name``."""

    def plan_remove(self, deployment: Deployment) -> Plan:
        """Return steps that delete the deployment. The plan's ``purpose`` is ``remove``."""

    def deployments(self) -> Iterable[Deployment]:
        """Return the deployments that exist now."""


@runtime_checkable
class Priced(Protocol):
    """A back end whose jobs have a price. `cloudtune.pricing` does the arithmetic."""

    def estimate(self, request: PlanRequest) -> CostEstimate:
        """Return the expected cost of a job. Pure, like ``plan``. What is unknown is named, not counted as zero."""

    def usage(self, job: JobSnapshot) -> Usage:
        """Return what the vendor bills for a job that has ended, from its record. No I/O."""


@runtime_checkable
class PricedAnswers(Protocol):
    """A back end that knows what the answers of its models cost."""

    def answer_price(self, model: TunedModel, *, base: bool = False) -> AnswerPrice | None:
        """Return the prices of a model's answers, or of its base model's. None if they are unknown. No I/O."""


@runtime_checkable
class Pausable(Protocol):
    """A back end whose jobs can be paused."""

    def pause(self, ref: JobRef) -> None:
        """Pause a job. Its training state is saved."""

    def resume(self, ref: JobRef) -> None:
        """Resume a paused job. To continue a job that has ended, core plans a new job with a parent."""


class ModelFile(Value, frozen=True, kw_only=True):
    """One file of a model's folder."""

    name: str
    """Path relative to the folder, with slashes."""
    path: str
    bytes: int
    sha256: str


class InPlace(Value, frozen=True, kw_only=True):
    """A model that the back end can read in place, without a download or upload."""

    at: str
    """The address passed to the import."""
    name: str
    """Default name of the imported model."""
    identity: dict[str, Any]
    """Facts that identify the import: the files with their sizes and versions."""
    facts: dict[str, Any] = {}
    """Facts for ``plan_import``."""
    problems: tuple[Problem, ...] = ()
    """All reasons why the import would be rejected, and warnings."""


class Elsewhere(Value, frozen=True, kw_only=True):
    """A model that cannot be imported in place and must be downloaded first."""

    reason: str
    fix: str
    """What to do if it cannot be downloaded."""


class ImportRequest(Value, frozen=True, kw_only=True):
    """The complete input of ``plan_import``."""

    name: str
    folder: str
    """The local folder. Empty for a model that is imported in place."""
    files: tuple[ModelFile, ...]
    in_place: InPlace | None = None
    resolved: Resolved
    key: str
    """Hash of (name, files, back end, scope), the import's identity."""
    attempt: int
    token: str
    """Hash of (key, attempt), as for a job."""

    @property
    def slug(self) -> str:
        """As `PlanRequest.slug`."""
        return f"{self.name}-{self.token[:10]}"


@runtime_checkable
class Importer(Protocol):
    """A back end that imports models that were trained elsewhere. An import is a separate job."""

    def check_import(self, folder: Path) -> Sequence[Problem]:
        """Return all problems of the model in the folder. Reads only the folder."""

    def resolve_import(self) -> Resolved:
        """As ``resolve``, for an import."""

    def plan_import(self, request: ImportRequest) -> Plan:
        """Return steps that upload the files and create the import job. May read the folder's small files."""


@runtime_checkable
class InPlaceImporter(Protocol):
    """A back end that can import a model in place, by its address."""

    def locate(self, source: str | TunedModel) -> InPlace | Elsewhere:
        """Inspect an address, or the result of a job of another back end. May read from anywhere; writes nothing.

        Raises:
            InputError: The address is not valid.
        """


@runtime_checkable
class Exporter(Protocol):
    """A back end whose trained weights can be exported."""

    def export(self, model: TunedModel, to: Path, *, merged: bool = False) -> Sequence[Path]:
        """Write the adapter, or the merged safetensors, to a folder that does not exist yet."""


class Check(Value, frozen=True, kw_only=True):
    """The result of one preflight check."""

    what: str
    verdict: Literal["good", "warning", "denied", "cannot_verify"]
    """``cannot_verify`` means that permissions do not allow the check. It is not the same as denied."""
    detail: str = ""


@runtime_checkable
class Preflight(Protocol):
    """A back end that can check what a job needs: identity, permissions, models, quotas."""

    def preflight(self, spec: JobSpec | None = None, plan: Plan | None = None) -> Iterator[Check]:
        """Run the checks. Read-only. Failed checks are returned, not raised.

        Args:
            spec: Also check what this job needs.
            plan: The plan of the job, if there is one.
        """


@runtime_checkable
class CatalogReader(Protocol):
    """A back end that can read figures of its catalog from the vendor's own API."""

    def read_catalog(self, on: date) -> Catalog:
        """Return the models, dates and prices that the API has, with ``on`` as the day they were read. Read-only.

        Text from the vendor that is no plausible name is left out. What the API does not have is not in the result.
        """


@runtime_checkable
class SetupDocuments(Protocol):
    """A back end that requires setup at the vendor and can write the documents for it."""

    def documents(self) -> Mapping[str, str]:
        """Return file names and texts for the user to review and apply. Applies nothing."""
