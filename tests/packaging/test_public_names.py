"""The public names: one sorted list, every name of it real, and the types the same as the run time."""

from __future__ import annotations

import ast
from importlib import import_module, metadata
from pathlib import Path

import cloudtune

TREE = ast.parse(Path(cloudtune.__file__).read_text(encoding="utf-8"))


def _typed_imports() -> dict[str, str]:
    """Name -> module, from the ``if TYPE_CHECKING`` block that editors and type checkers read."""
    (block,) = (
        node
        for node in TREE.body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    )
    return {
        alias.asname or alias.name: node.module or ""
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_all_is_sorted_and_complete() -> None:
    assert cloudtune.__all__ == sorted(set(cloudtune.__all__))
    assert set(dir(cloudtune)) == {*cloudtune.__all__, "__version__"}


def test_type_checkers_see_the_same_names() -> None:
    assert sorted(_typed_imports()) == cloudtune.__all__


def test_every_name_is_what_its_home_calls_so() -> None:
    for name, module in _typed_imports().items():
        assert getattr(cloudtune, name) is getattr(import_module(module), name), name


def test_every_public_class_and_function_is_described() -> None:
    bare = [
        name
        for name in cloudtune.__all__
        if callable(getattr(cloudtune, name)) and not getattr(cloudtune, name).__doc__
    ]
    assert not bare


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(cloudtune, "no_such_name")


def test_the_version_is_the_distributions() -> None:
    assert cloudtune.__version__ == metadata.version("cloudtune")
