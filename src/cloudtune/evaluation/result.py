"""What to evaluate and what an evaluation found, and where the last evaluation of each job is stored."""

from __future__ import annotations

import os
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec

from cloudtune.errors import LedgerError
from cloudtune.evaluation.compare import Comparison, ModelScores
from cloudtune.evaluation.contamination import Overlap
from cloudtune.evaluation.judged import Judged
from cloudtune.evaluation.metrics import Task
from cloudtune.files.private_files import private_folder, write_private
from cloudtune.files.regular_file import open_regular
from cloudtune.ledger.evaluations import evaluation_file
from cloudtune.state import Value, to_json

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtune.ledger.ledger import Ledger
    from cloudtune.state import JobRef


class JudgeOptions(Value, frozen=True, kw_only=True):
    """A model that judges answers."""

    model: str
    """As `Client.evaluate` takes it."""
    rubric: str | None = None
    """The file with what a good answer has. Without it, the judge compares each answer with the base model's."""
    human_labels: str | None = None
    """The file with labels of people, with which the judge is checked and its rates are corrected."""


class EvaluateOptions(Value, frozen=True, kw_only=True):
    """What to ask and to compare."""

    metrics: tuple[str, ...] = ()
    """Names of metrics, the deciding one first. Default: those of the rows' task."""
    baselines: bool = True
    """Compare with the base model, and with the most frequent label or a copy of the source."""
    few_shot: int = 0
    """Also compare with the base model after this many training rows as examples."""
    max_rows: int | None = None
    """Use at most this many rows, chosen by content and ``seed``."""
    max_tokens: int | None = None
    """Limit of each answer. Default: half the characters of the longest expected answer, from 16 to 1,024."""
    group: str | None = None
    """The field of the test rows that names their source: rows with one source are resampled together.

    Default: the prompt."""
    seed: int = 0
    """Of resampling, and of the choice of rows and examples."""
    max_cost_usd: float | None = None
    """Ask nothing if the answers may cost more, or if their price is unknown."""
    judge: JudgeOptions | None = None
    """Also let a model judge the answers."""
    parallel: int = 8
    """Most prompts that a vendor is asked at a time. It is halved when the vendor throttles."""


class Usage(Value, frozen=True, kw_only=True):
    """The tokens of all answers of a model, as far as its back end counts them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = None
    """What they cost. None if the price is unknown, if some answers have no tokens, or if no service bills them."""


class Evaluation(Value, frozen=True, kw_only=True):
    """Models compared on held-out rows."""

    ref: str = ""
    """The job, or ``backend=id`` of the evaluated model."""
    data: tuple[str, ...] = ()
    """The files of the rows."""
    against: tuple[str, ...] = ()
    """The other models, as `Client.evaluate` takes them."""
    from_spec: bool = False
    """The spec of the job decided about rows, models and options."""
    made_at: datetime | None = None
    options: EvaluateOptions = EvaluateOptions()
    rows: int
    groups: int
    """Groups of rows that are resampled together."""
    kind: str
    task: Task
    metrics: tuple[str, ...]
    """The verdict is about the first one."""
    models: tuple[ModelScores, ...]
    """The evaluated model first."""
    comparisons: tuple[Comparison, ...]
    verdict: str
    """The comparisons in words, one per line."""
    overlap: Overlap
    """Test rows that are also training rows."""
    notes: tuple[str, ...] = ()
    """What limits the result: cut answers, few groups, baselines that do not apply."""
    confusion: dict[str, Any] | None = None
    """For labels: ``labels``, and ``counts`` of the evaluated model's answers by expected label, other answers last."""
    answers: tuple[dict[str, Any], ...] = ()
    """Each row: ``file``, ``line``, ``group`` (a number, equal for rows that are resampled together), ``prompt``,
    ``expected``, and by model ``answers``, and ``tokens`` of prompt and answer if they are known."""
    usage: dict[str, Usage] = {}
    """By model. Stored answers are included."""
    judged: Judged | None = None
    """What the judge model found."""
    guard: Evaluation | None = None
    """The same on general rows: what tuning has cost. Its models are the tuned one and the base model."""


def save(ledger: Ledger, ref: JobRef, found: Evaluation) -> Path:
    """Store the evaluation as the job's last one, with mode 0600, and return the file: JSON as the CLI prints it."""
    path = evaluation_file(ledger, ref)
    part = path.with_suffix(f".{uuid4().hex}.part")
    try:
        private_folder(path.parent)
        write_private(part, msgspec.json.encode(to_json(found)))
        os.replace(part, path)
    except OSError as error:
        raise LedgerError(f"cannot write {path}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    return path


def load(ledger: Ledger, ref: JobRef) -> Evaluation | None:
    """The last evaluation of the job that this machine has stored. None if there is none.

    Raises:
        LedgerError: The file cannot be read or is damaged.
    """
    path = evaluation_file(ledger, ref)
    try:
        with open_regular(path) as file:
            return msgspec.json.decode(file.read(), type=Evaluation)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LedgerError(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        hint = "evaluate the job again; no model is asked again"
        raise LedgerError(f"the evaluation in {path} is damaged: {error}", hint=hint) from error


def summary(found: Evaluation) -> dict[str, Any]:
    """The evaluation as plain JSON without the rows and their answers."""
    shown: dict[str, Any] = to_json(msgspec.structs.replace(found, answers=()))
    shown.pop("answers")
    if shown["guard"] is not None:
        shown["guard"].pop("answers")
    return shown
