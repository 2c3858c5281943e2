"""Models that Bedrock can import: architectures, data types, sizes, files. Reads small files and headers.

docs.aws.amazon.com/bedrock/latest/userguide/model-customization-import-model.html, seen 2026-11-21.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cloudtune.errors import Problem
from cloudtune.files.model_files import json_object, safetensors_head

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.files.model_files import Tensor
    from cloudtune_providers.bedrock.model_files import ModelFiles

ARCHITECTURES = {
    "llama": "Llama 2 to 3.3", "mllama": "Llama 3.2 with images", "mistral": "Mistral", "mixtral": "Mixtral",
    "t5": "Flan-T5", "gpt_bigcode": "GPTBigCode", "qwen2": "Qwen2, Qwen2.5", "qwen2_vl": "Qwen2-VL",
    "qwen2_5_vl": "Qwen2.5-VL", "qwen3": "Qwen3", "qwen3_moe": "Qwen3",
}  # fmt: skip
MULTIMODAL = ("mllama", "qwen2_vl", "qwen2_5_vl")
DTYPES = ("F32", "F16", "BF16")
MOST_BYTES = 200 * 1000**3
MOST_BYTES_MULTIMODAL = 100 * 1000**3
MOST_CONTEXT = 128 * 1024
TRANSFORMERS = "4.51.3"
REGIONS = ("us-east-1", "us-east-2", "us-west-2", "eu-central-1")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
_INDEX = "model.safetensors.index.json"
_USUAL_HEADER = 128 * 1024
"""The size of the first read of a file: few have a longer header."""
USUAL_ROPE = 10000.0
_OF_USUAL_ROPE = ("llama", "mistral", "qwen2", "qwen3", "qwen3_moe")
"""Architectures with this default of ``rope_theta`` in transformers 4.51.3."""


def problems(files: ModelFiles) -> list[Problem]:
    """All problems that would make an import fail."""
    if is_adapter(files):
        message = "this is an adapter, but Bedrock imports complete models only"
        fix = "merge it first: cloudtune export JOB FOLDER --merged"
        return [Problem(code="adapter", file=files.where, message=message, fix=fix)]
    config = config_of(files)
    return [*_config(files, config), *_weights(files, config or {}), *_tokenizer(files), *_names(files)]


def is_adapter(files: ModelFiles) -> bool:
    """Whether the files are only an adapter."""
    return "adapter_config.json" in files.sizes and "config.json" not in files.sizes


def config_of(files: ModelFiles) -> dict[str, Any] | None:
    """Return the content of config.json, or None if it is missing or invalid."""
    if "config.json" not in files.sizes:
        return None
    try:
        return json_object(files.read("config.json"))
    except (OSError, ValueError):
        return None


def _config(files: ModelFiles, config: dict[str, Any] | None) -> Iterator[Problem]:
    file = files.place("config.json")
    if config is None:
        yield Problem(code="no_config", file=file, message="it is missing, or is not valid JSON",
                      fix="use a folder written by save_pretrained")  # fmt: skip
        return
    kind = str(config.get("model_type"))
    if kind not in ARCHITECTURES:
        known = ", ".join(f"{name} ({what})" for name, what in ARCHITECTURES.items())
        yield Problem(code="architecture", file=file, field="model_type", message=f"Bedrock does not import {kind!r}",
                      fix=f"supported: {known}")  # fmt: skip
    if config.get("quantization_config") is not None:
        yield Problem(code="quantized", file=file, field="quantization_config",
                      message="quantized weights are not supported", fix="export in bf16, fp16 or fp32")  # fmt: skip
    text = config.get("text_config")
    context = (text if isinstance(text, dict) else config).get("max_position_embeddings")
    if isinstance(context, int) and context > MOST_CONTEXT:
        message = f"a context of {context:,} tokens, but Bedrock imports up to {MOST_CONTEXT:,}"
        yield Problem(code="context", file=file, field="max_position_embeddings", message=message,
                      fix="lower it, if the model was not trained on longer contexts")  # fmt: skip


def _weights(files: ModelFiles, config: dict[str, Any]) -> Iterator[Problem]:
    names = sorted(name for name in files.sizes if name.endswith(".safetensors") and "/" not in name)
    if not names:
        others = [name for name in sorted(files.sizes) if "/" not in name and name.endswith((".bin", ".gguf", ".pt"))]
        message = f"no safetensors files{', only ' + ', '.join(others[:3]) if others else ''}"
        yield Problem(code="no_weights", file=files.where, message=message,
                      fix="write them with save_pretrained, or cloudtune export --merged")  # fmt: skip
        return
    yield from _index(files)
    is_multimodal = config.get("model_type") in MULTIMODAL
    size, most = sum(files.sizes[name] for name in names), MOST_BYTES_MULTIMODAL if is_multimodal else MOST_BYTES
    if size > most:
        message = f"{size / 1000**3:,.0f} GB of weights, but Bedrock imports up to {most / 1000**3:,.0f}"
        yield Problem(code="too_large", file=files.where, message=message, fix="choose a smaller model")
    for name in names:
        yield from _dtypes(files, name)


def _index(files: ModelFiles) -> Iterator[Problem]:
    if _INDEX not in files.sizes:
        return
    file = files.place(_INDEX)
    try:
        named = sorted({str(name) for name in json_object(files.read(_INDEX))["weight_map"].values()})
    except (ValueError, KeyError, AttributeError, TypeError):
        yield Problem(code="index", file=file, message="it has no weight_map", fix="write the model again")
        return
    for name in named:
        if name not in files.sizes:
            yield Problem(code="missing_part", file=file, message=f"it references {name}, which is missing",
                          fix="write or download the model again")  # fmt: skip


def _dtypes(files: ModelFiles, name: str) -> Iterator[Problem]:
    file = files.place(name)
    try:
        found = sorted({tensor.dtype for tensor in header(files, name).values()})
    except (OSError, ValueError) as error:
        yield Problem(code="torn", file=file, message=f"cannot read its header: {error}",
                      fix="write or download the model again")  # fmt: skip
        return
    if wrong := [dtype for dtype in found if dtype not in DTYPES]:
        message = f"weights of type {', '.join(wrong)}, but Bedrock imports {', '.join(DTYPES)}"
        yield Problem(code="dtype", file=file, message=message, fix="export in bf16, fp16 or fp32")


def header(files: ModelFiles, name: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises ValueError for anything else."""
    known = files.read(name, 0, _USUAL_HEADER)

    def read(start: int, length: int) -> bytes:
        nonlocal known
        if (missing := start + length - len(known)) > 0:
            known += files.read(name, len(known), missing)
        return known[start : start + length]

    return safetensors_head(read, files.sizes[name])


