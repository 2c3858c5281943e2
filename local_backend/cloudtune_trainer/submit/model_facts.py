"""Finds the base model that a spec names, and reads its properties without torch.

A name is a folder in transformers' format, a .gguf file (or a folder with only one), a .json file that describes a
small model to build, or an id on the hub, which is searched in the local cache first.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.errors import Problem, SpecError
from cloudtune.files.model_files import model_sizes, read_json_object, safetensors_head, size_of
from cloudtune.files.regular_file import open_regular, read_regular
from cloudtune_trainer.fingerprint import WEIGHTS, fingerprint, weights_fingerprint
from cloudtune_trainer.layer_names import is_old_buffer
from cloudtune_trainer.submit import gguf, hub, memory
from cloudtune_trainer.tuned import REVISION

if TYPE_CHECKING:
    from cloudtune.files.model_files import Tensor

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "spiece.model")
_SHOWN_BY: dict[str, tuple[str, ...]] = {
    "thoughts": ("reasoning_content",),
    "tools": ("tools",),
    "names": ("message.name", "message['name']", 'message["name"]'),
    "tool_errors": ("is_error",),
    "parallel_tool_calls": ("parallel_tool_calls",),
}
"""Features of rows that a chat template renders if it contains one of these words."""
_LARGEST_TEMPLATE = 16 << 20
_DIGITS = 4
"""No model has more layers than numbers of so many digits."""


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of a base model."""

    source: str
    """folder, gguf, hub or config."""
    path: str
    """An absolute path, or the hub's id."""
    revision: str | None = None
    fingerprint: str = ""
    """Changes with the model: a hash of small files and of samples of large ones, or the hub's commit."""
    weights: str | None = None
    """The fingerprint of a GGUF file, or of a folder's configuration and weights only: see
    `cloudtune_trainer.fingerprint`."""
    context_length: int | None = None
    vocab_size: int | None = None
    chat_template: bool | None = None
    shown: list[str] = []
    """The features of rows (see ``data.losses``) that the chat template renders: tools, thoughts, names."""
    reads: str | None = None
    """Its input, as its processor tells: text, image or audio. None if that is unknown."""
    is_encoder_decoder: bool | None = None
    """As in its config.json."""
    parameters: int | None = None
    dimensions: dict[str, float] = {}
    """Sizes in its config.json: see `cloudtune_trainer.submit.memory`."""
    modules: list[str] = []
    """Layers with a weight matrix, as their paths after the number of the block: ``self_attn.q_proj``."""
    weight_groups: dict[str, list[int]] = {}
    """Name of a weight -> the number of layers up to the last one that has it, and the number of parameters. In the
    name, ``*`` is the number of the layer, and ``#`` any other number."""


def find_model(name: str, *, revision: str | None = None) -> ModelFacts:
    """The model of that name. Reads the disk, and the hub if needed. Raises SpecError with a hint."""
    if revision is not None and not REVISION.fullmatch(revision):
        raise _unknown(f"{revision[:100]!a} is not the name of a revision", "name a branch, a tag or a commit")
    try:
        path = Path(name).expanduser()
    except RuntimeError as error:
        raise _unknown(f"{name} names the home folder of an unknown user", "write the path in full") from error
    if path.exists():
        if revision is not None:
            raise _unknown("a revision applies to hub models only, and this is a path", "remove `revision`")
        return _on_disk(path.absolute())
    if name.endswith((".gguf", ".json")) or name.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(name):
        raise _unknown(f"no such file or folder: {path.absolute()}", "use a model folder, a .gguf file or a hub id")
    return _on_hub(name, revision)


def _on_disk(path: Path) -> ModelFacts:
    try:
        if path.is_dir():
            lone = sorted(path.glob("*.gguf"))
            if not (path / "config.json").exists() and len(lone) == 1:
                return _gguf(lone[0])
            return _folder(path)
        if path.suffix == ".gguf":
            return _gguf(path)
        if path.suffix == ".json":
            return _description(path)
    except OSError as error:
        raise _unknown(f"cannot read {path}: {error}", "allow this user to read it") from error
    raise _unknown(f"{path} is not a model", "use a model folder, a .gguf file, a .json description or a hub id")


