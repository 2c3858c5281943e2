"""Names of weights, as layer schedules use them. Standard library only."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

_EMBEDDING = re.compile(r"embed|\bwte\b|\bwpe\b")
_OUTPUT = re.compile(r"\bembed_out\b|\bembedding_norm\b")
"""GPT-NeoX's output layer, and LFM2's last norm."""
_WRAPPERS = re.compile(r"^base_model\.(model\.)?|\.default(?=\.|$)|\.(base_layer|original_module|modules_to_save)\b")
"""The parts of a name that peft adds."""
_OLD_BUFFERS = re.compile(r"\b(attn|attention|self_attn)\.(masked_)?bias$|\brotary_emb\.inv_freq$|\bposition_ids$")


def plain_name(name: str) -> str:
    """A weight's name in the base model, without the parts that peft adds."""
    return _WRAPPERS.sub("", name)


def is_match(name: str, pattern: str) -> bool:
    """Whether the pattern matches whole parts of the name: ``layers.0`` and ``*norm*`` match ``layers.0.norm.bias``."""
    return fnmatchcase(f".{name}.", f"*.{pattern}.*")


def is_old_buffer(name: str) -> bool:
    """Whether a file's tensor is a constant that older versions of transformers stored as a weight."""
    return bool(_OLD_BUFFERS.search(name))


def is_embedding(name: str) -> bool:
    """Whether a weight outside the layers belongs to the embeddings, by its name."""
    return bool(_EMBEDDING.search(name)) and not _OUTPUT.search(name)
