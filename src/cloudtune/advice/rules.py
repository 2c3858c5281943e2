"""The decision rules and the comparison table, as data. `cloudtune.advice.advise` applies them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from cloudtune.advice.situation import Situation

Approach = Literal["prompting", "rag", "fine_tuning", "continued_pretraining", "from_scratch"]
Effect = Literal["use", "avoid"]

NAMES: dict[str, str] = {
    "prompting": "prompting", "rag": "RAG", "fine_tuning": "fine-tuning",
    "continued_pretraining": "continued pre-training", "from_scratch": "training from scratch",
}  # fmt: skip

FINE_TUNING_USD = 50.0
"""A LoRA run on a few thousand rows costs this much at most vendors. A rule of thumb, like the two below."""
CONTINUED_PRETRAINING_USD = 10_000.0
FROM_SCRATCH_USD = 1_000_000.0

_FEW = ("none", "tens")
_SOME = ("hundreds",)
_MANY = ("thousands", "millions")
_MILLIONS = ("millions",)
_CHANGING = ("monthly", "daily")
_LASTING = ("never", "yearly")


class Rule(NamedTuple):
    """A condition on the situation, and what follows from it. A field that is None is not checked."""

    approach: Approach
    effect: Effect
    reason: str
    change: tuple[str, ...] | None = None
    """One of these must change."""
    without: tuple[str, ...] = ()
    """None of these must change."""
    updates: tuple[str, ...] | None = None
    rows: tuple[str, ...] | None = None
    texts: tuple[str, ...] | None = None
    usd_from: float = 0.0
    usd_below: float = math.inf
    cite_sources: bool | None = None
    low_latency: bool | None = None

    def holds(self, of: Situation) -> bool:
        """Whether the condition is met."""
        return (
            (self.change is None or any(one in self.change for one in of.change))
            and not any(one in self.without for one in of.change)
            and all(allowed is None or value in allowed for allowed, value in (
                (self.updates, of.updates), (self.rows, of.rows), (self.texts, of.texts),
            ))
            and self.usd_from <= of.budget_usd < self.usd_below
            and self.cite_sources in (None, of.cite_sources)
            and self.low_latency in (None, of.low_latency)
        )  # fmt: skip


RULES: tuple[Rule, ...] = (
    # Retrieval: information that changes, that must be cited, or that is only in documents.
    Rule("rag", "use", "The information changes often. An index is updated in minutes, a trained model only by "
         "training again.", updates=_CHANGING),
    Rule("rag", "use", "Only retrieved texts can be shown as the sources of an answer.", cite_sources=True),
    Rule("rag", "use", "Retrieval adds the knowledge in your texts without training.",
         change=("knowledge",), updates=_LASTING, texts=("tens", "hundreds", "thousands")),
    Rule("rag", "use", "Retrieval adds the knowledge in your texts; the budget is too small to train on all of them.",
         change=("knowledge",), updates=_LASTING, texts=_MILLIONS, usd_below=CONTINUED_PRETRAINING_USD),
    Rule("rag", "avoid", "There are no texts to retrieve, and the information does not change often.",
         updates=_LASTING, texts=("none",), cite_sources=False),
    # Fine-tuning: labeled rows decide.
    Rule("fine_tuning", "use", "Thousands of labeled rows teach a model your style and task.",
         rows=_MANY, usd_from=FINE_TUNING_USD),
    Rule("fine_tuning", "use", "Hundreds of labeled rows are enough to teach style or a narrow task with a small "
         "adapter (LoRA).", change=("style", "task"), rows=_SOME, usd_from=FINE_TUNING_USD),
    Rule("fine_tuning", "use", "A small tuned model needs no long prompt, so it answers faster and at a lower price.",
         rows=_SOME, usd_from=FINE_TUNING_USD, low_latency=True),
    Rule("fine_tuning", "avoid", "There are too few labeled rows: they fit into a prompt, and a model that is trained "
         "on them memorizes them.", rows=_FEW),
    Rule("fine_tuning", "avoid", f"The budget is below ${FINE_TUNING_USD:,.0f}, which pays for no run and no second "
         "try.", rows=(*_SOME, *_MANY), usd_below=FINE_TUNING_USD),
    # More pre-training: millions of texts and a large budget decide.
    Rule("continued_pretraining", "use", "Millions of texts of the domain and a large budget: the model learns the "
         "domain's terms, facts and style.", change=("style", "knowledge"), without=("language",), texts=_MILLIONS,
         usd_from=CONTINUED_PRETRAINING_USD),
    Rule("continued_pretraining", "use", "Millions of texts teach a base model a new language, at a small part of the "
         "price of training from scratch.", change=("language",), texts=_MILLIONS, usd_from=CONTINUED_PRETRAINING_USD,
         usd_below=FROM_SCRATCH_USD),
    Rule("continued_pretraining", "avoid", "It requires millions of texts of the domain.",
         texts=("none", "tens", "hundreds", "thousands")),
    Rule("continued_pretraining", "avoid", f"The budget is below ${CONTINUED_PRETRAINING_USD:,.0f}.", texts=_MILLIONS,
         usd_below=CONTINUED_PRETRAINING_USD),
    Rule("from_scratch", "use", "No base model knows the language, and there are millions of texts and a very large "
         "budget. Compare with continued pre-training first.", change=("language",), texts=_MILLIONS,
         usd_from=FROM_SCRATCH_USD),
    Rule("from_scratch", "avoid", "Existing base models know the language: start from one of them.",
         without=("language",)),
    Rule("from_scratch", "avoid", "It requires millions of texts.", change=("language",),
         texts=("none", "tens", "hundreds", "thousands")),
    Rule("from_scratch", "avoid", f"The budget is below ${FROM_SCRATCH_USD:,.0f}.", change=("language",),
         texts=_MILLIONS, usd_below=FROM_SCRATCH_USD),
)  # fmt: skip

PROMPTING = "Nothing in the situation requires more than a prompt with instructions and examples."
PROMPTING_ONLY = "The rows and the budget allow no training: put instructions and the best rows into the prompt."

CRITERIA = ("cost", "time", "data", "infrastructure", "updating", "transparency", "specialization", "maintenance")
COMPARISON: dict[tuple[Approach, ...], tuple[str, ...]] = {
    ("prompting",): (
        "long prompts in every request", "hours", "a few examples", "none", "edit the prompt",
        "the prompt can be read", "low", "new tests for each model version",
    ),
    ("rag",): (
        "index and retrieved text in every request", "days to weeks", "documents", "search index", "add documents",
        "answers cite sources", "medium: knowledge, not style", "keep the index and the search good",
    ),
    ("fine_tuning",): (
        "$10 to $10,000 per run, then hosting", "hours to days", "hundreds of labeled rows or more",
        "GPU or a vendor's service", "train again", "low: no sources", "high: style and task",
        "new rows, new runs, end dates of models",
    ),
    ("continued_pretraining",): (
        "$10,000 or more, then hosting", "days to weeks", "millions of texts", "several GPUs", "train again",
        "low: no sources", "high: terms and facts of the domain", "repeat for each base model",
    ),
    ("from_scratch",): (
        "$1,000,000 or more, then hosting", "months", "all texts there are", "a GPU cluster", "train again",
        "training data is known", "highest", "a team",
    ),
    ("rag", "fine_tuning"): (
        "both", "weeks", "documents and labeled rows", "search index and GPU or service",
        "documents at once, style by training", "answers cite sources", "high: style with current facts",
        "both parts, tested together",
    ),
    ("fine_tuning", "continued_pretraining"): (
        "$10,000 or more, then hosting", "weeks", "millions of texts and labeled rows", "several GPUs", "train again",
        "low: no sources", "highest without training from scratch", "repeat both for each base model",
    ),
}  # fmt: skip
"""Approaches and combinations, with a text for each of `CRITERIA`."""