def _tokenizer(files: ModelFiles) -> Iterator[Problem]:
    if "tokenizer_config.json" not in files.sizes:
        yield Problem(code="no_tokenizer", file=files.place("tokenizer_config.json"), message="it is missing",
                      fix="save the tokenizer to the folder too")  # fmt: skip
    if not any(name in files.sizes for name in _TOKENIZERS):
        yield Problem(code="no_tokenizer", file=files.where, message=f"none of {', '.join(_TOKENIZERS)} exists",
                      fix="save the tokenizer to the folder too")  # fmt: skip


def _names(files: ModelFiles) -> Iterator[Problem]:
    for name in sorted(files.sizes):
        if not re.fullmatch(r"[A-Za-z0-9_./-]+", name):
            yield Problem(code="file_name", severity="warning", file=files.place(name),
                          message="unusual characters in its name; it is imported unchanged")  # fmt: skip


def misread(config: dict[str, Any]) -> list[str]:
    """Settings in config.json with names that Bedrock's transformers does not read, if its defaults differ."""
    lost = {name: value for name, value in older_config(config).items() if name not in config}
    if lost.get("rope_theta") == USUAL_ROPE and config.get("model_type") in _OF_USUAL_ROPE:
        del lost["rope_theta"]
    lost.pop("torch_dtype", None)  # each tensor has its own
    return sorted(lost)


def older_config(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the fields that transformers 5 renamed also under the names that Bedrock's 4.51.3 reads.

    Without them it would use defaults, and the model's answers would be wrong, above all because of ``rope_theta``.
    """
    older = dict(config)
    if "dtype" in older:
        older.setdefault("torch_dtype", older["dtype"])
    rope = older.get("rope_parameters")
    if isinstance(rope, dict) and "rope_type" in rope:
        if "rope_theta" in rope:
            older.setdefault("rope_theta", rope["rope_theta"])
        if rope["rope_type"] != "default":
            older.setdefault("rope_scaling", {key: value for key, value in rope.items() if key != "rope_theta"})
    return older
