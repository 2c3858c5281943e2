"""Base models and tokenizers from a folder, a GGUF file, the hub or a configuration; and the adapter on top.

Loads torch and transformers; peft only where an adapter is asked for.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cloudtune_trainer.adapter_targets import Targets, choose_targets, report_coverage
from cloudtune_trainer.adapters import ADAPTERS
from cloudtune_trainer.checkpoints import ADAPTER, MODEL
from cloudtune_trainer.gguf_cache import dequantised
from cloudtune_trainer.heads import Head, auto_model, renamed_weights
from cloudtune_trainer.merging import adapted_shared_layers, remove_adapter_layers
from cloudtune_trainer.model_folder import check_model_folder, publish
from cloudtune_trainer.problems import TrainingProblem, recognized
from cloudtune_trainer.records import texts_of
from cloudtune_trainer.rendering import set_plain_template
from cloudtune_trainer.template_sandbox import BoundedSandbox
from cloudtune_trainer.tiny import write_model_from_config
from cloudtune_trainer.weights import check_adapter_weights, load_checked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cloudtune_trainer.checkpoints import Saved
    from cloudtune_trainer.records import Record
    from cloudtune_trainer.reporting import Report
    from cloudtune_trainer.run_spec import Adapter, ModelSource, RunSpec

_DROPOUTS = (
    "attention_dropout", "attn_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop", "hidden_dropout", "resid_dropout",
    "embedding_dropout", "embed_dropout", "dropout", "activation_dropout", "attention_probs_dropout_prob",
    "hidden_dropout_prob", "residual_dropout", "dropout_rate", "classifier_dropout", "seq_classif_dropout",
    "qa_dropout",
)  # fmt: skip
"""The names of dropout settings in transformers' configurations."""


_TOLD = 500
"""Characters of a library's own message that are shown."""


@dataclass(frozen=True)
class BaseModel:
    """A base model that transformers can load: a folder, or the hub's id."""

    path: str
    revision: str | None = None
    trust_remote_code: bool = False

    @property
    def loading(self) -> dict[str, Any]:
        """The arguments of every ``from_pretrained``."""
        return {"revision": self.revision or "main", "trust_remote_code": self.trust_remote_code}


def locate(
    source: ModelSource,
    *,
    scratch: Path,
    records: Callable[[], Iterable[Record]] = tuple,
    seed: int = 0,
    trust_remote_code: bool = False,
) -> BaseModel:
    """Prepare the base model for loading. Raises ``model_not_found``.

    A GGUF file is dequantized once, into a folder beside it; a configuration is built into ``scratch``, with a
    tokenizer trained on ``records``.
    """
    path = Path(source.path)
    if source.source == "hub":
        return BaseModel(source.path, source.revision, trust_remote_code)
    if source.source == "folder":
        if not (path / "config.json").is_file():
            what = "has no config.json" if path.is_dir() else "is not a folder"
            raise TrainingProblem("model_not_found", f"{path} {what}", "Use a model folder in the transformers layout.")
        return BaseModel(str(path), None, trust_remote_code)
    if not path.is_file():
        raise TrainingProblem("model_not_found", f"{path} does not exist", "Check the path of the model.")
    if source.source == "gguf":
        return BaseModel(str(dequantised(path)))
    group = torch.distributed.is_available() and torch.distributed.is_initialized()
    # in a group only the first process writes: in the others transformers skips the weights
    if not (group and torch.distributed.get_rank()) and not (scratch / "config.json").is_file():
        _build(path, scratch, records, seed)
    if group:
        torch.distributed.barrier()
    return BaseModel(str(scratch))


def _build(path: Path, folder: Path, records: Callable[[], Iterable[Record]], seed: int) -> None:
    """Build a configuration's model in a temporary folder; if another process does so too, the first result is used."""
    aside = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    try:
        write_model_from_config(path, aside, vocab_texts=texts_of(records()), seed=seed)
        publish(aside, folder)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise TrainingProblem("bad_spec", f"{path}: {error}", "Fix the model's configuration.") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def found(base: BaseModel) -> Iterator[None]:
    """Convert the errors of reading a model, with a hint: the hub's errors are long and varied."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # an error of the disk or of permissions is reported unchanged
            raise
        raise TrainingProblem(
            "model_not_found",
            f"{base.path}: {str(error).splitlines()[0]}",
            "Without access to the hub, use a folder: download the model on a machine with access "
            f"(hf download {base.path} --local-dir DIR) and set model to that folder.",
        ) from error
    except (TrainingProblem, MemoryError, ImportError):
        raise
    except BaseException as error:  # the libraries raise any exception for malicious files
        is_panic = type(error).__name__ == "PanicException"  # the tokenizers package's panic is not an Exception
        if not (isinstance(error, Exception) or is_panic) or recognized(error) is not None:
            raise
        text = " ".join(str(error).split())[:_TOLD]
        hint = "Download the model again."
        if "trust_remote_code" in text:
            hint = "The model requires its own code: set trust_remote_code to run it, if you trust its authors."
        if type(error).__name__ == "SafetensorError":
            text = f"the weights are damaged: {text}"
        if isinstance(error, pickle.UnpicklingError):
            text, hint = "the weights are a pickle with more than tensors", "Use a model with safetensors."
        raise TrainingProblem("model_not_found", f"cannot load {base.path}: {text}", hint) from error


def load_tokenizer(base: BaseModel) -> Any:
    """The model's tokenizer, always with a chat template."""
    from transformers import AutoTokenizer
    from transformers.utils import chat_template_utils

    chat_template_utils.ImmutableSandboxedEnvironment = BoundedSandbox  # transformers compiles templates with it
    with found(base):
        check_model_folder(Path(base.path))
        tokenizer = AutoTokenizer.from_pretrained(base.path, **base.loading)
    set_plain_template(tokenizer)
    return tokenizer