def _folder(path: Path) -> ModelFacts:
    if (path / "adapter_config.json").exists():
        raise _unknown(
            f"{path} contains an adapter, not a model",
            "use its base model, or merge it with `cloudtune export --merged`",
        )
    if not (path / "config.json").exists():
        raise _unknown(f"{path} has no config.json", "use a model folder in the transformers layout")
    for file in sorted(path.rglob("*")):
        if file.exists() and not (file.is_file() or file.is_dir()):
            raise _unknown(f"{file} is not a regular file", "fetch the model again")
    config = _json(path / "config.json")
    weights = [file for pattern in WEIGHTS for file in sorted(path.glob(pattern))]
    if not weights:
        raise _unknown(f"{path} has no weights (*.safetensors)", "download the complete model")
    reads = _reads(path)
    if reads == "text" and not any((path / name).exists() for name in _TOKENIZERS):
        raise _unknown(f"{path} has no tokenizer", "add its tokenizer (tokenizer.json)")
    return ModelFacts(
        source="folder",
        path=str(path),
        fingerprint=fingerprint([file for file in sorted(path.iterdir()) if file.is_file()]),
        weights=weights_fingerprint(path),
        reads=reads,
        **_of_weights(weights),
        **_of_config(path / "config.json", config),
        **_of_template(_template(path)),
    )


def _reads(path: Path) -> str:
    """The input of the model: its processor's, if it has one, else text."""
    file = next((path / name for name in _PREPROCESSORS if (path / name).exists()), None)
    if file is None:
        return "text"
    processor = _json(file)
    processor = processor.get("feature_extractor") or processor.get("image_processor") or processor
    is_sound = isinstance(processor, dict) and "sampling_rate" in processor
    return "audio" if is_sound else "image"


def _of_config(place: Path | str, config: dict[str, Any]) -> dict[str, Any]:
    try:
        sizes = model_sizes(config)._asdict()
        is_encoder_decoder = config.get("is_encoder_decoder") is True
        return {**sizes, "is_encoder_decoder": is_encoder_decoder, "dimensions": memory.dimensions(config)}
    except ValueError as error:
        raise _unknown(f"{place} is damaged: {error}", "download the model again") from error


def _template(path: Path) -> str:
    if (path / "chat_template.jinja").exists():
        return read_regular(path / "chat_template.jinja", _LARGEST_TEMPLATE).decode("utf-8", errors="replace")
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (path / name).exists() and (found := _json(path / name).get("chat_template")):
            return str(found)
    return ""


def _of_template(template: str) -> dict[str, Any]:
    shown = [feature for feature, words in _SHOWN_BY.items() if any(word in template for word in words)]
    return {"chat_template": bool(template), "shown": shown}


def _of_weights(weights: list[Path]) -> dict[str, Any]:
    """Counted from the headers of safetensors files; None for other formats, which would have to be loaded."""
    total, modules, groups = 0, set[str](), dict[str, list[int]]()
    for file in weights:
        if file.suffix != ".safetensors":
            return {}
        tensors = {name: tensor for name, tensor in _tensors(file).items() if not is_old_buffer(name)}
        total += sum(math.prod(tensor.shape) for tensor in tensors.values())
        for name, tensor in tensors.items():
            group, layer = _grouped(name)
            layers, size = groups.get(group, [0, 0])
            groups[group] = [max(layers, layer + 1), size + math.prod(tensor.shape)]
        modules |= {_module(name) for name, tensor in tensors.items() if len(tensor.shape) == 2}
    return {"parameters": total, "modules": sorted(modules), "weight_groups": groups}


def _tensors(file: Path) -> dict[str, Tensor]:
    with open_regular(file) as handle:

        def read(start: int, length: int) -> bytes:
            handle.seek(start)
            return handle.read(length)

        try:
            return safetensors_head(read, file.stat().st_size)
        except ValueError as error:
            raise _unknown(f"{file} is damaged: {error}", "download the model again") from error


