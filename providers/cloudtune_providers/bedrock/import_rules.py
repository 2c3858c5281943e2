"""Which models Bedrock imports: architectures, number types, sizes, files. Reads a folder's small files and headers.

docs.aws.amazon.com/bedrock/latest/userguide/model-customization-import-model.html, seen 2026-11-21.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from cloudtune.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
_LONGEST_HEADER = 100 * 1024 * 1024


def problems(folder: Path) -> list[Problem]:
    """Everything that an import would refuse, all at once."""
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        message = "this is an adapter, and Bedrock imports whole models"
        fix = "merge it first: cloudtune export JOB FOLDER --merged"
        return [Problem(code="adapter", file=str(folder), message=message, fix=fix)]
    return [*_config(folder), *_weights(folder), *_tokenizer(folder), *_names(folder)]


def config_of(folder: Path) -> dict[str, Any] | None:
    """What config.json says, or None if it cannot be read."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _config(folder: Path) -> Iterator[Problem]:
    file = str(folder / "config.json")
    config = config_of(folder)
    if config is None:
        yield Problem(code="no_config", file=file, message="it is not there, or is not JSON",
                      fix="give the folder that save_pretrained wrote")  # fmt: skip
        return
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        known = ", ".join(f"{name} ({what})" for name, what in ARCHITECTURES.items())
        yield Problem(code="architecture", file=file, field="model_type", message=f"Bedrock does not import {kind!r}",
                      fix=f"it imports: {known}")  # fmt: skip
    if config.get("quantization_config") is not None:
        yield Problem(code="quantized", file=file, field="quantization_config",
                      message="Bedrock imports no quantized weights", fix="export in bf16, fp16 or fp32")  # fmt: skip
    context = (config.get("text_config") or config).get("max_position_embeddings")
    if isinstance(context, int) and context > MOST_CONTEXT:
        message = f"{context:,} tokens of context, and Bedrock imports up to {MOST_CONTEXT:,}"
        yield Problem(code="context", file=file, field="max_position_embeddings", message=message,
                      fix="lower it, if the model was not trained beyond that")  # fmt: skip


def _weights(folder: Path) -> Iterator[Problem]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        others = [path.name for ending in ("*.bin", "*.gguf", "*.pt") for path in folder.glob(ending)]
        message = f"there are no safetensors{', only ' + ', '.join(others[:3]) if others else ''}"
        yield Problem(code="no_weights", file=str(folder), message=message,
                      fix="write them with save_pretrained, or cloudtune export --merged")  # fmt: skip
        return
    yield from _index(folder)
    size, most = sum(path.stat().st_size for path in files), MOST_BYTES
    if (config_of(folder) or {}).get("model_type") in MULTIMODAL:
        most = MOST_BYTES_MULTIMODAL
    if size > most:
        message = f"{size / 1000**3:,.0f} GB of weights, and Bedrock imports up to {most / 1000**3:,.0f}"
        yield Problem(code="too_large", file=str(folder), message=message, fix="choose a smaller model")
    for path in files:
        yield from _dtypes(path)


def _index(folder: Path) -> Iterator[Problem]:
    file = folder / "model.safetensors.index.json"
    if not file.is_file():
        return
    try:
        named = sorted(set(json.loads(file.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError):
        yield Problem(code="index", file=str(file), message="it has no weight_map", fix="write the model again")
        return
    for name in named:
        if not (folder / str(name)).is_file():
            yield Problem(code="missing_part", file=str(file), message=f"it names {name}, which is not there",
                          fix="write or download the model again")  # fmt: skip


def _dtypes(path: Path) -> Iterator[Problem]:
    try:
        found = sorted({entry["dtype"] for name, entry in header(path).items() if name != "__metadata__"})
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield Problem(code="torn", file=str(path), message=f"its head cannot be read: {error}",
                      fix="write or download the model again")  # fmt: skip
        return
    if wrong := [dtype for dtype in found if dtype not in DTYPES]:
        message = f"weights of {', '.join(wrong)}, and Bedrock imports {', '.join(DTYPES)}"
        yield Problem(code="dtype", file=str(path), message=message, fix="export in bf16, fp16 or fp32")


def header(path: Path) -> dict[str, Any]:
    """The head of a safetensors file: eight bytes of length, then JSON. Raises ValueError for anything else."""
    with path.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        if not 2 <= length <= _LONGEST_HEADER:
            raise ValueError("it is not a safetensors file")
        found = json.loads(content.read(length))
    if not isinstance(found, dict):
        raise ValueError("it is not a safetensors file")  # noqa: TRY004 - as for any other torn head
    end = max((entry["data_offsets"][1] for name, entry in found.items() if name != "__metadata__"), default=0)
    if path.stat().st_size != 8 + length + end:
        raise ValueError("it is cut short")
    return found


def _tokenizer(folder: Path) -> Iterator[Problem]:
    if not (folder / "tokenizer_config.json").is_file():
        yield Problem(code="no_tokenizer", file=str(folder / "tokenizer_config.json"), message="it is not there",
                      fix="save the tokenizer into the folder too")  # fmt: skip
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        yield Problem(code="no_tokenizer", file=str(folder), message=f"there is none of {', '.join(_TOKENIZERS)}",
                      fix="save the tokenizer into the folder too")  # fmt: skip


def _names(folder: Path) -> Iterator[Problem]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(".") and not re.fullmatch(r"[A-Za-z0-9_./-]+", name):
            yield Problem(code="file_name", severity="warning", file=str(path),
                          message="unusual letters in its name; it is uploaded as it is")  # fmt: skip


def older_config(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with what transformers 5 renamed also under the names that Bedrock's 4.51.3 reads.

    Without them it would take defaults, and the model would answer nonsense: ``rope_theta`` most of all.
    """
    told = dict(config)
    if "dtype" in told:
        told.setdefault("torch_dtype", told["dtype"])
    rope = told.get("rope_parameters")
    if isinstance(rope, dict) and "rope_type" in rope:
        if "rope_theta" in rope:
            told.setdefault("rope_theta", rope["rope_theta"])
        if rope["rope_type"] != "default":
            told.setdefault("rope_scaling", {key: value for key, value in rope.items() if key != "rope_theta"})
    return told
