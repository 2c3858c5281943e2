"""Base models and tokenizers from a folder, a GGUF file, the hub or a configuration; and the adapter on top.

Loads torch and transformers; peft only where an adapter is asked for.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from cloudtune_trainer.adapter_conversion import initial_factors
from cloudtune_trainer.adapter_targets import Targets, choose_targets, report_coverage
from cloudtune_trainer.adapters import ADAPTERS, MOVES_BASE, is_whole_model
from cloudtune_trainer.bottleneck import (
    PEFT_TYPE,
    add_bottlenecks,
    load_bottlenecks,
    restore_bottlenecks,
    save_bottlenecks,
)
from cloudtune_trainer.checkpoints import ADAPTER, MODEL
from cloudtune_trainer.fingerprint import check_same_base, fingerprint
from cloudtune_trainer.gguf_cache import dequantised
from cloudtune_trainer.heads import Head, auto_model, ends_of, renamed_weights
from cloudtune_trainer.layer_schedule import levels_of
from cloudtune_trainer.merging import adapted_shared_layers, remove_adapter_layers
from cloudtune_trainer.model_config import check_kernels, set_dropout
from cloudtune_trainer.model_folder import check_model_folder, publish
from cloudtune_trainer.problems import TrainingProblem, recognized
from cloudtune_trainer.quantization import quantize
from cloudtune_trainer.records import texts_of
from cloudtune_trainer.rendering import set_plain_template
from cloudtune_trainer.template_sandbox import BoundedSandbox
from cloudtune_trainer.tiny import write_model_from_config
from cloudtune_trainer.tuned import ADAPTER_CONFIG, ADAPTER_WEIGHTS, TUNED, check_adapter, read_object, read_tuned
from cloudtune_trainer.weights import check_adapter_weights, head_weights, load_checked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cloudtune_trainer.checkpoints import Saved
    from cloudtune_trainer.records import Record
    from cloudtune_trainer.reporting import Report
    from cloudtune_trainer.run_spec import ModelSource, RunSpec
    from cloudtune_trainer.spec_trained import Adapter

_ENCODER = "prompt_encoder.safetensors"
"""In a checkpoint: the weights from which p-tuning computes the adapter."""
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
        check_kernels(base, config)
        auto = auto_model(config, head, own_code=base.trust_remote_code)
        if dropout is not None:
            set_dropout(config, dropout)
            if head is not None and head.task == "token_classification":
                config.classifier_dropout = dropout  # a decoder's head has 0.1 without this setting
        if head is not None:
            head.write_to(config)
        of_checkpoint = {"trust_remote_code": base.trust_remote_code, "use_safetensors": True}
        place = base.loading if weights is None else of_checkpoint
        source = base.path if weights is None else str(weights)
        if head is not None and head.bare and new_head is None:
            new_head = set()  # the files may have a head, which is not loaded
        renamed = renamed_weights(config, head) if weights is None else {}
        network = load_checked(
            auto,
            source,
            new_head=new_head,
            config=config,
            dtype=dtype,
            key_mapping=renamed,
            **place,
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


def add_adapter(
    model: Any, adapter: Adapter, base: BaseModel, task_type: str | None, report: Report | None = None
) -> Any:  # fmt: skip
    """The peft model around the base model, whose weights are frozen. Its coverage is sent to ``report``.

    Raises:
        TrainingProblem: ``bad_spec``, for targets that the model does not have or that peft cannot change.

    """
    from peft import get_peft_model

    kind = ADAPTERS[adapter.type]
    if adapter.path is not None:
        return _given_adapter(model, adapter, task_type)
    if kind.config is None:
        assert task_type is not None, "bottlenecks are for language models"
        return add_bottlenecks(model, adapter, task_type)
    has_targets = "targets" in kind.settings
    by_default = has_targets and adapter.targets == "all-linear"
    targets = choose_targets(model, not_stacked=_against_stacked(adapter)) if by_default else Targets()
    if kind.quantized:
        quantize(model)
    if task_type is None and "modules_to_save" in kind.options:  # peft adds the heads of its own task types
        heads = dict.fromkeys(name.rpartition(".")[0] for name in head_weights(model))
        adapter = replace(adapter, modules_to_save=(*adapter.modules_to_save, *heads))
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
        possible = choose_targets(model, not_stacked=_against_stacked(adapter)).modules if has_targets else ()
        hint = f"Targets that this model has: {', '.join(possible)}; or use all-linear."
        raise TrainingProblem("bad_spec", f"adapter: {error}", hint) from error
    if adapter.init in MOVES_BASE:
        tuned.initial_factors = initial_factors(tuned)
    elif adapter.init != "default":
        config.init_lora_weights = True  # it affects new adapters only
    if report is not None and has_targets:
        report_coverage(report, tuned, targets.skipped)
        ends = ends_of(tuned)
        if any(layer in ends for layer in adapted_shared_layers(tuned)):
            text = "the embeddings and the output layer share a weight that the adapter changes in one of them"
            report.warning(f"{text}: a merged export stores both and is larger")
    return tuned


def make_trainable(
    model: Any, spec: RunSpec, base: BaseModel, start: Saved | None, task_type: str | None = "CAUSAL_LM",
    report: Report | None = None,
) -> Any:  # fmt: skip
    """Select the trained weights. Returns the trained model: the model itself, or the peft model around it."""
    if spec.hyperparameters.gradient_checkpointing:
        # transformers 5 renamed the argument; the values are the same
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    if is_whole_model(spec.adapter.type):
        model.requires_grad_(spec.adapter.type == "full")
        if spec.adapter.type == "head_only":
            _train_head(model)
        return model
    given = spec.adapter.path
    if given is not None and Path(given, TUNED).is_file():
        check_same_base(read_tuned(Path(given)), spec.model, Path(base.path))
    torch.manual_seed(spec.seed)  # the same initial adapter, however the base was loaded
    tuned = add_adapter(model, spec.adapter, base, task_type, report)
    if start is not None:
        restore_weights(start.weights, tuned, adapted=True)
    return tuned


def _against_stacked(adapter: Adapter) -> str | None:
    """Why that adapter is not possible on weights outside linear layers; None if it is."""
    if not ADAPTERS[adapter.type].stacked_experts:
        return f"a {adapter.type} adapter is not possible there"
    if adapter.init not in ("default", "gaussian"):
        return f"adapter.init {adapter.init} is not possible there"
    return "adapter.dropout is not possible there" if adapter.dropout else None


def _train_head(model: Any) -> None:
    """Train everything after the last layer: the norm and the head."""
    inputs, outputs = ends_of(model)
    if not head_weights(model) or (outputs is not None and outputs.weight is inputs.weight):
        what = f"adapter.type head_only: {type(model).__name__} has no head of its own"
        hint = "Its output layer is the embeddings' weight. Use layers.freeze_depth, or a classification method."
        raise TrainingProblem("bad_spec", what, hint)
    levels = levels_of(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(levels.of[name] > levels.layers)


def _given_adapter(model: Any, adapter: Adapter, task_type: str | None) -> Any:
    """The model with the adapter of another job or program, from which training continues."""
    assert adapter.path is not None
    folder = Path(adapter.path)
    check_adapter(folder)
    if fingerprint([folder / ADAPTER_CONFIG, folder / ADAPTER_WEIGHTS]) != (adapter.fingerprint or ""):
        what = f"the adapter {folder} has changed since the job was submitted"
        raise TrainingProblem("base_changed", what, "Put the original adapter back, or submit the job again.")
    tuned = read_tuned(folder) if (folder / TUNED).is_file() else None
    trained_for = read_object(folder / ADAPTER_CONFIG).get("task_type")
    if task_type is not None:
        trained_for = trained_for or "CAUSAL_LM"
    if trained_for != task_type:
        of = [name or "a model that reads no text" for name in (trained_for, task_type)]
        what = f"adapter.path: {folder} was trained for {of[0]}, and this job trains {of[1]}"
        raise TrainingProblem("bad_spec", what, "Use an adapter of the same task.")
    has_labels = task_type in ("SEQ_CLS", "TOKEN_CLS", None)  # other heads have transformers' placeholders
    labels = list(model.config.id2label.values()) if has_labels else []
    if labels and (tuned is None or tuned.get("labels") != labels):
        what = f"adapter.path: {folder} does not have the labels of the training rows, {', '.join(labels)}"
        raise TrainingProblem("bad_spec", what, "Use an adapter that cloudtune trained with the same labels.")
    if ADAPTERS[adapter.type].quantized:
        quantize(model)
    with found(BaseModel(str(folder))):
        return load_adapter(model, folder, trainable=True)


def load_adapter(model: Any, folder: Path, *, trainable: bool = False) -> Any:
    """The base model with the adapter that training saved in that folder, after `check_adapter`."""
    from peft import PeftModel

    if read_object(folder / ADAPTER_CONFIG)["peft_type"] == PEFT_TYPE:
        return load_bottlenecks(model, folder)
    tuned = PeftModel.from_pretrained(model, folder, is_trainable=trainable)
    check_adapter_weights(tuned, folder)
    return tuned


_CARD = "---\nlibrary_name: peft\n---\n\nAn adapter that cloudtune trained.\n"
"""What PEFT adds the base model and its version to. Without it, PEFT fills a long template with placeholders."""


def save_weights(folder: Path, model: Any, *, adapted: bool, state: Any = None) -> Path:
    """Write the trained weights to a checkpoint's folder: the adapter's, or the whole model's. Returns their folder.

    ``state`` has the weights if the model itself has only a part of them.
    """
    if hasattr(model, "bottlenecks"):
        save_bottlenecks(model, folder / ADAPTER)
    elif adapted:
        (folder / ADAPTER).mkdir(parents=True, exist_ok=True)
        (folder / ADAPTER / "README.md").write_text(_CARD, encoding="utf-8")
        given = {} if state is None else {"state_dict": state}
        model.save_pretrained(folder / ADAPTER, save_embedding_layers=False, **given)
        if _computes_prompts(model):
            save_file(model.prompt_encoder.state_dict(), folder / _ENCODER)
    else:
        model.save_pretrained(folder / MODEL, state_dict=state)
    return folder / (ADAPTER if adapted else MODEL)


def restore_weights(folder: Path, model: Any, *, adapted: bool) -> None:
    """Restore the weights that `save_weights` wrote, bit for bit."""
    if hasattr(model, "bottlenecks"):
        restore_bottlenecks(model, folder)
        return
    if adapted:
        from peft import set_peft_model_state_dict

        check_adapter_weights(model, folder)
        set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))
        if _computes_prompts(model):
            model.prompt_encoder.load_state_dict(load_file(folder.parent / _ENCODER))
        return
    _check_folder(str(folder))
    kept = load_checked(type(model), str(folder), config=model.config, dtype=model.dtype, use_safetensors=True)
    model.load_state_dict(kept.state_dict())


def _computes_prompts(model: Any) -> bool:
    """Whether the saved adapter is computed from other weights."""
    saved = model.active_peft_config.peft_type.value
    return any(kind.computed and kind.peft_type == saved for kind in ADAPTERS.values())
