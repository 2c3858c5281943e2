"""`cloudtune.methods` is the only table of training methods in the core."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest
from tests.syntax import nodes

from cloudtune.data import records
from cloudtune.methods import METHODS, MethodName, method_for
from cloudtune.spec import spec_features

if TYPE_CHECKING:
    from collections.abc import Iterable

CORE = Path(__file__).resolve().parents[2] / "src" / "cloudtune"
VENDOR_WORDS = {"data/checks/targets.py": "the vendors' file formats for each method"}
KIND_OR_FORMAT = {"reward": "a kind of rows", "kto": "a format of rows"}
"""Names of methods that also mean something else."""
NAMES = frozenset(METHODS) - KIND_OR_FORMAT.keys()


def literals(syntax: Iterable[ast.AST]) -> list[int]:
    """Lines with a method's name as a whole string."""
    return [node.lineno for node in syntax if isinstance(node, ast.Constant) and node.value in NAMES]


def test_core_has_no_other_method_names() -> None:
    found = {}
    for file in sorted(CORE.rglob("*.py")):
        name = file.relative_to(CORE).as_posix()
        lines = literals(nodes(file))
        if lines and name not in ("methods.py", *VENDOR_WORDS):
            found[name] = lines
    assert not found, "derive these from cloudtune.methods"


def test_the_scan_finds_names_in_every_place() -> None:
    tree = ast.parse('A = ("sft", 1)\nB: Literal["cpt"]\nC = {"x": "dpo", "rft": 2}\ndef f(d="sft"): ...')
    assert sorted(literals(ast.walk(tree))) == [1, 2, 3, 3, 4]


def test_the_table_has_every_method_of_the_spec() -> None:
    assert tuple(METHODS) == get_args(MethodName)
    assert [f"method:{name}" for name in METHODS] == [name for name in spec_features() if name.startswith("method:")]


def test_methods_take_kinds_of_records_that_exist() -> None:
    assert {kind for method in METHODS.values() for kind in method.kinds} <= set(records._KINDS.values())


@pytest.mark.parametrize(("kind", "method"), [
    ("chat", "sft"), ("text", "sft"), ("preference", "dpo"), ("rated", "kto"), ("item", "rft"),
    ("text_label", "classification"), ("tags", "token_classification"), ("pair", "seq2seq"),
    ("contrastive", "embedding"), ("similarity", "embedding"), ("nothing", "sft"),
])  # fmt: skip
def test_rows_choose_their_usual_method(kind: str, method: str) -> None:
    assert method_for(kind) == method
