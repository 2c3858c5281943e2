"""JSON that is nested too deeply makes Python raise RecursionError, which is no ValueError: every reader catches it."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.syntax import nodes

from cloudtune.data.read.causes import find_cause
from cloudtune.data.read.nesting import MAX_DEPTH, may_be_deep
from cloudtune.data.records import Chat, Message
from cloudtune.data.report import check
from cloudtune.data.transform.cleaning import normalised, redacted
from cloudtune.data.write.turns import object_of
from cloudtune_trainer import content_loss, folder
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.records import read_records
from cloudtune_trainer.sagemaker import serving
from cloudtune_trainer.submit import log_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
ROOTS = ("src/cloudtune", "local_backend/cloudtune_local", "local_backend/cloudtune_trainer")
"""Providers are called through `redaction.boundary`, which makes an InvalidResponse of a RecursionError."""
TRUSTED = {
    "src/cloudtune/data/read/duplicate_keys.py": "decoding.py and json_syntax.py, its only callers, catch it",
    "src/cloudtune/document/formats.py": "document.py, its only caller, catches it",
    "src/cloudtune/testing/contract/plan_clauses.py": "reads what the test has written",
    "local_backend/cloudtune_trainer/folder.py": "read_json: the run's own state",
    "local_backend/cloudtune_trainer/records.py": "__iter__: read_records has read the rows before",
    "local_backend/cloudtune_trainer/tiny.py": "models.py, its caller, catches it",
    "local_backend/cloudtune_trainer/tiny_speech.py": "reads the vocabulary that it has just trained",
    "local_backend/cloudtune_trainer/sagemaker/entrypoint.py": "reads what the service or the trainer wrote",
}
DEEP = "[" * 100_000
CATCHES = ("RecursionError", "Exception", "BaseException")


def caught(node: ast.Try | ast.With) -> list[ast.expr]:
    """The exceptions that a ``try`` or a ``with contextlib.suppress(...)`` catches."""
    if isinstance(node, ast.Try):
        return [handler.type for handler in node.handlers if handler.type is not None]
    calls = [item.context_expr for item in node.items if isinstance(item.context_expr, ast.Call)]
    return [kind for call in calls if ast.unparse(call.func) == "contextlib.suppress" for kind in call.args]


def unguarded(path: Path) -> Iterator[int]:
    """Lines that parse JSON outside a ``try`` or ``suppress`` that catches RecursionError."""
    guarded = {
        id(inner)
        for node in nodes(path)
        if isinstance(node, ast.Try | ast.With)
        and any(isinstance(name, ast.Name) and name.id in CATCHES for kind in caught(node) for name in ast.walk(kind))
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in nodes(path):
        if (
            isinstance(node, ast.Call)
            and id(node) not in guarded
            and ast.unparse(node.func) in ("json.loads", "json.load")
        ):
            yield node.lineno


def test_every_reader_of_json_catches_the_error() -> None:
    paths = [path for root in ROOTS for path in sorted((REPOSITORY / root).rglob("*.py"))]
    found = {str(path.relative_to(REPOSITORY)): list(unguarded(path)) for path in paths}
    assert {name: lines for name, lines in found.items() if lines and name not in TRUSTED} == {}
    assert [name for name in TRUSTED if not found.get(name)] == [], "exceptions that are none any more"


def test_a_deep_row_is_a_fault_of_its_line(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(f'{{"text": "a"}}\n{DEEP}\n')
    with pytest.raises(TrainingProblem, match="line 2: maximum recursion depth"):
        read_records(path)


@pytest.mark.parametrize("row", [
    '{"conversations":[{"from":"human","value":"a"},{"from":"gpt","value":%s}]}',
    '{"prompt":"a","completion":"b","tools":[{"type":"function","function":{"name":"f","parameters":{"\\u003a":%s}}}]}',
])  # fmt: skip
def test_rows_of_any_depth_are_read_or_reported(tmp_path: Path, row: str) -> None:
    """Functions that read a row reach Python's limit at different depths: each of them raises at one of these."""
    nested = [f"{'[' * depth}1{']' * depth}" for depth in range(800, 1000, 2)]
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join([row % "1", "{", *(row % value for value in nested)]) + "\n")
    codes = {problem.code for problem in check(str(path)).problems}
    assert {"invalid_json", "too_deep"} <= codes


DEEP_VALUES = [f"{opened * 600}1{closed * 600}" for opened, closed in (("[", "]"), ('{"a":', "}"))]


