"""Settings of text embedding for cloudtune's own trainer: the loss, the pooling, the temperature and the margin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune.data.records import Contrastive, Similarity
from cloudtune.errors import Problem
from cloudtune.methods import METHODS
from cloudtune_trainer.embedding_spec import CONTRASTIVE, Embedding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.data.records import Record
    from cloudtune.plan import PlanRequest
    from cloudtune.spec import JobSpec
    from cloudtune_trainer.submit.plan import Choices

_LOSSES = {"contrastive": CONTRASTIVE, "similarity": ("cosent", "cosine_similarity")}
"""Kind of rows -> its losses, the default first."""
_USES = {"temperature": ("multiple_negatives_ranking", "cosent"), "margin": ("triplet",)}


def embeds(spec: JobSpec) -> bool:
    """Whether the method learns vectors of texts."""
    return METHODS[spec.method.name].task == "text_embedding"


def terms(request: PlanRequest, choices: Choices) -> dict[str, Any]:
    """The part ``embedding`` of the trainer's spec; nothing for other methods."""
    method = request.spec.method
    if not embeds(request.spec):
        return {}
    kind = request.data.splits["train"].kind
    losses = _LOSSES.get(kind, CONTRASTIVE)
    loss = choices.pick("method.loss", method.loss, losses[0], f"derived: the rows are of the kind {kind}")
    found: dict[str, Any] = {"loss": loss}
    why = "derived: that of the base model's files, else last for decoders and mean for encoders"
    found["pooling"] = choices.pick("method.pooling", method.pooling, "auto", why)
    for name, users in _USES.items():
        if loss in users:
            default = getattr(Embedding, name)
            found[name] = choices.pick(f"method.{name}", getattr(method, name), default)
    return {"embedding": found}


def row_problems(request: PlanRequest) -> Iterator[Problem]:
    """Rows that the loss does not take."""
    if not embeds(request.spec):
        return
    loss, kinds = request.spec.method.loss, {info.kind for info in request.data.splits.values()}
    if len(kinds) > 1:
        message = f"the splits have rows of different kinds: {', '.join(sorted(kinds))}"
        yield Problem(code="mixed_kinds", field="data", message=message, fix="use one kind in all splits")
    kind = request.data.splits["train"].kind
    chosen = loss or _LOSSES.get(kind, CONTRASTIVE)[0]
    if request.spec.hyperparameters.batch_size == 1 and chosen in _USES["temperature"]:
        yield Problem(
            code="nothing_to_compare", field="hyperparameters.batch_size", fix="use at least 2",
            severity="error" if chosen == "cosent" else "warning",  # rows can have negatives of their own
            message=f"{chosen} compares the rows of a step, and a step has one row",
        )  # fmt: skip
    for kind in sorted(kinds & _LOSSES.keys()):
        if loss is not None and loss not in _LOSSES[kind]:
            fix = f"use {' or '.join(_LOSSES[kind])}"
            message = f"{loss} does not take rows of the kind {kind}"
            yield Problem(code="wrong_loss", field="method.loss", message=message, fix=fix)


class LossCheck:
    """Returns the problems of a record with a loss."""

    def __init__(self, loss: str) -> None:
        self._loss = loss

    def __call__(self, record: Record) -> list[Problem]:
        """The problems of one record, without its line number."""
        if self._loss == "triplet" and isinstance(record, Contrastive) and not record.negatives:
            message = "the row has no negatives, which the loss triplet compares with"
            fix = "add them, or use the loss multiple_negatives_ranking"
            return [Problem(code="no_negatives", field="negatives", message=message, fix=fix)]
        if self._loss == "cosine_similarity" and isinstance(record, Similarity) and not -1 <= record.score <= 1:
            message = f"the score {record.score:g} is no cosine: it is not from -1 to 1"
            fix = "divide the scores by the highest one, or use the loss cosent"
            return [Problem(code="score", field="score", message=message, fix=fix)]
        return []


def misused(spec: JobSpec) -> Iterator[Problem]:
    """Settings without effect."""
    method = spec.method
    if not embeds(spec):
        for name in ("loss", "pooling", "margin"):
            if getattr(method, name) is not None:
                message = f"{method.name} does not learn vectors of texts"
                yield Problem(code="no_effect", field=f"method.{name}", message=message, fix="remove it")
        return
    for name, users in _USES.items():
        loss = method.loss or CONTRASTIVE[0]  # the default of other rows uses the same settings
        if getattr(method, name) is not None and loss not in users:
            shown = "default loss" if method.loss is None else f"loss {loss}"
            message, fix = f"the {shown} does not use it", f"remove it, or set method.loss to {' or '.join(users)}"
            yield Problem(code="no_effect", field=f"method.{name}", message=message, fix=fix)
