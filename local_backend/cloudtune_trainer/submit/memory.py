"""The memory that a training run needs, estimated from the model's sizes. Pure.

The coefficients are the tensors that PyTorch's autograd keeps for each token and layer, in transformers 5.23 with its
sdpa attention. The estimate assumes fp32 and rows of full length. Shorter rows, and bf16 on a GPU, need less.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from cloudtune.methods import METHODS
from cloudtune_trainer.adapters import ADAPTERS

if TYPE_CHECKING:
    from collections.abc import Mapping

MIB = 2**20
_NAMES = {
    "width": ("hidden_size", "n_embd", "d_model", "dim"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "heads": ("num_attention_heads", "n_head", "num_heads", "n_heads"),
    "key_heads": ("num_key_value_heads",),
    "head_width": ("head_dim", "d_kv"),
    "inner": ("intermediate_size", "n_inner", "d_ff", "ffn_dim", "hidden_dim"),
    "vocab": ("vocab_size",),
}
"""Size -> its names in transformers' configurations."""
_NEEDED = ("width", "layers", "heads", "vocab")
_ACTIVATIONS = ("hidden_act", "activation_function", "activation", "feed_forward_proj")
_ATTENTION_DROPOUT = ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob", "attn_dropout")
_DROPOUT = ("resid_pdrop", "hidden_dropout_prob", "dropout", "hidden_dropout")
_LARGEST = 1 << 24
_LOSS_CHUNK = 8 * 1024**2
"""Logits that the loss computes at once: see `cloudtune_trainer.loss`."""
_QUANTIZED = 0.56
"""Bytes of a weight in nf4, with its scales."""
_FLOAT = 4
_CHARS_PER_TOKEN = 3
_TEMPLATE = 32
"""Tokens that a chat template may add to a row."""


class Memory(NamedTuple):
    """An estimate in bytes, without the memory of the process itself (Python, the libraries, CUDA)."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    """Logits and their gradients."""
    peak: int
    """Not the sum: a backward pass frees activations while it makes gradients."""

    @property
    def basis(self) -> str:
        """The parts, for people."""
        parts = (f"{name} {_size(getattr(self, name))}" for name in self._fields[:-1] if getattr(self, name))
        return "estimate of the peak in fp32, without the process itself: " + ", ".join(parts)


def dimensions(config: Mapping[str, Any]) -> dict[str, float]:
    """The sizes in a config.json that the estimate needs; empty if one is missing or invalid."""
    found: dict[str, float] = {}
    for size, names in _NAMES.items():
        value = next((config[name] for name in names if config.get(name) is not None), None)
        if value is None and size not in _NEEDED:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _LARGEST:
            return {}
        found[size] = value
    for name, names in (("attention_dropout", _ATTENTION_DROPOUT), ("dropout", _DROPOUT)):
        rate = next((config[each] for each in names if isinstance(config.get(each), int | float)), 0.0)
        found[name] = float(rate)
    kind = str(next((config[name] for name in _ACTIVATIONS if config.get(name)), "gelu"))
    found["is_python_gelu"] = kind in ("gelu_new", "gelu_fast", "gated-gelu")
    found["is_gated"] = kind in ("silu", "gelu_pytorch_tanh", "gated-gelu")
    found["is_tied"] = config.get("tie_word_embeddings", True) is not False
    return found


def estimate(model: Mapping[str, Any], document: Mapping[str, Any], *, longest_chars: int = 0) -> Memory | None:
    """The memory of one process that runs this ``spec.json``; None if the model's sizes are unknown.

    ``model`` has the properties of the base model, and ``longest_chars`` the length of the longest row, if known.
    Methods that write completions while they train, distillation, and models with an encoder and a decoder have no
    estimate.
    """
    sizes, method = model.get("dimensions") or {}, METHODS[document["method"]]
    has_two_stacks = method.task == "seq2seq" or model.get("is_encoder_decoder")
    if not sizes or has_two_stacks or method.task in ("policy_optimization", "distillation"):
        return None
    if modules := model.get("modules"):
        sizes = sizes | {"is_gated": any(name.endswith(("gate_proj", "wi_0")) for name in modules)}
    parameters = model.get("parameters") or _parameters(sizes)
    hyper, adapter = document["hyperparameters"], document["adapter"]
    kind = ADAPTERS[adapter["type"]]
    is_whole = adapter["type"] == "full"
    trained = parameters if is_whole else _adapter_size(sizes, adapter)
    weights = int(parameters * (_QUANTIZED if kind.quantized else _FLOAT)) + (0 if is_whole else trained * _FLOAT)
    group = document.get("distributed", {"strategy": "ddp", "processes": 1})
    sharing = group["processes"] if group["strategy"] == "fsdp" else 1
    at_once = -(-hyper["batch_size"] // (group["processes"] * hyper["gradient_accumulation_steps"]))
    length = hyper["max_length"]
    if longest_chars and not hyper["packing"]:
        length = min(length, longest_chars // _CHARS_PER_TOKEN + _TEMPLATE)
    texts = 2 if method.pairs or method.task == "text_embedding" else 1  # of a row; negatives are more
    tokens = at_once * length * texts
    layer = tokens * _per_token(sizes, length, hyper, is_whole=is_whole) * _FLOAT
    activations = layer * sizes["layers"]
    if adapter["type"] == "head_only":
        activations = layer  # layers without gradients keep nothing
    elif hyper["gradient_checkpointing"]:
        activations = tokens * sizes["width"] * sizes["layers"] * _FLOAT + layer
    logits = 0
    if method.task in ("causal_lm", "preference", "unpaired_preference"):
        cells = tokens * sizes["vocab"]
        logits = int(2 * _FLOAT * cells + 2 * _FLOAT * min(cells, _LOSS_CHUNK))
    weights, trained = -(-weights // sharing), -(-trained // sharing)
    gradients, optimizer = trained * _FLOAT, 2 * trained * _FLOAT
    at_start = activations + logits + (gradients if hyper["gradient_accumulation_steps"] > 1 else 0)
    peak = weights + optimizer + max(at_start, gradients)
    return Memory(weights, gradients, optimizer, int(activations), logits, int(peak))


def _widths(sizes: Mapping[str, float]) -> tuple[float, float, float, float]:
    """The widths of the layer's input, its queries, its keys, and within its feed-forward part."""
    width = sizes["width"]
    head = sizes.get("head_width") or width / sizes["heads"]
    keys = sizes.get("key_heads", sizes["heads"]) * head
    return width, sizes["heads"] * head, keys, sizes.get("inner") or 4 * width


