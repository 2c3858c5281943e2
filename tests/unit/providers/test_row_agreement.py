"""The checks accept a generated row if and only if the emulator does; the vendor's types accept what is uploaded."""

from __future__ import annotations

import json
import random
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.providers.test_vendor_rules import (
    MINI,
    NOVA_2,
    TEXT,
    TOOL,
    A,
    Row,
    U,
    call,
    form_of,
    image,
    made,
    result,
    rules_of,
    said,
    video,
)

from cloudtune.data.checks.record_checks import faults_of
from cloudtune.data.problem_list import Faults
from cloudtune.data.read.blocks import Block
from cloudtune.data.read.decoding import FileRows
from cloudtune.data.records import canonical
from cloudtune.data.row_rules import RowRule
from cloudtune_emulator import rowcheck
from cloudtune_emulator.bedrock import rows as bedrock_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CASES: dict[str, tuple[str, str, str]] = {
    "pair": ("openai", TEXT, "dpo"), "item": ("openai", MINI, "rft"), "nova": ("bedrock", NOVA_2, "sft"),
    "nova_item": ("bedrock", NOVA_2, "rft"),
}  # fmt: skip
_OWN = {"pair": {"blank", "same_answers", "last_not_assistant", "last_not_user"}, "item": {"blank"}}
"""What the checks refuse and the vendor accepts."""


def pair(choose: random.Random) -> Row:
    """A prompt with two answers, of which any message may be wrong."""
    prompt = [*choose.choice([[], made(choose.getrandbits(32))["messages"]]), U]
    answers = [
        [choose.choice([A, A, said("No sé.", "assistant"), said("<|fim_suffix|>", "assistant")])],
        [call(), result(choose.choice(["a", "a", "z", None])), A],
        [call("hora", choose.choice(["{}", "[]", '"{}"']))],
        [A, choose.choice([U, said("s", "system"), A])],
        [said([image()], "assistant")],
    ]
    better, worse = choose.choices(answers, [8, 2, 1, 1, 1], k=2)
    given = {"messages": prompt, **({"tools": [TOOL], "parallel_tool_calls": True} if choose.random() < 0.3 else {})}
    return {"input": given, "preferred_output": better, "non_preferred_output": worse}


def item(choose: random.Random) -> Row:
    """A prompt for a grader, with fields of its own."""
    messages = [*made(choose.getrandbits(32))["messages"], U][: choose.randint(1, 9)]
    if choose.random() < 0.5:
        messages = [one | {"role": "developer"} if one["role"] == "system" else one for one in messages]
    fields = choose.choice([{"reference_answer": "10"}, {"answer": {"n": None}}, {"objetivo": [1, 2]}, {}])
    return {"messages": messages, **fields, **({"tools": [TOOL]} if choose.random() < 0.2 else {})}


def nova(choose: random.Random) -> Row:
    """A conversation with images, videos and reasoning."""
    texts = ["hola", "Son las diez.", "User: hola", "[eos]"]
    text = lambda: choose.choice(texts[:2] * 8 + texts)  # noqa: E731
    names = ["a.png", "a.webp", "a.jpg", "b/c_1.gif", "mi foto.png", "a+b.png", "a.bmp"]
    media = lambda: choose.choice(  # noqa: E731
        [image(f"s3://c/{choose.choice(names[:1] * 6 + names)}"), image("https://x/a.png"), video("s3://c/a.mp4"),
         video("s3://c/a.webm")]
    )  # fmt: skip
    messages = [said(text(), "system")] * choose.choice([0, 0, 1])
    for _ in range(choose.randint(1, 3)):
        parts = [media() for _ in range(choose.choice([0, 0, 1, 2, 11]))]
        messages.append(said([{"type": "text", "text": text()}, *parts] if parts else text()))
        answer = said(text(), "assistant") | ({"reasoning_content": text()} if choose.random() < 0.3 else {})
        messages += [answer] if choose.random() < 0.95 else []
    return {"messages": messages}


