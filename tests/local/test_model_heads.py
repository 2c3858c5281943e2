"""The headers of untrusted model files are read, or refused with one clear error."""

from __future__ import annotations

import json
import random
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from tests.local.backend.test_models import gguf_file, model_folder, safetensors

from cloudtune.errors import Problem, SpecError
from cloudtune.files.model_files import json_object, safetensors_head
from cloudtune_providers.bedrock import import_rules
from cloudtune_providers.bedrock.model_files import LocalFiles
from cloudtune_trainer.submit.model_facts import find_model

GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def head(document: Any, data: bytes = bytes(8)) -> bytes:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(**fields: Any) -> bytes:
    return head({"a": GOOD | fields})


SAFETENSORS = {
    "empty": b"", "short": b"\x01", "length 0": bytes(8), "length 2^63": struct.pack("<Q", 1 << 63) + b"{}",
    "length 2^64": b"\xff" * 8 + b"{}", "length past the end": struct.pack("<Q", 1 << 40) + b"{}",
    "list": head([]), "number": head(b"1e999"), "not UTF-8": head(b'{"\xff": 1}'), "cut": head(b'{"a": '),
    "deep": head(b"[" * 100_000), "deep objects": head(b'{"a":' * 100_000), "huge number": head(b"9" * 10_000),
    "NaN": head(b'{"a": NaN}'), "twice": head(b'{"a": %s, "a": %s}' % ((json.dumps(GOOD).encode(),) * 2)),
    "tensor text": head({"a": "x"}), "tensor list": head({"a": [1]}), "tensor null": head({"a": None}),
    "no dtype": tensor(dtype=None), "dtype number": tensor(dtype=1), "dtype unknown": tensor(dtype="F31"),
    "dtype list": tensor(dtype=[]), "shape text": tensor(shape="2"), "shape null": tensor(shape=None),
    "shape negative": tensor(shape=[-2, -1]), "shape float": tensor(shape=[2.0]), "shape bool": tensor(shape=[True, 2]),
    "shape huge": tensor(shape=[1 << 62] * 9), "shape long": tensor(shape=[1] * 10_000),
    "shape nested": tensor(shape=[[2]]),
    "offsets negative": tensor(data_offsets=[-8, 0]), "offsets one": tensor(data_offsets=[8]),
    "offsets back": tensor(data_offsets=[8, 0]), "offsets huge": tensor(data_offsets=[0, 1 << 70]),
    "offsets text": tensor(data_offsets=["0", "8"]), "offsets object": tensor(data_offsets={}),
    "overlap": head({"a": GOOD, "b": GOOD}), "hole": head({"a": GOOD | {"data_offsets": [8, 16]}}, bytes(16)),
    "cut data": head({"a": GOOD}, bytes(7)), "more data": head({"a": GOOD}, bytes(9)),
}  # fmt: skip

CONFIGS = {
    "empty": b"", "list": b"[]", "text": b'"x"', "null": b"null", "cut": b"{", "not UTF-8": b'{"a": "\xff"}',
    "deep": b"[" * 100_000, "deep objects": b'{"a":' * 100_000, "NaN": b'{"vocab_size": NaN}',
    "NaN deep": b'{"a": [NaN]}', "twice": b'{"vocab_size": 1, "vocab_size": 2}',
    "twice deep": b'{"text_config": {"a": 1, "a": 2}}', "huge digits": b'{"vocab_size": ' + b"9" * 10_000 + b"}",
    "huge": b'{"vocab_size": 1000000000000000000000000000000}', "negative": b'{"max_position_embeddings": -1}',
    "text size": b'{"vocab_size": "300"}', "bool": b'{"vocab_size": true}', "zero": b'{"vocab_size": 0}',
    "list size": b'{"max_position_embeddings": [1]}', "float": b'{"vocab_size": 1.5}',
    "infinite": b'{"vocab_size": Infinity}', "text_config list": b'{"text_config": [1]}',
    "text_config text": b'{"text_config": "x"}', "text_config size": b'{"text_config": {"vocab_size": {}}}',
    "byte order": b"\xff\xfe{\x00}\x00",
}  # fmt: skip


def raw(*parts: tuple[str, Any]) -> bytes:
    return b"GGUF" + b"".join(struct.pack("<" + form, value) for form, value in parts)