def _grouped(tensor: str) -> tuple[str, int]:
    """The name with placeholders, and the number of the layer."""
    parts = tensor.split(".")
    numbers = [int(part) for part in parts if part.isdecimal() and len(part) <= _DIGITS]
    parts = ["#" if part.isdecimal() else part for part in parts]
    if "#" in parts:
        parts[parts.index("#")] = "*"
    return ".".join(parts), numbers[0] if numbers else 0


def _module(tensor: str) -> str:
    parts = tensor.removesuffix(".weight").split(".")
    block = max((place for place, part in enumerate(parts) if part.isdecimal()), default=-1)
    return ".".join(parts[block + 1 :])


def _gguf(path: Path) -> ModelFacts:
    try:
        head = gguf.read_head(path)
        family = head.get("general.architecture", "")
        context = size_of("context_length", head.get(f"{family}.context_length"))
        vocab = size_of("vocab_size", head.get(f"{family}.vocab_size") or head.get("tokenizer.ggml.tokens"))
    except ValueError as error:
        raise _unknown(f"{path} is not a valid GGUF file: {error}", "download the model again") from error
    found = fingerprint([path])
    return ModelFacts(
        source="gguf",
        path=str(path),
        fingerprint=found,
        weights=found,
        context_length=context,
        vocab_size=vocab,
        **_of_template(str(head.get("tokenizer.chat_template", ""))),
        parameters=head["parameters"],
    )


def _description(path: Path) -> ModelFacts:
    document = _json(path)
    from cloudtune_trainer.tiny import DESCRIPTION, TINY_LLAMA
    from cloudtune_trainer.tiny_speech import TINY

    if not set(document) <= DESCRIPTION:
        fix = 'describe a model to build as {"model": {...}, "tokenizer": {"vocab_size": 512}}'
        raise _unknown(f"{path} has unknown keys: {', '.join(sorted(set(document) - DESCRIPTION))}", fix)
    for name in sorted(DESCRIPTION):
        if not isinstance(document.get(name, {}), dict):
            raise _unknown(f"{path}: {name} is not a JSON object", 'write "model": {...}, "tokenizer": {...}')
    if "processor" in document:
        reads = "audio" if document.get("model", {}).get("model_type") in TINY else "image"
        return ModelFacts(source="config", path=str(path), fingerprint=fingerprint([path]), reads=reads)
    fields = {**TINY_LLAMA, **document.get("model", {})}
    tokenizer = document.get("tokenizer", {})
    return ModelFacts(
        source="config",
        path=str(path),
        fingerprint=fingerprint([path]),
        reads="text",
        context_length=_of_config(path, fields)["context_length"],
        dimensions=memory.dimensions({"vocab_size": tokenizer.get("vocab_size", 512), **fields}),
        **_of_template(str(tokenizer.get("chat_template", True) or "")),
    )


def _on_hub(name: str, revision: str | None) -> ModelFacts:
    cached = hub.cached_snapshot(name, revision)
    if cached is not None and any(any(cached.glob(pattern)) for pattern in WEIGHTS):
        facts = _folder(cached)
        return msgspec.structs.replace(facts, source="hub", path=name, revision=cached.name, fingerprint=cached.name)
    try:
        commit, config = hub.look_up(name, revision)
    except hub.HubError as error:
        raise _unknown(
            f"{name!r} is not a local folder or file, is not in the cache, and {error}", error.advice
        ) from error
    return ModelFacts(
        source="hub", path=name, revision=commit, fingerprint=commit, **_of_config(f"{name}/config.json", config)
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(path)
    except ValueError as error:
        raise _unknown(f"{path} is not valid JSON: {error}", "download the model again") from error


def _unknown(message: str, fix: str) -> SpecError:
    return SpecError([Problem(code="unknown_model", field="model", message=message, fix=fix)])