@pytest.mark.parametrize("deep", DEEP_VALUES, ids=["arrays", "objects"])
@pytest.mark.parametrize(("shallow", "row", "field"), [
    ('{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],"tools":%s}',
     '[{"type":"function","function":{"name":"f","parameters":{"a":%s}}}]', "tools"),
    ('{"messages":[{"role":"user","content":"a"},{"role":"assistant","tool_calls":%s}]}',
     '[{"id":"c","type":"function","function":{"name":"f","arguments":%s}}]',
     "messages[1].tool_calls[0].function.arguments"),
    ('{"prompt":"a","chosen":"b","rejected":[{"role":"assistant","tool_calls":%s}]}',
     '[{"name":"f","parameters":{"a":%s}}]', "rejected[0].tool_calls[0].function.arguments"),
    ('{"messages":[{"role":"user","content":"a"}],"answer":%s}', "%s", "fields"),
])  # fmt: skip
@pytest.mark.parametrize("first", [True, False])
def test_values_that_are_nested_too_deeply_are_reported(
    tmp_path: Path, shallow: str, row: str, field: str, deep: str, first: bool
) -> None:
    """By every way to read a row: the first one is read on its own, the others at once."""
    as_text = '"arguments":%s' in row
    good, bad = (shallow % (row % (json.dumps(value) if as_text else value)) for value in ('{"a":1}', deep))
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join([bad, good] if first else [good, bad, good]) + "\n")
    found = [one for one in check(str(path), private=True, workers=0).problems if one.severity == "error"]
    assert [(one.code, one.line, one.field) for one in found] == [("too_deep", 1 if first else 2, field)]


@pytest.mark.parametrize("bracket", ["[", "\\u005b", "\\u007B"])
def test_only_a_row_with_many_brackets_may_be_deep(bracket: str) -> None:
    """The records of other blocks are not searched. A bracket in a string can be an escape."""
    shallow = f'{{"a":"{bracket * (MAX_DEPTH - 1)}"}}\n'.encode()
    assert not may_be_deep(shallow * 3)
    assert may_be_deep(shallow + f'{{"a":"{bracket * MAX_DEPTH}"}}'.encode() + b"\n" + shallow)


def test_escaped_brackets_of_arguments_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    call = '{"id":"c","type":"function","function":{"name":"f","arguments":"%s"}}'
    row = '{"messages":[{"role":"user","content":"a"},{"role":"assistant","tool_calls":[' + call + "]}]}\n"
    path.write_text(row % "{}" + row % ("\\u005b" * 600 + "]" * 600))
    problems = check(str(path), workers=0).problems
    assert [(one.code, one.line) for one in problems if one.severity == "error"] == [("too_deep", 2)]


def test_the_cause_of_an_error_in_a_deep_row_is_not_searched() -> None:
    def make(row: Any) -> None:
        while isinstance(row, list) and row:
            row = row[0]
        if row == 1:
            raise ValueError("one")

    deep: Any = 1
    for _ in range(2000):
        deep = [deep]
    assert find_cause(ValueError("one"), {"a": [1]}, lambda row: make(row.get("a")))[0] == "a[0]"
    assert find_cause(ValueError("one"), deep, make) == ("", deep)


@pytest.mark.parametrize("deep", [*DEEP_VALUES, "[" * 100 + '"' + "[" * 600 + "]" * 600 + '"' + "]" * 100])
def test_content_can_be_json_of_any_depth(deep: str) -> None:
    chat = Chat([Message("user", deep), Message("assistant", f"{deep} ana@example.org")])
    assert normalised(chat) == chat
    assert redacted(chat) == Chat([Message("user", deep), Message("assistant", f"{deep} [EMAIL]")])


def test_arguments_of_any_depth_are_an_object_or_refused() -> None:
    with pytest.raises(ValueError, match="a: the arguments of a tool call must be a JSON object"):
        object_of(DEEP, "a")


def test_a_deep_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(f'{DEEP}\n{{"a": 1}}\n')
    assert folder.read_lines(path) == [(2, {"a": 1})]
    assert log_lines.parsed(f"{log_lines.PREFIX}metrics {DEEP}") is None


def test_a_deep_request_is_a_bad_request() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        serving.read_body(DEEP, "application/json")


def test_deep_arguments_of_a_call_are_text() -> None:
    from cloudtune_trainer import rendering

    call: dict[str, Any] = {"id": "a", "function": {"name": "f", "arguments": DEEP}}
    assert rendering._called(call) == call
    assert list(content_loss._called({"tool_calls": [call]})) == ["f", DEEP]


def test_deep_arguments_are_compared_with_their_samples() -> None:
    value: Any = "x"
    for _ in range(5000):
        value = [value]
    call = {"function": {"name": "f", "arguments": value}}
    assert list(content_loss._called({"tool_calls": [call]})) == ["f", "x"]
