"""Settings in a base model's configuration: its dropout, and compiled code that it may name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune_trainer.problems import TrainingProblem

if TYPE_CHECKING:
    from cloudtune_trainer.models import BaseModel

_DROPOUTS = (
    "attention_dropout", "attn_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop", "hidden_dropout", "resid_dropout",
    "embedding_dropout", "embed_dropout", "dropout", "activation_dropout", "attention_probs_dropout_prob",
    "hidden_dropout_prob", "residual_dropout", "dropout_rate", "classifier_dropout", "seq_classif_dropout",
    "qa_dropout",
)  # fmt: skip
"""The names of dropout settings in transformers' configurations."""


def check_kernels(base: BaseModel, config: Any) -> None:
    """Refuse a configuration that names compiled code on the hub: transformers would fetch and load it."""
    if base.trust_remote_code:
        return
    parts = [config, *(part for part in vars(config).values() if hasattr(part, "_attn_implementation"))]
    for name in ("attn_implementation", "experts_implementation"):
        for kernel in [getattr(part, f"_{name}", None) for part in parts]:
            if isinstance(kernel, str) and "/" in kernel:
                raise TrainingProblem(
                    "model_not_found",
                    f"{base.path}: config.json requests compiled code from the hub, {name} {kernel[:100]!a}",
                    f"Remove {name} from config.json, or use trust_remote_code if you trust its authors.",
                )


def set_dropout(config: Any, dropout: float) -> None:
    """Set every dropout of the model. Raises ``bad_spec`` for a model without one."""
    names = [name for name in _DROPOUTS if isinstance(getattr(config, name, None), int | float)]
    if not names and dropout > 0:
        raise TrainingProblem(
            "bad_spec",
            f"a {config.model_type} model has no dropout setting",
            "Remove hyperparameters.dropout, or use adapter.dropout.",
        )
    for name in names:
        setattr(config, name, dropout)