def load_model(
    base: BaseModel, *, dtype: torch.dtype, weights: Path | None = None, dropout: float | None = None,
    head: Head | None = None, new_head: set[str] | None = None,
) -> Any:  # fmt: skip
    """The model, on the CPU: a causal LM, or a model with that head. All its weights come from the files.

    ``weights`` is a folder with weights to load instead, e.g. a checkpoint. With ``new_head`` the model's head may
    start from random values; the names of its weights that do are added to the set.
    """
    from transformers import AutoConfig

    with found(base):
        _check_folder(base.path if weights is None else str(weights))
        config = AutoConfig.from_pretrained(base.path, **base.loading)
        _check_kernels(base, config)
        auto = auto_model(config, head, own_code=base.trust_remote_code)
        if dropout is not None:
            _set_dropout(config, dropout)
        if head is not None:
            head.write_to(config)
        of_checkpoint = {"trust_remote_code": base.trust_remote_code, "use_safetensors": True}
        place = base.loading if weights is None else of_checkpoint
        source = base.path if weights is None else str(weights)
        renamed = renamed_weights(config, head) if weights is None else {}
        network = load_checked(
            auto, source, new_head=new_head, config=config, dtype=dtype, key_mapping=renamed, **place
        )
        if renamed:
            network._weight_conversions = network._weight_conversions[len(renamed) :]  # saving would reverse them
        return network


def _check_folder(path: str) -> None:
    """Refuse an adapter as base model: transformers would load the model that the adapter names."""
    check_model_folder(Path(path))
    if (Path(path) / "adapter_config.json").is_file():
        raise TrainingProblem(
            "model_not_found", f"{path} contains an adapter, not a model", "Use the folder of a complete model."
        )


def _check_kernels(base: BaseModel, config: Any) -> None:
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


def _set_dropout(config: Any, dropout: float) -> None:
    names = [name for name in _DROPOUTS if isinstance(getattr(config, name, None), int | float)]
    if not names and dropout > 0:
        raise TrainingProblem(
            "bad_spec",
            f"a {config.model_type} model has no dropout setting",
            "Remove hyperparameters.dropout, or use adapter.dropout.",
        )
    for name in names:
        setattr(config, name, dropout)


def add_adapter(
    model: Any, adapter: Adapter, base: BaseModel, task_type: str, report: Report | None = None
) -> Any:  # fmt: skip
    """The peft model around the base model, whose weights are frozen. Its coverage is sent to ``report``.

    Raises:
        TrainingProblem: ``bad_spec``, for targets that the model does not have or that peft cannot change.

    """
    from peft import get_peft_model

    kind = ADAPTERS[adapter.type]
    assert kind.config is not None
    has_targets = "targets" in kind.settings
    by_default = has_targets and adapter.targets == "all-linear"
    targets = choose_targets(model, dropout=adapter.dropout) if by_default else Targets()
    chosen: dict[str, Any] = {}
    if by_default:
        chosen = {"target_modules": targets.modules, "target_parameters": targets.parameters or None}
    config = kind.config(adapter, task_type=task_type, base_model_name_or_path=base.path, **chosen)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`")  # merging would untie them
            tuned = get_peft_model(model, config)
    except ValueError as error:
        remove_adapter_layers(model)  # of targets that peft found before the refused one
        possible = choose_targets(model, dropout=adapter.dropout).modules if has_targets else ()
        hint = f"Targets that this model has: {', '.join(possible)}; or use all-linear."
        raise TrainingProblem("bad_spec", f"adapter.targets: {error}", hint) from error
    if report is not None and has_targets:
        report_coverage(report, tuned, targets.skipped)
        ends = (tuned.get_input_embeddings(), tuned.get_output_embeddings())
        if any(layer in ends for layer in adapted_shared_layers(tuned)):
            text = "the embeddings and the output layer share a weight that the adapter changes in one of them"
            report.warning(f"{text}: a merged export stores both and is larger")
    return tuned


def make_trainable(
    model: Any, spec: RunSpec, base: BaseModel, start: Saved | None, task_type: str = "CAUSAL_LM",
    report: Report | None = None,
) -> Any:  # fmt: skip
    """Select the trained weights. Returns the trained model: the model itself, or the peft model around it."""
    if spec.hyperparameters.gradient_checkpointing:
        # transformers 5 renamed the argument; the values are the same
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    if spec.adapter.type == "full":
        model.requires_grad_(True)
        return model
    torch.manual_seed(spec.seed)  # the same initial adapter, however the base was loaded
    tuned = add_adapter(model, spec.adapter, base, task_type, report)
    if start is not None:
        restore_weights(start.weights, tuned, adapted=True)
    return tuned


def save_weights(folder: Path, model: Any, *, adapted: bool) -> None:
    """Write the trained weights to a checkpoint's folder: the adapter's, or the whole model's."""
    if adapted:
        model.save_pretrained(folder / ADAPTER, save_embedding_layers=False)
    else:
        model.save_pretrained(folder / MODEL)


def restore_weights(folder: Path, model: Any, *, adapted: bool) -> None:
    """Restore the weights that `save_weights` wrote, bit for bit."""
    from safetensors.torch import load_file

    if adapted:
        from peft import set_peft_model_state_dict

        check_adapter_weights(model, folder)
        set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))
        return
    _check_folder(str(folder))
    kept = load_checked(type(model), str(folder), config=model.config, dtype=model.dtype, use_safetensors=True)
    model.load_state_dict(kept.state_dict())