def nova_item(choose: random.Random) -> Row:
    """A prompt for a grader of Nova."""
    messages = [said(choose.choice(["hola"] * 5 + ["BOT: x"]), choose.choice(["user", "user", "system", "assistant"]))
                for _ in range(choose.randint(0, 2))]  # fmt: skip
    messages += [U] if choose.random() < 0.8 or not messages else []
    return {"messages": messages, "reference_answer": choose.choice(["10", "10", {"n": 1}, "", {}])}


ROWS: dict[str, Callable[[random.Random], Row]] = {"pair": pair, "item": item, "nova": nova, "nova_item": nova_item}


def emulated(name: str, line: bytes, path: Path) -> str | None:
    """What the emulator has against the row."""
    if name in ("pair", "item"):
        path.write_bytes(line)
        error = rowcheck.check(path, {"pair": "dpo", "item": "reinforcement"}[name], "validation_file").error
        return error and str(error["message"])
    kind = {"nova": "FINE_TUNING", "nova_item": "REINFORCEMENT_FINE_TUNING"}[name]
    return bedrock_rows.check(line, bedrock_rows.Task(NOVA_2, kind, "c"), "rows", is_training=False).fault


def validate(name: str, row: Row) -> None:
    """Hold an uploaded row against the types of the vendor's SDK."""
    if name == "nova":
        assert row.pop("schemaVersion") == "bedrock-conversation-2024"
        assert not (report := converse()(row)), report
        return
    if name == "pair":
        lists = [row["input"]["messages"], row["preferred_output"], row["non_preferred_output"]]
    else:
        lists = [row["messages"]]
    for messages in lists:
        typed().validate_python(messages)


@cache
def typed() -> Any:
    from openai.types.chat import ChatCompletionMessageParam
    from pydantic import TypeAdapter

    return TypeAdapter(list[ChatCompletionMessageParam])


@cache
def converse() -> Callable[[Row], str]:
    from botocore.session import get_session
    from botocore.validate import ParamValidator

    shape = get_session().get_service_model("bedrock-runtime").operation_model("Converse").input_shape
    return lambda row: str(ParamValidator().validate({"modelId": "m", **row}, shape).generate_report())


def agree(name: str, path: Path, seeds: range) -> tuple[int, int]:
    """Compare both verdicts on each row, and return how many were accepted and refused by both."""
    target = CASES[name]
    accepted = refused = 0
    for seed in seeds:
        row = ROWS[name](random.Random(seed))
        reader = FileRows("-", {}, None, Faults(), items=target[2] == "rft")
        (record,) = reader.of_block(Block(json.dumps(row).encode(), 1)).records
        general = {problem.code for problem in faults_of(record, method=target[2])}
        broken = {problem.code for rule in rules_of(*target) if isinstance(rule, RowRule)
                  for problem in rule.problems(record) if problem.severity == "error"}  # fmt: skip
        try:
            line = form_of(*target).line(record, canonical(record))
        except ValueError:
            continue  # such a row is never uploaded
        fault = emulated(name, line, path)
        if not general & _OWN.get(name, set()):
            assert (not general | broken) is (fault is None), (seed, row, general, broken, fault)
        if not general | broken:
            accepted += 1
            validate(name, json.loads(line))
        else:
            refused += 1
    return accepted, refused


@pytest.mark.parametrize("name", CASES)
def test_the_emulator_agrees_on_rows_of_every_method(name: str, tmp_path: Path) -> None:
    assert min(agree(name, tmp_path / "rows.jsonl", range(150))) > 15


@pytest.mark.soak
@pytest.mark.parametrize("name", CASES)
def test_the_emulator_agrees_on_many_rows_of_every_method(name: str, tmp_path: Path) -> None:
    assert min(agree(name, tmp_path / "rows.jsonl", range(150, 10_000))) > 500