def pair(key: bytes, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value


def one(value: bytes, kind: int = 9, key: bytes = b"a") -> bytes:
    return raw(("I", 3), ("Q", 0), ("Q", 1)) + pair(key, kind, value)


ARCH = pair(b"general.architecture", 8, struct.pack("<Q", 5) + b"llama")


def context(kind: int, value: bytes) -> bytes:
    return raw(("I", 3), ("Q", 0), ("Q", 2)) + ARCH + pair(b"llama.context_length", kind, value)


GGUFS = {
    "empty": b"", "magic only": b"GGUF", "version": raw(("I", 99), ("Q", 0), ("Q", 0)), "cut": raw(("I", 3), ("Q", 0)),
    "tensors 2^63": raw(("I", 3), ("Q", 1 << 63), ("Q", 0)), "pairs 2^63": raw(("I", 3), ("Q", 0), ("Q", 1 << 63)),
    "key 2^63": raw(("I", 3), ("Q", 0), ("Q", 1), ("Q", 1 << 63)), "text 2^63": one(struct.pack("<Q", 1 << 63), 8),
    "text past the end": one(struct.pack("<Q", 1 << 20), 8), "unknown type": one(b"", 77),
    "array 2^64": one(struct.pack("<IQ", 4, (1 << 64) - 1)), "array past the end": one(struct.pack("<IQ", 10, 1 << 40)),
    "texts 2^63": one(struct.pack("<IQ", 8, 1 << 63)), "array of unknown": one(struct.pack("<IQ", 77, 1)),
    "text in array": one(struct.pack("<IQQ", 8, 1, 1 << 63)),
    "arrays of nothing": one(struct.pack("<IQ", 9, 1 << 60) + struct.pack("<IQ", 4, 0) * 100),
    "nested": one(struct.pack("<IQ", 9, 1) * 100_000),
    "nested 5": one(struct.pack("<IQ", 9, 1) * 5 + struct.pack("<IQ", 4, 0)),
    "many texts": one(struct.pack("<IQ", 8, 1 << 23) + bytes(8 << 10)),
    "twice": raw(("I", 3), ("Q", 0), ("Q", 2)) + ARCH + ARCH,
    "context text": context(8, struct.pack("<Q", 1) + b"9"), "context 2^63": context(10, struct.pack("<Q", 1 << 63)),
    "context negative": context(5, struct.pack("<i", -1)), "context NaN": context(6, struct.pack("<f", float("nan"))),
    "dimensions": raw(("I", 3), ("Q", 1), ("Q", 0)) + struct.pack("<QI", 0, 1 << 31),
    "weights": raw(("I", 3), ("Q", 1), ("Q", 0)) + struct.pack("<QI8QIQ", 0, 8, *[1 << 63] * 8, 0, 0),
}  # fmt: skip


def refused(path: Path) -> Problem:
    tracemalloc.start()
    try:
        with pytest.raises(SpecError) as caught:
            find_model(str(path))
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    (problem,) = caught.value.problems
    assert problem.fix
    return problem


@pytest.mark.parametrize("content", SAFETENSORS.values(), ids=SAFETENSORS)
def test_hostile_safetensors_head_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(content)
    assert "model.safetensors" in refused(folder).message
    assert "torn" in [problem.code for problem in import_rules.problems(LocalFiles(folder))]


@pytest.mark.parametrize("content", CONFIGS.values(), ids=CONFIGS)
def test_hostile_config_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "config.json").write_bytes(content)
    assert "config.json" in refused(folder).message
    assert import_rules.problems(LocalFiles(folder))


@pytest.mark.parametrize("content", [CONFIGS[name] for name in ("list", "deep", "NaN", "twice", "huge digits", "cut")])
@pytest.mark.parametrize("name", ["tokenizer_config.json", "chat_template.json", "description.json"])
def test_other_hostile_documents_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / name).write_bytes(content)
    assert name in refused(folder / name if name == "description.json" else folder).message


@pytest.mark.parametrize("content", GGUFS.values(), ids=GGUFS)
def test_hostile_gguf_head_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    assert "m.gguf" in refused(path).message


def test_ordinary_heads_are_read(tmp_path: Path) -> None:
    content = safetensors({"a": [3, 4], "empty": [0], "scalar": []})
    found = safetensors_head(lambda start, length: content[start : start + length], len(content))
    assert found["a"].shape == (3, 4)
    assert json_object(b'{"time_step_limit": [0.0, Infinity]}')
    path = tmp_path / "m.gguf"
    path.write_bytes(one(struct.pack("<IQ", 9, 2) + struct.pack("<IQI", 4, 1, 7) * 2))
    assert find_model(str(path)).parameters == 0


def mutate(content: bytes, draw: random.Random) -> bytes:
    data = bytearray(content)
    words = [
        b"\xff" * 8,
        bytes(8),
        struct.pack("<Q", 1 << 63),
        b"NaN",
        b"[[[[",
        b"-1",
        b"9" * 400,
        b"null",
        b'"',
        b"{}",
    ]
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(data) or 1)
        match draw.randrange(4):
            case 0:
                data[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                word = draw.choice(words)
                data[at : at + len(word)] = word
            case 2:
                del data[at : at + draw.randint(1, 40)]
            case 3:
                data[at:at] = data[at : at + draw.randint(1, 60)]
    return bytes(data)


def fuzz(tmp_path: Path, count: int, seed: int) -> int:
    draw, known = random.Random(seed), 0
    folder = model_folder(tmp_path / "m")
    lone = tmp_path / "lone.gguf"
    gguf_file(lone, {"general.architecture": "llama", "llama.context_length": 64, "tokenizer.ggml.tokens": ["a", "b"]})
    seeds = {path: path.read_bytes() for path in (*folder.iterdir(), lone)}
    for _ in range(count):
        path = draw.choice(list(seeds))
        path.write_bytes(mutate(seeds[path], draw))
        try:
            find_model(str(lone if path == lone else folder))
            known += 1
        except SpecError as error:
            assert error.problems[0].fix  # noqa: PT017 - most mutants are refused, and not all
        import_rules.problems(LocalFiles(folder))
        path.write_bytes(seeds[path])
    return known


def test_mutated_heads_are_read_or_refused(tmp_path: Path) -> None:
    assert 0 < fuzz(tmp_path, 600, seed=1) < 600


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(2, 6))
def test_thousands_of_mutated_heads(tmp_path: Path, seed: int) -> None:
    fuzz(tmp_path, 5000, seed)