def _per_token(sizes: Mapping[str, float], length: int, hyper: Mapping[str, Any], *, is_whole: bool) -> float:
    """Numbers that a layer keeps for one token."""
    width, queries, keys, inner = _widths(sizes)
    is_gated = sizes["is_gated"]
    norms = 2 * width * (3 if is_gated and is_whole else 2)
    attention = 3 * queries + 2 * keys
    feed_forward = inner * (4 if is_gated else 5 if sizes["is_python_gelu"] else 2)
    dropout = hyper.get("dropout")
    found = norms + attention + feed_forward
    if sizes["dropout"] if dropout is None else dropout:
        found += 2 * width
    if sizes["attention_dropout"] if dropout is None else dropout:
        found += 3 * sizes["heads"] * length
    return found


def _parameters(sizes: Mapping[str, float]) -> int:
    """The model's parameters, from its sizes."""
    width, queries, keys, inner = _widths(sizes)
    layer = 2 * width * (queries + keys) + (3 if sizes["is_gated"] else 2) * width * inner
    return int(layer * sizes["layers"] + sizes["vocab"] * width * (1 if sizes["is_tied"] else 2))


def _adapter_size(sizes: Mapping[str, float], adapter: Mapping[str, Any]) -> int:
    """The parameters of an adapter, as if every matrix of every layer had one of its rank."""
    width, queries, keys, inner = _widths(sizes)
    layer = 4 * width + 2 * (queries + keys) + (3 if sizes["is_gated"] else 2) * (width + inner)
    return int(adapter.get("rank", 1) * sizes["layers"] * layer)


def _size(count: float) -> str:
    unit = min(int(math.log(max(count, 1), 1024)), 3)
    return f"{count / 1024**unit:.3g} {('B', 'KiB', 'MiB', 'GiB')[unit]}"


def shown(memory: Memory) -> str:
    """The peak, for people."""
    return _size(memory.peak)
