"""JSON that is nested too deeply makes Python raise RecursionError, which is no ValueError: every reader catches it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cloudtune.data.report import check
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
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Try | ast.With)
        and any(isinstance(name, ast.Name) and name.id in CATCHES for kind in caught(node) for name in ast.walk(kind))
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
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
