"""Hostile specs and configuration files: one clear error with its line, never a crash or a hang."""

from __future__ import annotations

import os
import random
import string
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloudtune.config import config as config_module
from cloudtune.config.config import load_config
from cloudtune.config.trust import trust
from cloudtune.document.specfile import open_spec
from cloudtune.errors import ConfigError, InputError, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable

MANY = 20_000
YAML = "model: m\ndata: {train: rows.jsonl}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(config_module, "user_file", lambda: tmp_path / "user.toml")
    monkeypatch.setattr("platformdirs.user_state_dir", lambda *_, **__: str(tmp_path / "state"))
    return tmp_path / "cloudtune.toml"


# -- limits --------------------------------------------------------------------------------------------------------

HOSTILE: dict[str, tuple[str, str]] = {
    "many keys.toml": ("[backends.local]\n" + "".join(f"k{n}=1\n" for n in range(MANY)), "more than 10,000 values"),
    "many keys.yaml": ("".join(f"k{n}: 1\n" for n in range(MANY)), "more than 10,000 values"),
    "many keys.json": ("{" + ",".join(f'"k{n}":1' for n in range(MANY)) + "}", "more than 10,000 values"),
    "many items.toml": (f"a = [{'1,' * MANY}]\n", "more than 10,000 values"),
    "many items.yaml": (f"a: [{'1,' * MANY}]\n", "more than 10,000 values"),
    "many items.json": (f'{{"a": [{"1," * MANY}1]}}', "more than 10,000 values"),
    "large.toml": (f'a = "{"x" * 300_000}"\n', "larger than 256 KiB"),
    "large.yaml": (f"a: {'x' * 300_000}\n", "larger than 256 KiB"),
    "large.json": (f'{{"a": "{"x" * 300_000}"}}', "larger than 256 KiB"),
    "deep key.toml": (".".join("a" * MANY) + " = 1\n", "50 levels"),
    "deep table.toml": (f"\n[{'.'.join('a' * MANY)}]\n", "50 levels"),
    "deep list.toml": (f"a = {'[' * 99}{']' * 99}\n", "50 levels"),
    "deep list.yaml": (f"a: {'[' * MANY}\n", "50 levels"),
    "deep blocks.yaml": ("".join(f"{' ' * n}a:\n" for n in range(99)), "50 levels"),
    "deep.json": ('{"a":' * 99 + "1" + "}" * 99, "50 levels"),
    "deeper.json": ('{"a":' * MANY, "nested too deeply"),
    "aliases.yaml": (
        "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1},' * 9}]\n" for n in range(1, 9)),
        "more than 10,000 values",
    ),
    "integer.toml": (f"a = {'9' * 5000}\n", "not valid TOML"),
    "hexadecimal.toml": (f"a = 0x{'F' * 5000}\n", "does not fit in 64 bits"),
    "integer.yaml": (f"a: {'9' * 5000}\n", "invalid value"),
    "octal.yaml": (f"a: 0o{'7' * 5000}\n", "does not fit in 64 bits"),
    "integer.json": (f'{{"a": {2**63}}}', "does not fit in 64 bits"),
    "nul.json": ('{"model": "a\\u0000b"}', "U+0000"),
    "nul key.json": ('{"a\\u0000b": 1}', "U+0000"),
    "escape.yaml": ('model: "\\e]0;x\\a"\n', "U+001B"),
    "escape.toml": ('backend = "\\u001b[2J"\n', "U+001B"),
    "surrogate.json": ('{"model": "\\ud800"}', "U+D800"),
    "delete.toml": ('backend = "a\\u007f"\n', "U+007F"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_spec_is_one_clear_error(tmp_path: Path, name: str) -> None:
    text, says = HOSTILE[name]
    file = tmp_path / name.replace(" ", "-")
    file.write_text(text)
    with pytest.raises(SpecError) as refused:
        open_spec(file)
    (problem,) = refused.value.problems
    assert says in problem.message
    assert problem.file == str(file)


@pytest.mark.parametrize("name", [name for name in HOSTILE if name.endswith(".toml")])
def test_a_hostile_configuration_is_one_clear_error(project: Path, name: str) -> None:
    text, says = HOSTILE[name]
    project.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_config(project.parent, environ={})
    (problem,) = refused.value.problems
    assert says in problem.message
    assert problem.file == str(project)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: 2\nc: [" + "[" * 99, 3),
        ("a: 1\nb: &b [*b]\n", 2),
        ('a: 1\nb: "\\e"\n', 2),
        ("a: 1\n\nb: 0x1" + "0" * 99, 3),
    ],
)
def test_the_error_names_the_line(tmp_path: Path, text: str, line: int) -> None:
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(SpecError) as refused:
        open_spec(tmp_path / "job.yaml")
    assert [problem.line for problem in refused.value.problems] == [line]


def test_keys_that_stand_twice_are_counted_once_and_bounded(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text("{" + ",".join(['"a":1'] * 30_000) + "}")
    with pytest.raises(SpecError) as refused:
        open_spec(tmp_path / "job.json")
    assert len(refused.value.problems) < 150


def test_many_unknown_keys_are_counted(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text("{" + ",".join(f'"k{n}":1' for n in range(9000)) + "}")
    with pytest.raises(SpecError) as refused:
        open_spec(tmp_path / "job.json")
    assert len(refused.value.problems) == 201
    assert "more problems" in str(refused.value)


def test_a_reused_anchor_is_no_warning(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(f"{YAML}tags: {{a: &x one, b: &x two, c: *x}}\n")
    assert open_spec(tmp_path / "job.yaml").spec.tags["c"] == "two"


def test_a_pipe_without_a_writer_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "job.yaml")
    with pytest.raises(SpecError, match="empty"):
        open_spec(tmp_path / "job.yaml")


def test_a_device_is_read_no_further_than_the_limit() -> None:
    with pytest.raises(SpecError, match="larger than"):
        open_spec("/dev/zero")


@pytest.mark.parametrize("path", ["a\0b", "~nobody-here/job.yaml", "x" * 5000])
def test_a_path_that_cannot_exist_is_a_clear_error(path: str) -> None:
    with pytest.raises(SpecError) as refused:
        open_spec(path)
    assert refused.value.problems[0].code in ("unreadable", "no_file")


@pytest.mark.parametrize("field", ["seed", "data.split_seed"])
@pytest.mark.parametrize("value", [2**32, 2**63 - 1, -1])
def test_a_seed_has_32_bits(tmp_path: Path, field: str, value: int) -> None:
    (tmp_path / "job.yaml").write_text(YAML)
    with pytest.raises(SpecError) as refused:
        open_spec(tmp_path / "job.yaml", [f"{field}={value}"])
    assert [problem.field for problem in refused.value.problems] == [field]
    assert open_spec(tmp_path / "job.yaml", [f"{field}={2**32 - 1}"]).spec


def test_a_deep_override_is_refused(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(YAML)
    with pytest.raises(SpecError, match=r"a\.b=value"):
        open_spec(tmp_path / "job.yaml", [f"{'.'.join('a' * 5000)}=1"])


# -- mutants -------------------------------------------------------------------------------------------------------

SPECS = {
    "yaml": """name: headlines
model: {local: ./model, openai: gpt-4.1-mini-2025-04-14}
method: {name: dpo, beta: 0.1}
data: &data
  train: [{path: a.jsonl, format: auto, columns: {q: prompt}}, b.jsonl]
  validation: 0.1
  mix: [{path: c.jsonl, weight: 0.25}]
adapter: {type: lora, rank: 8, targets: [q_proj]}
hyperparameters: {epochs: 2.5, learning_rate: 2e-4}
limits: {max_time: 2h}
tags: {team: "a", <<: {b: c}}
overrides: {local: {device: cpu}}
seed: 7
""",
    "json": '{"name": "a", "model": "m",\n"data": {"train": {"path": ["a.jsonl"], "template": {"text": "{q}"}}},\n'
    '"hyperparameters": {"epochs": 1, "learning_rate": 1e-4}, "seed": 3, "limits": {"max_time": "90s"}}\n',
    "toml": 'name = "a"\nmodel = "m"\nseed = 0x7\n[data]\ntrain = "a.jsonl"\n[data.validation]\npath = \'b\'\n'
    '[[data.mix]]\npath = "c"\nweight = 1.5\n[overrides.local]\ndevice = "cpu"\n',
}  # fmt: skip
CONFIG = """backend = "openai"
ledger = "sqlite:///home/me/l.db"
profile = "prod"
[backends.openai]
api_key = "${OPENAI_API_KEY}"
base_url = "https://api.openai.com/v1"
timeout = 30.5
[backends.local]
root = "./runs"
tags = {a = ["${A:-b}", "c"], d = 2026-11-29}
[profiles.prod]
backend = "bedrock"
[profiles.prod.backends.bedrock]
region = "us-east-1"
"""
PIECES = [
    "\0", "\x1b[2J", "\\ud800", "é", "\u202e", "\U0001f600", "{", "}", "[", "]", '"', "'", "&a ", "*a", "<<: *a",
    "!!int ", "${HOME}", "${X:-y}", "://", "\n", "\r", "\t", "  ", "- ", ": ", "#", "=", ".", "~", "|\n", ">\n", "0x",
    "1e999", "-", "9" * 30, ".inf", ".nan", "null", "true", "[[", "]]", '"""', "'''", "%YAML 1.1\n---\n", "? ", "a.b.c",
    "2026-11-29T", "sk-" + "a" * 30, "postgresql://u:p@h/d", "a" * 300,
]  # fmt: skip


def mutant(text: str, chance: random.Random) -> bytes:
    """The text with some of its parts removed, doubled, moved, or replaced."""
    for _ in range(chance.randint(1, 6)):
        at, length = chance.randrange(len(text) + 1), chance.randint(0, 20)
        part = text[at : at + length]
        match chance.randrange(6):
            case 0:
                text = text[:at] + text[at + length :]
            case 1:
                text = text[:at] + part * chance.randint(2, 30) + text[at:]
            case 2:
                text = text[:at] + chance.choice(PIECES) + text[at + length :]
            case 3:
                text = text[:at] + chance.choice(PIECES) + text[at:]
            case 4:
                text = text[:at] + "".join(chance.choices(string.printable, k=3)) + text[at:]
            case _:
                other = chance.randrange(len(text) + 1)
                text = text[:other] + part + text[other:]
    raw = bytearray(text.encode("utf-8", "surrogatepass"))
    if raw and chance.random() < 0.1:
        raw[chance.randrange(len(raw))] = chance.randrange(256)
    return bytes(raw)


def read_spec(folder: Path, ending: str, raw: bytes) -> None:
    (folder / f"job.{ending}").write_bytes(raw)
    open_spec(folder / f"job.{ending}")


def read_config(folder: Path, ending: str, raw: bytes) -> None:
    file = folder / "cloudtune.toml"
    file.write_bytes(raw)
    trust(file, raw) if ending == "trusted" else None
    config = load_config(folder, environ={"A": "x"})
    assert isinstance(config.shown(), list)
    assert isinstance(config.pending, tuple)
    for backend in ("openai", "local"):
        config.settings(backend)


READERS: dict[str, tuple[Callable[[Path, str, bytes], None], str]] = {
    "yaml": (read_spec, SPECS["yaml"]), "json": (read_spec, SPECS["json"]), "toml": (read_spec, SPECS["toml"]),
    "trusted": (read_config, CONFIG), "untrusted": (read_config, CONFIG),
}  # fmt: skip


def fuzz(project: Path, kind: str, seeds: range) -> int:
    """Read a mutant for each seed; returns how many were refused."""
    read, text = READERS[kind]
    refused = 0
    for seed in seeds:
        raw = mutant(text, random.Random(seed))
        try:
            read(project.parent, kind, raw)
        except InputError as error:
            refused += all(problem.message for problem in error.problems) and bool(error.problems)
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}: {raw!r}") from error
    return refused


@pytest.mark.parametrize("kind", READERS)
def test_mutants_are_read_or_refused(project: Path, kind: str) -> None:
    assert fuzz(project, kind, range(150)) > 20


@pytest.mark.soak
@pytest.mark.parametrize("kind", READERS)
def test_many_mutants_are_read_or_refused(project: Path, kind: str) -> None:
    assert fuzz(project, kind, range(1000, 11_000)) > 2000
